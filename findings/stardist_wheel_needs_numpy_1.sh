#!/usr/bin/env bash
# stardist 0.9.1: its wheel for Python 3.11 can't be imported with NumPy 2, and pip installs NumPy 2.
#
# Input: none but the import. Seen: the wheel was compiled with NumPy 1 and names no NumPy at all among
# what it needs, so that a fresh environment gets NumPy 2; pip has nothing to say against it (`pip check`
# is content), and `import stardist` ends in "ImportError: numpy.core.multiarray failed to import". With
# NumPy 1.26.4 in the same environment it is imported and measures right: from the middle of a square of
# five pixels a side it is 2.5 pixels to the rim, four ways.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip" python="$folder/venv/bin/python"
"$pip" install -q --only-binary stardist stardist==0.9.1 csbdeep==0.8.2 numba==0.68.1 scikit-image==0.26.0 numpy==2.4.6
"$pip" check
"$python" - <<'P'
from importlib.metadata import requires

named = [line for line in requires("stardist") if line.startswith("numpy")]
print("what the wheel says of NumPy:", named)
assert named == []
P
if said=$("$python" -c "import stardist" 2>&1); then
  echo "this has changed: it is imported with NumPy 2"
  exit 1
fi
echo "with NumPy 2.4.6: $(tail -n 1 <<<"$said")"
grep -q "numpy.core.multiarray failed to import" <<<"$said"
"$pip" install -q --no-deps numpy==1.26.4
"$python" - <<'P'
import numpy as np
from stardist import star_dist

labels = np.zeros((9, 9), np.uint16)
labels[2:7, 2:7] = 1
found = star_dist(labels, n_rays=4)[4, 4]
print("with NumPy 1.26.4, from the middle of a square of five pixels to its rim:", found)
assert np.allclose(found, 2.5)
P
