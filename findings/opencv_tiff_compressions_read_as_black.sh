#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: an 8-bit TIFF whose compression it can't decode is read as black.
#
# Input: 20 x 24 pixels, all of them above 0, as JPEG 2000, JPEG XL and PNG inside TIFF (slides of
# several vendors hold the first), written by tifffile 2026.3.3, which reads them back.
# Seen: for uint8, grey and colour, imread(IMREAD_UNCHANGED) returns an array of the right shape that
# is 0 everywhere, with a line on stderr and no exception; for uint16 it returns None, which is how it
# says elsewhere that a file can't be read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import cv2
import numpy as np
import tifffile

random = np.random.default_rng(0)
seen = []
for compression in ("jpeg2000", "jpegxl", "png"):
    for dtype in (np.uint8, np.uint16):
        for shape, photometric in (((20, 24), "minisblack"), ((20, 24, 3), "rgb")):
            image = random.integers(1, 255, shape).astype(dtype)
            tifffile.imwrite("image.tif", image, compression=compression, photometric=photometric)
            assert (tifffile.imread("image.tif") > 0).all()
            read = cv2.imread("image.tif", cv2.IMREAD_UNCHANGED)
            what = "None" if read is None else f"{read.shape}, largest value {read.max()}"
            print(f"{compression:10}{np.dtype(dtype).name:8}{photometric:12}{what}")
            seen.append(what)
wanted = ["(20, 24), largest value 0", "(20, 24, 3), largest value 0", "None", "None"] * 3
assert seen == wanted, "this has changed"
P
