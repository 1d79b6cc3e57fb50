"""What is stored is told from the bytes and the listing, however keys are written."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from unetkit.errors import InputError
from unetkit.storage import urls
from unetkit.storage.chunks import NAMED, box_checksum, damages, inventory, list_stored, write_list
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.nodes import read_node
from unetkit.storage.planes import plane_array
from unetkit.storage.pyramids import add_pyramid


@pytest.fixture
def data(tmp_path):
    array = create_image(
        str(tmp_path / "a.zarr"), shape=(3, 2, 40, 36), axes="czyx", dtype="u1", chunk=8
    )
    rng = np.random.default_rng(0)
    for plane in range(2):
        array.write(plane, 0, 0, rng.integers(0, 255, (3, 40, 36), np.uint8))
    return array


BOX = {"y0": 8, "y1": 24, "x0": 32, "x1": 36}


def test_a_checksum_changes_with_any_chunk_of_the_box_and_with_no_other(data):
    before = box_checksum(data, 1, **BOX)
    assert box_checksum(data, 1, **BOX) == before
    assert box_checksum(data, 1, **BOX, start=1) != before
    assert box_checksum(data, 0, **BOX) != before
    folder = Path(data.url, "c", "0", "1")
    outside, inside = folder / "0" / "4", folder / "2" / "4"
    outside.write_bytes(b"other")
    assert box_checksum(data, 1, **BOX) == before
    kept = inside.read_bytes()
    for damage in (b"", kept[:-1], kept + b"\0", bytes([kept[0] ^ 1]) + kept[1:]):
        inside.write_bytes(damage)
        assert box_checksum(data, 1, **BOX) != before
    inside.unlink()
    assert box_checksum(data, 1, **BOX) != before
    inside.write_bytes(kept)
    assert box_checksum(data, 1, **BOX) == before


def test_chunks_in_each_other_s_place_are_noticed(data):
    before = box_checksum(data, 1, **BOX)
    folder = Path(data.url, "c", "0", "1")
    one, other = folder / "1" / "4", folder / "2" / "4"
    aside = folder / "aside"
    shutil.move(one, aside)
    shutil.move(other, one)
    shutil.move(aside, other)
    assert box_checksum(data, 1, **BOX) != before


def test_every_chunk_below_a_folder_is_listed(tmp_path):
    # A sample named like the folder of an array's chunks is no array.
    place = str(tmp_path / "c")
    image = create_image(place, shape=(2, 1100, 30), axes="cyx", dtype="u1", chunk=512)
    image.write(0, 0, 0, np.full((2, 1100, 30), 7, np.uint8))
    labels = create_labels(place, "classes", shape=(1100, 30), axes="yx", dtype="u1", chunk=512)
    labels.write(0, 0, 0, np.eye(1100, 30, dtype=np.uint8))
    add_pyramid(place)
    (tmp_path / ".unetkit" / "c").mkdir(parents=True)
    (tmp_path / ".unetkit" / "c" / "0").write_bytes(b"no chunk")
    everything = list(list_stored(str(tmp_path)))
    assert sum(entry["key"] == "zarr.json" for entry in everything) == 7
    listed = [entry for entry in everything if entry["key"] != "zarr.json"]
    names = [f"{chunk['array']}/{chunk['key']}" for chunk in listed]
    assert names == sorted(names)
    stored = sorted(
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "zarr.json" and ".unetkit" not in path.parts
    )
    assert names == stored
    assert {chunk["array"] for chunk in listed} == {
        "c/0",
        "c/1",
        "c/labels/classes/0",
        "c/labels/classes/1",
    }
    for chunk in listed:
        data = Path(tmp_path, chunk["array"], chunk["key"]).read_bytes()
        assert (chunk["length"], chunk["crc32"]) == (len(data), zlib.crc32(data))


def test_a_store_is_listed_as_a_folder_is(tmp_path, bucket):
    for place in (str(tmp_path / "a.zarr"), f"{bucket}/a.zarr"):
        image = create_image(place, shape=(3, 40, 36), axes="cyx", dtype="u1", chunk=16)
        image.write(0, 0, 0, np.arange(3 * 40 * 36).reshape(3, 40, 36).astype(np.uint8))
    here, there = str(tmp_path / "a.zarr"), f"{bucket}/a.zarr"
    assert list(list_stored(here)) == list(list_stored(there))
    assert len(list(list_stored(here))) == 9 + 2
    write_list(there, f"{there}/.unetkit/chunks.jsonl")
    found = dict(damages(there, f"{there}/.unetkit/chunks.jsonl"))
    assert len(found) == 11
    assert set(found.values()) == {""}
    urls.write(f"{there}/0/c/0/1/1", b"other")
    urls.remove(f"{there}/0/c/0/2/2")
    wrong = {name: what for name, what in damages(there, f"{there}/.unetkit/chunks.jsonl") if what}
    assert wrong["0/c/0/2/2"] == "is missing"
    assert "bytes" in wrong["0/c/0/1/1"]
    assert len(wrong) == 2


KINDS = ["v3", "v3 with dots", "v3 as v2", "v2", "v2 with slashes", "sharded"]


def store(url, kind):
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
    return plane_array(read_node(url), axes="yx", has_channels=True)  # type: ignore[arg-type]


def stock(data):
    found = inventory(data)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_absent_chunks_are_counted_and_named(kind, tmp_path):
    url = str(tmp_path / "a.zarr")
    data = store(url, kind)
    whole = stock(data)
    assert (whole.total, whole.stored, whole.missing, whole.absent) == (12, 12, 0, ())
    array = zarr.open_array(url, mode="r")
    keys = [array.metadata.encode_chunk_key(place) for place in ((0, 2), (1, 0), (3, 1))]
    lost = sum(Path(url, key).stat().st_size for key in keys)
    for key in keys:
        Path(url, key).unlink()
    part = stock(data)
    assert (part.total, part.stored, part.missing) == (12, 9, 3)
    assert part.absent == tuple(keys)
    assert part.size == whole.size - lost
    assert part.state != whole.state
    # Reading says nothing about it, which is why the listing is asked.
    assert (data.read(0, 0, 16, 32, 48) == 0).all()


def test_what_is_no_chunk_of_the_grid_does_not_count(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = store(url, "v3")
    before = stock(data)
    Path(url, "c", "0", "1").rename(Path(url, "c", "0", "1.0f3a.partial"))
    for stray in ("c/0/3", "c/4/0", "c/00/1", "thesis.docx"):
        Path(url, stray).parent.mkdir(exist_ok=True)
        Path(url, stray).write_bytes(b"stray")
    after = stock(data)
    assert (after.stored, after.absent) == (before.stored - 1, ("c/0/1",))


def test_a_chunk_that_was_written_anew_or_changed_places_is_another_state(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = store(url, "v3")
    before = stock(data)
    assert stock(data) == before
    chunk = Path(url, "c", "2", "2")
    os.utime(chunk, ns=(1, 1))
    touched = stock(data)
    assert (touched.stored, touched.size) == (before.stored, before.size)
    assert touched.state != before.state
    # On a quick machine two are written within one tick of the disk's clock, hence this one.
    second, aside = Path(url, "c", "0", "1"), Path(url, "aside")
    chunk.rename(aside)
    second.rename(chunk)
    aside.rename(second)
    assert stock(data).state != touched.state
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert stock(data).size == before.size + 1


def test_not_all_of_a_million_are_named(tmp_path):
    url = str(tmp_path / "a.zarr")
    zarr.create_array(url, shape=(1000, 1000), chunks=(1, 1), dtype="u1")
    found = stock(seen(url))
    assert (found.total, found.stored, len(found.absent)) == (1_000_000, 0, NAMED)
    assert found.absent[1001] == "c/1/1"


def test_a_store_elsewhere_is_listed_too():
    url = "memory://stock/a.zarr"
    data = store(url, "v3")
    assert stock(data).missing == 0
    fsspec.filesystem("memory").rm("/stock/a.zarr/c/1/1")
    assert stock(data).absent == ("c/1/1",)


def test_a_web_server_lists_nothing_and_a_folder_that_may_not_be_listed_is_named(tmp_path):
    data = store(str(tmp_path / "a.zarr"), "v3")
    assert inventory(replace(data, url="http://127.0.0.1:1/a.zarr")) is None
    inventory(data)
    shutil.rmtree(data.url)
    with pytest.raises(InputError, match=r"a.zarr/ must be readable"):
        inventory(data)
