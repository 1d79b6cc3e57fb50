"""What is stored is told from the listing, however keys are written."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from unetkit.errors import InputError
from unetkit.storage.chunks import NAMED, inventory
from unetkit.storage.nodes import ArrayNode, read_node
from unetkit.storage.planes import plane_array

KINDS = ["v3", "v3 with dots", "v3 as v2", "v2", "v2 with slashes", "sharded"]


def stored(url, kind):
    """Store 64 x 48 pixels in chunks (or shards) of 16 x 16, twelve in all."""
    more: dict[str, object] = {"zarr_format": 2 if kind.startswith("v2") else 3}
    if kind == "v3 with dots":
        more["chunk_key_encoding"] = {"name": "default", "separator": "."}
    elif kind == "v3 as v2":
        more["chunk_key_encoding"] = {"name": "v2", "separator": "."}
    elif kind == "v2 with slashes":
        more["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    elif kind == "sharded":
        more["shards"] = (16, 16)
    chunks = (8, 8) if kind == "sharded" else (16, 16)
    array = zarr.create_array(url, shape=(64, 48), chunks=chunks, dtype="u1", **more)
    array[:] = np.arange(1, 64 * 48 + 1).reshape(64, 48) % 250 + 1
    return seen(url)


def seen(url):
    node = read_node(url)
    assert isinstance(node, ArrayNode)
    return plane_array(node, axes="yx", has_channels=True)


def census(data):
    found = inventory(data)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_absent_chunks_are_counted_and_named(kind, tmp_path):
    url = str(tmp_path / "a.zarr")
    data = stored(url, kind)
    whole = census(data)
    assert (whole.total, whole.stored, whole.missing, whole.absent) == (12, 12, 0, ())
    array = zarr.open_array(url, mode="r")
    keys = [array.metadata.encode_chunk_key(place) for place in ((0, 2), (1, 0), (3, 1))]
    lost = sum(Path(url, key).stat().st_size for key in keys)
    for key in keys:
        Path(url, key).unlink()
    part = census(data)
    assert (part.total, part.stored, part.missing) == (12, 9, 3)
    assert part.absent == tuple(keys)
    assert part.size == whole.size - lost
    assert part.state != whole.state
    # Reading says nothing about it, which is why the listing is asked.
    assert (data.read(0, 0, 16, 32, 48) == 0).all()


def test_what_is_no_chunk_of_the_grid_does_not_count(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = stored(url, "v3")
    before = census(data)
    Path(url, "c", "0", "1").rename(Path(url, "c", "0", "1.0f3a.partial"))
    for stray in ("c/0/3", "c/4/0", "c/00/1", "thesis.docx"):
        Path(url, stray).parent.mkdir(exist_ok=True)
        Path(url, stray).write_bytes(b"stray")
    after = census(data)
    assert (after.stored, after.absent) == (before.stored - 1, ("c/0/1",))


def test_a_chunk_that_was_written_anew_is_another_state(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = stored(url, "v3")
    before = census(data)
    assert census(data) == before
    chunk = Path(url, "c", "2", "2")
    os.utime(chunk, ns=(1, 1))
    touched = census(data)
    assert (touched.stored, touched.size) == (before.stored, before.size)
    assert touched.state != before.state
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert census(data).size == before.size + 1


def test_two_chunks_that_changed_places_are_another_state(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = stored(url, "v3")
    first, second, aside = (Path(url, "c", "0", name) for name in ("0", "1", "x"))
    # On a quick machine both were written within one tick of the disk's clock.
    os.utime(first, ns=(1, 1))
    before = census(data)
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert census(data).state != before.state


def test_not_all_of_a_million_are_named(tmp_path):
    url = str(tmp_path / "a.zarr")
    zarr.create_array(url, shape=(1000, 1000), chunks=(1, 1), dtype="u1")
    found = census(seen(url))
    assert (found.total, found.stored, len(found.absent)) == (1_000_000, 0, NAMED)
    assert found.absent[1001] == "c/1/1"


def test_a_store_elsewhere_is_listed_too():
    url = "memory://census/a.zarr"
    data = stored(url, "v3")
    assert census(data).missing == 0
    fsspec.filesystem("memory").rm("/census/a.zarr/c/1/1")
    assert census(data).absent == ("c/1/1",)


def test_a_web_server_lists_nothing(tmp_path):
    data = stored(str(tmp_path / "a.zarr"), "v3")
    assert inventory(replace(data, url="http://127.0.0.1:1/a.zarr")) is None


def test_a_folder_that_may_not_be_listed_is_named(tmp_path):
    data = stored(str(tmp_path / "a.zarr"), "v3")
    inventory(data)
    shutil.rmtree(data.url)
    with pytest.raises(InputError, match=r"a.zarr/ must be readable"):
        inventory(data)
