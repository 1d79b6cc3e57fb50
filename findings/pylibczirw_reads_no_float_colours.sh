#!/usr/bin/env bash
# pylibCZIrw 6.1.0: writes a colour image of 32-bit floats without a word and can't read its own file.
#
# Input: a picture of 5 x 7 pixels with three samples each, as uint8, uint16 and float32, written by
# `write` of a new CZI, and read again by `read` of the same package.
# Seen: the file says of its channel that it is Bgr24, Bgr48 and Bgr96Float, which are types of the format.
# The first two come back as they were. Reading the third raises RuntimeError, after all that was
# written: who saves colours as floats learns of it when the file is opened.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pylibCZIrw==6.1.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import numpy as np
from pylibCZIrw import czi

seen = []
for kind in ("uint8", "uint16", "float32"):
    pixels = np.arange(105).reshape(5, 7, 3).astype(kind)
    with czi.create_czi(f"{kind}.czi") as file:
        file.write(pixels, plane={"C": 0})
    with czi.open_czi(f"{kind}.czi") as file:
        told = file.get_channel_pixel_type(0)
        try:
            back = file.read(plane={"C": 0}, roi=(0, 0, 7, 5))
            found = "equal" if np.array_equal(back, pixels) else "different"
        except RuntimeError as error:
            found = f"RuntimeError: {error}"
    print(f"{kind}: {told}, {found}")
    seen.append((told, found.partition(":")[0]))
wanted = [("Bgr24", "equal"), ("Bgr48", "equal"), ("Bgr96Float", "RuntimeError")]
assert seen == wanted, "this has changed"
P
