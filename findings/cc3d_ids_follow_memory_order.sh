#!/usr/bin/env bash
# connected-components-3d 4.1.1 numbers components in the order of memory, not of rows and columns.
#
# Input: one binary image of three objects, once C-contiguous, once Fortran-contiguous (as it comes out
# of a transposition, of NIfTI files or of MATLAB). Both compare equal element by element.
# Seen: C order numbers the objects 1, 2, 3 from the top row down; Fortran order numbers them from the
# left column on, so that the object at the upper right is 3 instead of 1. SciPy's label gives the same
# ids for both. Whoever joins the ids of blocks, or compares two runs, needs np.ascontiguousarray first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q connected-components-3d==4.1.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'P'
import cc3d
import numpy as np
from scipy import ndimage

mask = np.zeros((6, 8), np.uint8)
mask[0, 6:] = mask[2, :3] = mask[4:, 3:5] = 1
fortran = np.asfortranarray(mask)
assert np.array_equal(mask, fortran)


def ids(labels):
    """Return the ids of the objects at the upper right, at the left and below."""
    return [int(labels[place]) for place in ((0, 7), (2, 0), (5, 4))]


seen = {
    "cc3d, C order": ids(cc3d.connected_components(mask, connectivity=4)),
    "cc3d, Fortran order": ids(cc3d.connected_components(fortran, connectivity=4)),
    "scipy, C order": ids(ndimage.label(mask)[0]),
    "scipy, Fortran order": ids(ndimage.label(fortran)[0]),
}
for name, found in seen.items():
    print(f"{name:22}{found}")
assert list(seen.values()) == [[1, 2, 3], [3, 1, 2], [1, 2, 3], [1, 2, 3]], "this has changed"
P
