"""The journal forgets what was torn and nothing else; kept results come back as they were."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import OutputError, ResourceError
from unetkit.storage import urls
from unetkit.storage.journal import (
    LINES_A_PIECE,
    Journal,
    Results,
    differences,
    fingerprint,
    open_log,
)

entries = st.lists(
    st.tuples(st.text(max_size=12), st.none() | st.integers(0, 2**32 - 1)), max_size=12
)


def lines(folder):
    return folder / ".unetkit" / "journal.txt"


def written(folder, items):
    with Journal(str(folder)) as journal:
        for key, checksum in items:
            journal.record(key, checksum=checksum)


@settings(deadline=None)
@given(items=entries)
def test_what_is_recorded_is_done(items, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    written(folder, items)
    assert Journal(str(folder)).done() == dict(items)


@settings(deadline=None)
@given(items=entries, data=st.data())
def test_a_torn_journal_keeps_a_beginning(items, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    written(folder, [("first", 1), *items])
    content = lines(folder).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    lines(folder).write_bytes(content[:cut])
    # A line that lacks nothing but its end is whole.
    whole = content[: cut + 1].count(b"\n")
    kept = [("first", 1), *items][:whole]
    assert Journal(str(folder)).done() == dict(kept)
    # What is recorded after a tear is not lost with the torn line.
    written(folder, [("after", 2)])
    assert Journal(str(folder)).done() == {**dict(kept), "after": 2}


@settings(deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_makes_a_part_done(position, bit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    items: list[tuple[str, int | None]] = [(f"tile {number}", number) for number in range(6)]
    written(folder, items)
    content = bytearray(lines(folder).read_bytes())
    content[position % len(content)] ^= 1 << bit
    lines(folder).write_bytes(bytes(content))
    done = Journal(str(folder)).done()
    assert done.items() <= dict(items).items()
    assert len(done) >= 4


@pytest.mark.parametrize(
    "line", [b"", b"\xff\xfe", b'00000000 ["tile 9", 9]', b'["tile 9", 9]', b"rubbish"]
)
def test_foreign_lines_say_nothing(line, tmp_path):
    written(tmp_path, [("a", 1)])
    with lines(tmp_path).open("ab") as file:
        file.write(line + b"\n")
    written(tmp_path, [("b", None)])
    assert Journal(str(tmp_path)).done() == {"a": 1, "b": None}


def test_lines_of_many_threads_never_mix(tmp_path):
    journal = Journal(str(tmp_path))
    journal.record("first", checksum=None)

    def record(worker):
        for number in range(50):
            journal.record(f"{worker}/{number}", checksum=number)

    threads = [threading.Thread(target=record, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(journal.done()) == 201


def test_asking_creates_nothing(tmp_path):
    journal = Journal(str(tmp_path / "partial"))
    assert journal.done() == {}
    assert journal.read_fingerprint() is None
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_are_compared_entry_by_entry(tmp_path):
    journal = Journal(str(tmp_path))
    before: dict[str, Any] = {"model": "ab12", "plan": {"tile": 512, "shape": (3, 4)}, "old": 1}
    journal.write_fingerprint(before)
    assert journal.read_fingerprint() == {**before, "plan": {"tile": 512, "shape": [3, 4]}}
    assert differences(journal.read_fingerprint() or {}, before) == []
    now = {"model": "ab12", "plan": {"tile": 1024, "shape": (3, 4)}, "new": {"a": True}}
    assert differences(journal.read_fingerprint() or {}, now) == [
        "new.a: None before, True now",
        "old: 1 before, None now",
        "plan.tile: 512 before, 1024 now",
    ]


@pytest.mark.parametrize("change", ["[1", "[1]", "", "null", ("1", "2"), ("7", "-7")])
def test_a_damaged_fingerprint_is_refused(tmp_path, change):
    journal = Journal(str(tmp_path))
    journal.write_fingerprint({"tile": 1, "batch": 7})
    place = tmp_path / ".unetkit" / "fingerprint.json"
    whole = place.read_text()
    place.write_text(change if isinstance(change, str) else whole.replace(*change, 1))
    with pytest.raises(OutputError, match=r"must say what was begun as it was .*--overwrite"):
        journal.read_fingerprint()
    # What earlier versions wrote has no checksum.
    place.write_text('{"tile": 7}')
    assert journal.read_fingerprint() == {"tile": 7}


@pytest.fixture(params=["file", "memory", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/journal.txt"
    if request.param == "memory":
        return f"memory://{tmp_path.name}/journal.txt"
    return str(tmp_path / "new" / "journal.txt")


def test_each_line_is_stored_at_once_and_kept_by_the_next_process(place):
    first, second = open_log(place), open_log(place)
    assert first.read() == b""
    first.append(b"1\n")
    assert second.read() == b"1\n"
    first.append(b"2\n")
    first.close()
    second.append(b"3\n")
    assert open_log(place).read() == b"1\n2\n3\n"
    second.remove()
    assert open_log(place).read() == b""
    second.append(b"4\n")
    assert open_log(place).read() == b"4\n"


def test_many_lines_stay_in_order(tmp_path):
    url = f"memory://{tmp_path.name}/many.txt"
    lines = open_log(url)
    written = [f"{number}\n".encode() for number in range(2 * LINES_A_PIECE + 3)]
    for line in written:
        lines.append(line)
    assert open_log(url).read() == b"".join(written)
    assert len(urls.children(url)) == 3


def test_a_line_that_was_torn_does_not_take_the_next_along(tmp_path):
    path = tmp_path / "journal.txt"
    path.write_bytes(b"1\n2")
    open_log(str(path)).append(b"3\n")
    assert path.read_bytes() == b"1\n2\n3\n"


def test_a_place_that_can_t_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="must be writable"):
        open_log(str(tmp_path / "file" / "journal.txt")).append(b"1\n")
    with pytest.raises(ResourceError, match="must be writable"):
        Journal(str(tmp_path / "file")).record("a", checksum=None)
    with pytest.raises(ResourceError, match="must be writable"):
        opened(str(tmp_path / "file")).put("a", {}, {})


def test_a_journal_lives_in_a_store(bucket):
    with Journal(f"{bucket}/part") as journal:
        assert journal.read_fingerprint() is None
        journal.write_fingerprint({"tile": 16})
        journal.record("a/0/0", checksum=7)
        journal.record("a/0/1", checksum=None)
    again = Journal(f"{bucket}/part")
    assert again.read_fingerprint() == {"tile": 16}
    assert again.done() == {"a/0/0": 7, "a/0/1": None}
    again.discard()
    assert again.done() == {}
    assert again.read_fingerprint() == {"tile": 16}


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
    lines(tmp_path / "kept").write_bytes(b"")  # what the journal does not name
    assert opened(folder).get("block 3") is None


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
