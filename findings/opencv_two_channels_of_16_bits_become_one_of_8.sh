#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: a TIFF with several grey channels comes back as the first alone, and
# cut from 16 to 8 bits, although IMREAD_UNCHANGED was asked for.
#
# Input: 8 x 9 pixels with two grey channels (two stainings) of a 12-bit camera, 2 samples a pixel,
# interleaved, written by tifffile 2026.3.3 as uint16; the same as uint8; with one, three and four channels too.
# Seen: shape (8, 9) every time, without a word. uint8 is the first channel; uint16 comes back as uint8,
# the first channel divided by 256, so that the 4,096 values of such a camera become 16. Three
# and four uint16 channels become the brightness that they would have as red, green and blue.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import cv2
import numpy as np
import tifffile

seen = []
LUMA = [0.299, 0.587, 0.114]  # of red, green and blue
for channels in (1, 2, 3, 4):
    for dtype, values in ((np.uint8, 256), (np.uint16, 4096)):
        image = np.random.default_rng(0).integers(0, values, (8, 9, channels), dtype)
        layout = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite("image.tif", image.squeeze(), photometric="minisblack", **layout)
        assert np.array_equal(tifffile.imread("image.tif").reshape(image.shape), image)
        read = cv2.imread("image.tif", cv2.IMREAD_UNCHANGED)
        what = ("the first channel" if np.array_equal(read, image[..., 0])
                else "the weighted sum" if channels > 2 and np.abs(read - image[..., :3] @ LUMA).max() < 1
                else "the first channel // 256" if np.array_equal(read, image[..., 0] // 256) else "other")
        print(f"{channels} x {np.dtype(dtype).name:8}-> {read.shape} {read.dtype!s:7} {what}")
        seen.append((read.shape, str(read.dtype), what))
whole, cut = ((8, 9), "uint8", "the first channel"), ((8, 9), "uint8", "the first channel // 256")
mixed = ((8, 9), "uint16", "the weighted sum")
assert seen == [whole, ((8, 9), "uint16", "the first channel")] + [whole, cut, whole, mixed, whole, mixed], "this has changed"
P
