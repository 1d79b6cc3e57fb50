#!/usr/bin/env bash
# zarr 3.1.6: listing a store of several images warns of the file by which viewers find their names.
#
# Input: an OME-Zarr 0.5 store in the bioformats2raw layout: a group with one image and OME/, which
# holds the list of series and, as the layout provides for, METADATA.ome.xml.
# Seen: members(max_depth=None) and tree() raise a ZarrUserWarning, "Object at METADATA.ome.xml is
# not recognized as a component of a Zarr hierarchy", so that a script with warnings as errors ends.
# members() of the top alone says nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 rich==14.2.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'P'
import warnings
from pathlib import Path

import zarr

root = zarr.open_group("images.zarr", mode="w", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
root.create_group("0").create_array("0", shape=(4, 4), dtype="uint8")
root.create_group("OME", attributes={"ome": {"version": "0.5", "series": ["0"]}})
Path("images.zarr/OME/METADATA.ome.xml").write_text(
    '<OME xmlns="http://www.openscience.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="first"/></OME>'
)
seen = {}
for name, look in {
    "members()": lambda group: list(group.members()),
    "members(max_depth=None)": lambda group: list(group.members(max_depth=None)),
    "tree()": lambda group: str(group.tree()),
}.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look(zarr.open_group("images.zarr", mode="r"))
    seen[name] = [f"{type(one.message).__name__}: {one.message}" for one in caught]
    print(f"{name:24}{seen[name] or 'nothing'}")
assert seen.pop("members()") == []
assert all("METADATA.ome.xml is not recognized" in "".join(told) for told in seen.values()), "this has changed"
P
