#!/usr/bin/env bash
# scikit-image 0.26.0: of an outline without area, polygon and polygon2mask keep only the corners.
#
# Input: outlines of cells one pixel wide (bacteria, filaments) as annotation tools trace them: from
# one end to the other and back, along a row, a column and a diagonal of five pixels.
# Seen: of an outline with area every pixel on an edge is in, the far corners too. Of a flat one only
# the corners are: two of five pixels, and three where a corner lies between, so that one cell becomes
# two specks. OpenCV 5.0.0 (fillPoly) fills all five.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-image==0.26.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import cv2
import numpy as np
from skimage.draw import polygon, polygon2mask

OUTLINES = {
    "a square": [(1, 1), (1, 3), (3, 3), (3, 1)],
    "a row": [(1, 0), (1, 4), (1, 0)],
    "a row with a corner between": [(1, 0), (1, 4), (1, 2)],
    "a column": [(0, 2), (4, 2), (0, 2)],
    "a diagonal": [(0, 0), (4, 4), (0, 0)],
}
seen = {}
for name, corners in OUTLINES.items():
    mask = polygon2mask((5, 5), corners)
    rows, columns = polygon(*np.transpose(corners), shape=(5, 5))
    assert {*zip(rows.tolist(), columns.tolist())} == {*map(tuple, np.argwhere(mask).tolist())}
    filled = cv2.fillPoly(np.zeros((5, 5), np.uint8), [np.array(corners)[:, ::-1].astype(np.int32)], 1)
    seen[name] = (int(mask.sum()), int(filled.sum()))
    print(f"{name:30}scikit-image {seen[name][0]} pixels, OpenCV {seen[name][1]}")
assert seen == {
    "a square": (9, 9), "a row": (2, 5), "a row with a corner between": (3, 5),
    "a column": (2, 5), "a diagonal": (2, 5),
}, "this has changed"
P
