#!/usr/bin/env bash
# pyvips 3.2.0 (pyvips-binary 8.18.7): a file that was written anew is read as it was before.
#
# Input: labels.tif written by tifffile 2026.3.3, read, overwritten with other pixels and another size
# (as a corrected mask is saved under its name), and read again in the same process.
# Seen: the second new_from_file gives the first file's pixels and size, although size, time and
# content on disk are others. revalidate=True, or another spelling of the path, gives the new ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyvips==3.2.0 pyvips-binary==8.18.7 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import time

import numpy as np
import pyvips
import tifffile

first, second = np.full((20, 30), 1, np.uint16), np.full((40, 50), 2, np.uint16)
tifffile.imwrite("labels.tif", first)
assert np.array_equal(pyvips.Image.new_from_file("labels.tif").numpy(), first)
time.sleep(1.1)
tifffile.imwrite("labels.tif", second)
seen = [
    pyvips.Image.new_from_file("labels.tif").numpy(),
    pyvips.Image.new_from_file("./labels.tif").numpy(),
    pyvips.Image.new_from_file("labels.tif", revalidate=True).numpy(),
]
for name, read in zip(("the same name", "another spelling", "revalidate=True"), seen, strict=True):
    print(f"{name:18}{read.shape} of {read.max()}")
assert np.array_equal(seen[0], first), "this has changed"
assert all(np.array_equal(read, second) for read in seen[1:]), "this has changed"
P
