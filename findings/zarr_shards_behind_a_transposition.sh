#!/usr/bin/env bash
# zarr 3.1.6: an array whose shards stand behind a transposition can't be opened; tensorstore 0.1.86 writes it.
#
# Input: a 2 x 32 x 32 uint16 array in one shard of the same shape, by tensorstore, with the codecs transpose
# (1, 2, 0) and then sharding_indexed with chunks of 16 x 8 x 1, which count in the transposed axes, as the
# specification has it: a codec gets the chunk that the codec before it gives, here 32 x 32 x 2.
# Seen: zarr.open_array raises ValueError, since it compares 16 x 8 x 1 with 2 x 32 x 32 and not with
# 32 x 32 x 2. Chunks of 2 x 8 x 1, which divide the shape either way, are opened and read right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 tensorstore==0.1.86 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import numpy as np
import tensorstore
import zarr

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
values = np.arange(2048, dtype="uint16").reshape(2, 32, 32)
seen = []
for number, inner in enumerate([(16, 8, 1), (2, 8, 1)]):
    shards = {"chunk_shape": inner, "codecs": [LITTLE]}
    metadata = {
        "shape": [2, 32, 32],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 32, 32]}},
        "codecs": [
            {"name": "transpose", "configuration": {"order": [1, 2, 0]}},
            {"name": "sharding_indexed", "configuration": shards},
        ],
    }
    place = {"driver": "file", "path": f"{number}.zarr/"}
    spec = {"driver": "zarr3", "kvstore": place}
    tensorstore.open({**spec, "metadata": metadata}, create=True).result().write(values).result()
    again = tensorstore.open(spec).result().read().result()
    try:
        found = str(np.array_equal(zarr.open_array(f"{number}.zarr", mode="r")[:], values))
    except ValueError as error:
        found = f"ValueError: {error}"
    print(f"chunks {inner}: tensorstore {np.array_equal(again, values)}, zarr {found}")
    seen.append(found[:10])
assert seen == ["ValueError", "True"], "this has changed"
P
