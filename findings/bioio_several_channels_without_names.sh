#!/usr/bin/env bash
# bioio 3.6.0: an image of several channels for which the reader has no names raises when it is read.
#
# Input: DeltaVision files of 8 x 9 pixels that mrc 0.4.0 writes, without an extended header, of one channel
# and seven planes, and of three channels, read by BioImage with bioio-dv 1.2.0.
# Seen: the shape of both is told, and mrc's own DVFile reads both. The pixels of the first come; those of
# the second raise CoordinateValidationError, since bioio makes up the name of one channel for all three:
# conflicting sizes for dimension 'C': length 3 on the data but length 1 on coordinate 'C'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q bioio==3.6.0 bioio-dv==1.2.0 mrc==0.4.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import mrc
import numpy as np
from bioio import BioImage

seen = []
for planes in (7, 3):
    pixels = np.arange(planes * 72, dtype=np.int16).reshape(planes, 8, 9)
    mrc.save(pixels, f"{planes}.dv")
    with mrc.DVFile(f"{planes}.dv") as file:
        assert np.array_equal(np.asarray(file.asarray()).reshape(pixels.shape), pixels)
    image = BioImage(f"{planes}.dv")
    try:
        found = "equal" if np.array_equal(image.data.reshape(pixels.shape), pixels) else "different"
    except ValueError as error:
        found = f"{type(error).__name__}: {error}"
    print(f"{image.shape}: {found}")
    seen.append((image.shape, found.partition(":")[0]))
wanted = [((1, 1, 7, 8, 9), "equal"), ((1, 3, 1, 8, 9), "CoordinateValidationError")]
assert seen == wanted, "this has changed"
P
