#!/usr/bin/env bash
# fsspec 2026.9.0 gives a whole file where a part was asked for, if the web server knows no ranges.
#
# Input: 1,000 bytes behind a server that answers every GET with the whole file and code 200, which HTTP allows
# (Python's http.server is one; many a lab's file share is another).
# Seen: cat_file(url, start=0, end=4) returns 1,000 bytes instead of 4, without an error or a warning. zarr 3.1.6
# reads shards by such parts: an intact array with shards fails over this server, the same array without shards is
# read right. A server that knows ranges answers 206; whoever reads parts has to ask first.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q fsspec==2026.9.0 aiohttp==3.14.5 requests==2.32.5 zarr==3.1.6 numpy==2.4.6
mkdir "$folder/web"
"$folder/venv/bin/python" - "$folder/web" <<'P'
import sys
from pathlib import Path

import numpy as np
import zarr

web = Path(sys.argv[1])
(web / "thousand.bin").write_bytes(bytes(range(250)) * 4)
pixels = np.arange(64 * 64, dtype="u2").reshape(64, 64)
for name, shards in (("plain", None), ("sharded", (64, 64))):
    array = zarr.create_array(web / name, shape=(64, 64), chunks=(16, 16), shards=shards, dtype="u2")
    array[:] = pixels
P
"$folder/venv/bin/python" -u -m http.server --bind 127.0.0.1 --directory "$folder/web" 0 >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 50); do
  port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$folder/log")
  [ -z "$port" ] || break
  sleep 0.2
done
"$folder/venv/bin/python" - "http://127.0.0.1:$port" <<'P'
import sys

import fsspec
import numpy as np
import zarr

base = sys.argv[1]
part = fsspec.filesystem("http").cat_file(f"{base}/thousand.bin", start=0, end=4)
print(f"asked for 4 bytes, got {len(part)}")
pixels = np.arange(64 * 64, dtype="u2").reshape(64, 64)
seen = {}
for name in ("plain", "sharded"):
    try:
        found = zarr.open_array(f"{base}/{name}", mode="r")[:16, :16]
        seen[name] = "right" if np.array_equal(found, pixels[:16, :16]) else "other pixels"
    except Exception as error:
        seen[name] = type(error).__name__
print(seen)
assert len(part) == 1000, "this has changed"
assert seen["plain"] == "right" != seen["sharded"], "this has changed"
P
