#!/usr/bin/env bash
# dask-image 2026.5.0: filters with mode="wrap" wrap every chunk around itself, not the image.
#
# Input: a 32 x 32 float64 image, periodic as a tiled texture is, in chunks of 16 x 16.
# Seen: uniform_filter, gaussian_filter and median_filter differ from SciPy's in 124, 438 and 97 of
# 1,024 pixels, along the image's rim and along the chunk boundaries in its middle, without a word.
# With the image as a single chunk the results are SciPy's, and so they are in 16 x 16 chunks for
# "reflect", "mirror", "nearest" and "constant".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask-image==2026.5.0 dask==2026.8.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'P'
import dask.array as da
import numpy as np
from dask_image import ndfilters
from scipy import ndimage

image = np.random.default_rng(0).random((32, 32))
FILTERS = {"uniform_filter": {"size": 3}, "gaussian_filter": {"sigma": 1}, "median_filter": {"size": 3}}


def differing(mode, chunk):
    """Count the pixels in which each filter differs from SciPy's."""
    stored = da.from_array(image, chunks=chunk)
    return [
        int((~np.isclose(getattr(ndfilters, name)(stored, mode=mode, **options).compute(),
                         getattr(ndimage, name)(image, mode=mode, **options))).sum())
        for name, options in FILTERS.items()
    ]


seen = {f"{mode}, chunks of {chunk}": differing(mode, chunk) for mode, chunk in (
    ("wrap", 16), ("wrap", 32), ("reflect", 16), ("mirror", 16), ("nearest", 16), ("constant", 16))}
for name, found in seen.items():
    print(f"{name:24}{found}")
assert list(seen.values()) == [[124, 438, 97]] + [[0, 0, 0]] * 5, "this has changed"
P
