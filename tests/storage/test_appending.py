"""Lines that are appended are all there for the next process, in a file and in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unetkit.errors import ResourceError
from unetkit.storage import urls
from unetkit.storage.journal import LINES_A_PIECE, Journal, open_log

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.fixtures import FixtureRequest


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/journal.txt"
    if request.param == "memory":
        return f"memory://{tmp_path.name}/journal.txt"
    return str(tmp_path / "new" / "journal.txt")


def test_each_line_is_stored_at_once_and_kept_by_the_next_process(place: str) -> None:
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


def test_many_lines_stay_in_order(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/many.txt"
    lines = open_log(url)
    written = [f"{number}\n".encode() for number in range(2 * LINES_A_PIECE + 3)]
    for line in written:
        lines.append(line)
    assert open_log(url).read() == b"".join(written)
    assert len(urls.names(url)) == 3


def test_a_line_that_was_torn_does_not_take_the_next_along(tmp_path: Path) -> None:
    path = tmp_path / "journal.txt"
    path.write_bytes(b"1\n2")
    open_log(str(path)).append(b"3\n")
    assert path.read_bytes() == b"1\n2\n3\n"


def test_a_place_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="must be writable"):
        open_log(str(tmp_path / "file" / "journal.txt")).append(b"1\n")


def test_a_journal_lives_in_a_store(bucket: str) -> None:
    with Journal(f"{bucket}/part") as journal:
        assert journal.read_fingerprint() is None
        journal.write_fingerprint({"tile": 16})
        journal.record("a/0/0", checksum=7)
        journal.record("a/0/1", checksum=None)
    again = Journal(f"{bucket}/part")
    assert again.differences({"tile": 16}) == []
    assert again.done() == {"a/0/0": 7, "a/0/1": None}
    again.discard()
    assert again.done() == {}
    assert again.read_fingerprint() == {"tile": 16}
