#!/usr/bin/env bash
# pillow 13.0.0, opencv-python-headless 5.0.0.93, pyvips 3.2.0: TIFFs whose 0 is white
# (PhotometricInterpretation 0, as scanners and gel cameras write) are inverted at some depths only.
#
# Input: 20 x 24 grey pixels, photometric="miniswhite", written by tifffile 2026.3.3 as uint8, uint16.
# Seen, without a word: Pillow and OpenCV invert uint8 and leave uint16 as stored, pyvips inverts both,
# tifffile neither. So the same gel, saved at another depth, comes in as its negative, and two readers
# that agree on one depth differ on the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 opencv-python-headless==5.0.0.93 pyvips==3.2.0 \
  pyvips-binary==8.18.7 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import cv2
import numpy as np
import pyvips
import tifffile
from PIL import Image

READERS = {
    "pillow": lambda name: np.asarray(Image.open(name)),
    "opencv": lambda name: cv2.imread(name, cv2.IMREAD_UNCHANGED),
    "pyvips": lambda name: pyvips.Image.new_from_file(name).numpy(),
    "tifffile": tifffile.imread,
}
seen = {}
for dtype in (np.uint8, np.uint16):
    name = f"{np.dtype(dtype).name}.tif"
    stored = np.random.default_rng(0).integers(0, 255, (20, 24)).astype(dtype)
    tifffile.imwrite(name, stored, photometric="miniswhite")
    for reader, read in READERS.items():
        image = read(name)
        what = ("as stored" if np.array_equal(image, stored)
                else "inverted" if np.array_equal(image, np.iinfo(dtype).max - stored) else "other")
        print(f"{reader:10}{np.dtype(dtype).name:8}{what}")
        seen[reader, np.dtype(dtype).name] = what
assert seen == {
    ("pillow", "uint8"): "inverted", ("pillow", "uint16"): "as stored",
    ("opencv", "uint8"): "inverted", ("opencv", "uint16"): "as stored",
    ("pyvips", "uint8"): "inverted", ("pyvips", "uint16"): "inverted",
    ("tifffile", "uint8"): "as stored", ("tifffile", "uint16"): "as stored",
}, "this has changed"
P
