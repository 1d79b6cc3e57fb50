#!/usr/bin/env bash
# numcodecs 0.16.6: chunks that Blosc compressed by Snappy can't be read, and the error doesn't say why.
#
# Input: a 64 x 64 uint16 array of Zarr 2 by tensorstore 0.1.86, whose metadata name Blosc's compressor: lz4,
# zstd and snappy, each of which Zarr 2 and Blosc know.
# Seen: zarr 3.1.6 opens all three; it reads the first two right and of the third raises RuntimeError "error
# during blosc decompression: -5", as if the chunk were damaged. numcodecs builds its Blosc without Snappy
# and lists what it has in `blosc.list_compressors()`, which nobody asks when the array is opened.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 numcodecs==0.16.6 tensorstore==0.1.86 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import numpy as np
import tensorstore
import zarr
from numcodecs import blosc

values = np.arange(4096, dtype="uint16").reshape(64, 64)
seen = {}
for name in ("lz4", "zstd", "snappy"):
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{name}.zarr/"}}
    compressor = {"id": "blosc", "cname": name, "clevel": 5, "shuffle": 1, "blocksize": 0}
    metadata = {"shape": [64, 64], "chunks": [64, 64], "dtype": "<u2", "compressor": compressor}
    made = tensorstore.open({**spec, "metadata": metadata}, create=True).result()
    made.write(values).result()
    assert np.array_equal(made.read().result(), values)
    array = zarr.open_array(f"{name}.zarr", mode="r")
    try:
        seen[name] = str(np.array_equal(array[:], values))
    except RuntimeError as error:
        seen[name] = f"RuntimeError: {error}"
    print(f"{name}: listed {name in blosc.list_compressors()}, read {seen[name]}")
wanted = {"lz4": "True", "zstd": "True", "snappy": "RuntimeError: error during blosc decompression: -5"}
assert seen == wanted, "this has changed"
P
