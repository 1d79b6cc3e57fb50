#!/usr/bin/env bash
# SimpleITK 2.5.7: a TIFF with several grey channels is read as one image in whose rows they alternate.
#
# Input: 8 x 9 pixels with two, three and four grey channels (stainings), interleaved samples
# (PlanarConfiguration 1, PhotometricInterpretation 1), written by tifffile 2026.3.3.
# Seen: ReadImage gives one component of the size of the image, without a word. A row of two channels is
# a0 b0 a1 b1 a2 b2 a3 b3 a4: the left half, stretched, with both channels mixed; the right half is lost.
# The same pixels marked as colour (RGB) come back with their three components in place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q SimpleITK==2.5.7 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import numpy as np
import SimpleITK
import tifffile

seen = []
for channels, photometric in ((2, "minisblack"), (3, "minisblack"), (4, "minisblack"), (3, "rgb")):
    for dtype in (np.uint8, np.uint16):
        image = np.random.default_rng(0).integers(0, 250, (8, 9, channels)).astype(dtype)
        tifffile.imwrite("image.tif", image, photometric=photometric, planarconfig="contig")
        assert np.array_equal(tifffile.imread("image.tif"), image)
        read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("image.tif"))
        what = ("as written" if np.array_equal(read, image)
                else "alternating" if np.array_equal(read, image.reshape(8, -1)[:, :9]) else "other")
        print(f"{channels} x {np.dtype(dtype).name:8}{photometric:12}-> {read.shape} {what}")
        seen.append((read.shape, what))
assert seen == [((8, 9), "alternating")] * 6 + [((8, 9, 3), "as written")] * 2, "this has changed"
P
