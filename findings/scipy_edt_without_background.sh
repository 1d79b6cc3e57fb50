#!/usr/bin/env bash
# SciPy 1.17.1: the distance transform of a tile that lies wholly inside an object is that of a slope.
#
# Input: distance_transform_edt of a 5 x 5 mask without a single background pixel, as a tile in the middle
# of a large cell is.
# Seen: no error, no warning, no infinity: distances to a point that does not exist, just above the upper
# left corner (1 in that corner, 5 below it, 6.4 in the opposite one), and return_indices names row -1.
# The edt package gives infinity for the same mask. A whole mask of one background pixel is right in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scipy==1.17.1 numpy==2.4.6 edt==3.1.2
"$folder/venv/bin/python" - <<'P'
import warnings

import edt
import numpy as np
from scipy import ndimage

warnings.simplefilter("error")
inside = np.ones((5, 5), np.uint8)
distances, places = ndimage.distance_transform_edt(inside, return_indices=True)
print(np.round(distances, 2))
print("nearest background of the centre:", places[:, 2, 2].tolist())
print("edt:", np.unique(edt.edt(inside)).tolist())
y, x = np.indices(inside.shape)
assert np.allclose(distances, np.hypot(y + 1, x)), "this has changed"
assert places[:, 2, 2].tolist() == [-1, 0], "this has changed"
assert np.isinf(edt.edt(inside)).all(), "this has changed"

inside[2, 2] = 0
assert np.allclose(ndimage.distance_transform_edt(inside), np.hypot(y - 2, x - 2))
assert np.allclose(edt.edt(inside), np.hypot(y - 2, x - 2))
P
