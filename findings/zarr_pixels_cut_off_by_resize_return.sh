#!/usr/bin/env bash
# zarr 3.1.6 and tensorstore 0.1.86: pixels that a resize cut off come back when the array grows again.
#
# Input: a 16 x 16 uint8 array of 7, fill value 0, in chunks of 8 x 8, and in shards of 8 x 8 with
# chunks of 4 x 4; made 10 x 10, then 16 x 16 again, as one crops a canvas and pads it later.
# Seen: every pixel is 7 again, with both libraries and both layouts; a crop followed by a pad in NumPy
# leaves 100. What lies beyond the edge of a chunk or shard that is kept stays stored, and nothing marks it.
# A shape that ends on chunk borders (8 x 8) leaves the 64 that are expected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 tensorstore==0.1.86 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import shutil

import tensorstore
import zarr


def by_zarr(array, side):
    array.resize((side, side))
    array.resize((16, 16))
    return array[:]


def by_tensorstore(array, side):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": "array.zarr/"}}
    store = tensorstore.open(spec).result()
    store = store.resize(exclusive_max=[side, side]).result()
    return store.resize(exclusive_max=[16, 16]).result().read().result()


seen = []
for resize in (by_zarr, by_tensorstore):
    for layout in ({"chunks": (8, 8)}, {"chunks": (4, 4), "shards": (8, 8)}):
        for side in (10, 8):
            shutil.rmtree("array.zarr", ignore_errors=True)
            array = zarr.create_array("array.zarr", shape=(16, 16), dtype="uint8", fill_value=0, **layout)
            array[:] = 7
            left = int((resize(array, side) == 7).sum())
            print(f"{resize.__name__:16}{layout!s:40}cut to {side:2}, grown to 16: {left} pixels of 7")
            seen.append(left)
assert seen == [256, 64] * 4, "this has changed"
P
