#!/usr/bin/env bash
# pillow 13.0.0 and opencv-python-headless 5.0.0.93: TIFFs whose 0 is white (PhotometricInterpretation
# 0, as scanners and gel cameras write) are inverted at 8 bits and left as stored at 16.
#
# Input: 20 x 24 grey pixels, photometric="miniswhite", written by tifffile 2026.3.3 as uint8, uint16.
# Seen: both libraries give 255 - stored for uint8 and the stored numbers for uint16, without a word;
# tifffile itself gives the stored numbers for both. So the same plate, saved at another depth, comes in
# as its negative, and two readers agree for one depth and not for the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import cv2
import numpy as np
import tifffile
from PIL import Image

READERS = {
    "pillow": lambda name: np.asarray(Image.open(name)),
    "opencv": lambda name: cv2.imread(name, cv2.IMREAD_UNCHANGED),
    "tifffile": tifffile.imread,
}
seen = {}
for dtype in (np.uint8, np.uint16):
    stored = np.random.default_rng(0).integers(0, 255, (20, 24)).astype(dtype)
    tifffile.imwrite("image.tif", stored, photometric="miniswhite")
    for name, read in READERS.items():
        image = read("image.tif")
        what = ("as stored" if np.array_equal(image, stored)
                else "inverted" if np.array_equal(image, np.iinfo(dtype).max - stored) else "other")
        print(f"{name:10}{np.dtype(dtype).name:8}{what}")
        seen[name, np.dtype(dtype).name] = what
assert seen == {
    ("pillow", "uint8"): "inverted", ("opencv", "uint8"): "inverted", ("tifffile", "uint8"): "as stored",
    ("pillow", "uint16"): "as stored", ("opencv", "uint16"): "as stored", ("tifffile", "uint16"): "as stored",
}, "this has changed"
P
