"""Kept results come back as they were, or not at all."""

import os

import numpy as np
import pytest

from unetkit.errors import ResourceError
from unetkit.storage.journal import Journal, Results, fingerprint

ARRAYS = {"a": np.arange(6, dtype=np.uint64).reshape(2, 3), "b": np.array([0.1, 2e300])}


def opened(folder):
    return Results(folder, Journal(folder))


@pytest.fixture
def folder(tmp_path):
    results = opened(str(tmp_path / "kept"))
    results.put("block 1/2", {"names": ["a", None, 0.5]}, ARRAYS)
    results.put("block 3", [], {})
    return str(tmp_path / "kept")


def test_results_come_back(folder):
    tree, arrays = opened(folder).get("block 1/2") or (None, {})
    assert tree == {"names": ["a", None, 0.5]}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert opened(folder).get("block 3") == ([], {})
    assert opened(folder).get("block 4") is None


@pytest.mark.parametrize("damage", ["torn", "altered", "gone"])
def test_what_is_not_as_it_was_written_is_not_there(folder, tmp_path, damage):
    for path in (tmp_path / "kept").glob("*.npz"):
        data = bytearray(path.read_bytes())
        data[30] ^= 1
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(data if damage == "altered" else data[:-7])
    assert opened(folder).get("block 1/2") is None


def test_what_the_journal_does_not_name_is_not_there(folder, tmp_path):
    (tmp_path / "kept" / ".unetkit" / "journal.txt").write_bytes(b"")
    assert opened(folder).get("block 3") is None


def test_a_place_that_takes_nothing_is_said(tmp_path):
    results = opened(str(tmp_path / "kept"))
    (tmp_path / "kept").write_text("")
    with pytest.raises(ResourceError, match="must be writable"):
        results.put("a", {}, {})


def test_a_fingerprint_changes_with_what_is_stored(tmp_path):
    (tmp_path / "c" / "0").mkdir(parents=True)
    chunk = tmp_path / "c" / "0" / "1"
    chunk.write_bytes(b"abc")
    before = fingerprint(str(tmp_path))
    assert (before["files"], before["bytes"]) == (1, 3)
    assert fingerprint(str(tmp_path)) == before
    os.utime(chunk, ns=(5, before["newest"] + 1))
    assert fingerprint(str(tmp_path)) != before
    assert fingerprint("s3://bucket/a.zarr") == {}
