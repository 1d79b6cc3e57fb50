#!/usr/bin/env bash
# bioimage-cpp 0.10.0: one bright pixel in a corner of the height map rearranges the whole watershed.
#
# Input: a smooth float32 height map of 64 x 64 pixels between 0 and 1 with 33 seeds in its minima; then
# the same with one pixel of 1e6 in a corner, such as a hot pixel or an infinity that was replaced.
# Seen: without it the partition is scikit-image's, pixel for pixel. With it 97 % of the pixels change
# their object, while scikit-image's change in none. Heights are cut into 65,536 steps between the least
# and the largest value of the array, so that all but one pixel fall into the same step, and flat ground
# goes to whichever seed is served first. For the same reason a tile may be divided otherwise than the
# image that it was cut from.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q bioimage-cpp==0.10.0 scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import numpy as np
from bioimage_cpp import segmentation
from scipy import ndimage
from skimage.segmentation import watershed

heights = ndimage.gaussian_filter(np.random.default_rng(1).random((64, 64)), 2)
heights = ((heights - heights.min()) / np.ptp(heights)).astype(np.float32)
seeds, count = ndimage.label(ndimage.minimum_filter(heights, 9) == heights)
bright = heights.copy()
bright[0, 0] = 1e6

plain, shifted = (segmentation.watershed(h, seeds.astype(np.int32)) for h in (heights, bright))
oracle, same = (watershed(h, seeds) for h in (heights, bright))
print(f"seeds {count}, pixels that differ from scikit-image without it: {(plain != oracle).sum()}")
print(f"pixels changed by the bright one: {(shifted != plain).mean():.2f} of all;"
      f" in scikit-image {(same != oracle).mean():.2f}")
assert count == 33
assert (plain == oracle).all()
assert (same == oracle).all()
assert (shifted != plain).mean() > 0.9, "this has changed"
P
