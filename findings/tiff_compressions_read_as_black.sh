#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and pyvips 3.2.0 (pyvips-binary 8.18.7): a TIFF whose compression they
# can't decode is read as a black image.
#
# Input: 32 x 32 pixels in colour, all of them above 0, as JPEG 2000 (which slides of several vendors
# hold), JPEG XL and LZMA inside TIFF, written by tifffile 2026.3.3, which reads them back.
# Seen: OpenCV's imread(IMREAD_UNCHANGED) returns for uint8 an array of the right shape that is 0
# everywhere for JPEG 2000 and JPEG XL, and None, which is how it says that a file can't be read, for
# LZMA and for all of uint16. pyvips gives 0 everywhere for all six, and an error only where
# fail_on="error" is asked for. Neither raises; lines on stderr are all that is said.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 pyvips==3.2.0 pyvips-binary==8.18.7 \
  tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import cv2
import numpy as np
import pyvips
import tifffile


def by_opencv(name):
    return cv2.imread(name, cv2.IMREAD_UNCHANGED)


def by_pyvips(name):
    return pyvips.Image.new_from_file(name).numpy()


def by_strict_pyvips(name):
    try:
        return pyvips.Image.new_from_file(name, fail_on="error").numpy()
    except pyvips.Error:
        return None


random, seen = np.random.default_rng(0), {}
for compression in ("jpeg2000", "jpegxl", "lzma"):
    for dtype in (np.uint8, np.uint16):
        image = random.integers(1, 255, (32, 32, 3)).astype(dtype)
        name = f"{compression}-{np.dtype(dtype).name}.tif"
        tifffile.imwrite(name, image, compression=compression, photometric="rgb")
        assert np.array_equal(tifffile.imread(name), image)
        for read in (by_opencv, by_pyvips, by_strict_pyvips):
            pixels = read(name)
            what = "no image" if pixels is None else f"{pixels.shape}, largest value {pixels.max()}"
            print(f"{name:22}{read.__name__:18}{what}")
            seen.setdefault(read.__name__, []).append(what)
black, none = "(32, 32, 3), largest value 0", "no image"
assert seen == {
    "by_opencv": [black, none] * 2 + [none] * 2, "by_pyvips": [black] * 6, "by_strict_pyvips": [none] * 6,
}, "this has changed"
P
