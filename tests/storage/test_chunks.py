"""Checksums of stored chunks tell what a codec's own can not: absence, and another's place."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from unetkit.storage import urls
from unetkit.storage.chunks import box_checksum, damages, list_stored, write_list
from unetkit.storage.image_writer import create_image, create_labels
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
