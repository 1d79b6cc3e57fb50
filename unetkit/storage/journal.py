"""Which parts of an unfinished output are done: one line a part, and what the output depends on.

Whether a chunk is there does not tell: one that holds background only is never stored.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from unetkit.errors import InputError, OutputError, ResourceError, UnavailableError
from unetkit.storage import urls
from unetkit.storage.atomic import make_folder, write_json
from unetkit.storage.nodes import ARRAYS, GroupNode, mark_as_array, plain, read_node
from unetkit.storage.urls import exists, is_remote, join, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# A piece is written anew with each line, so that it has to stay short; a million lines are then
# five thousand pieces.
LINES_A_PIECE = 200


class AppendLog(Protocol):
    """What grows line by line."""

    def append(self, line: bytes) -> None:
        """Add a line; it is stored when this returns."""

    def read(self) -> bytes:
        """Return everything that was appended, also by earlier processes."""

    def close(self) -> None:
        """Let go of what is open; appending opens it again."""

    def remove(self) -> None:
        """Remove everything."""


def open_log(url: str) -> AppendLog:
    """Return what appends to a file, there or not, on this machine or in a store."""
    return _ObjectLog(url) if is_remote(url) else _FileLog(Path(url))


class _FileLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def append(self, line: bytes) -> None:
        try:
            # One write a line: lines of two threads never mix.
            os.write(self._open(), line)
        except OSError as error:
            raise ResourceError(f"{self._path.parent} must be writable, got: {error}") from error

    def read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InputError(f"{self._path} must be readable, got: {error}") from error

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._handle is None:
            make_folder(str(self._path.parent))
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if os.lseek(self._handle, 0, os.SEEK_END):
                os.lseek(self._handle, -1, os.SEEK_END)
                if os.read(self._handle, 1) != b"\n":
                    # Ends a line that was torn, so that the next one is not lost with it.
                    os.write(self._handle, b"\n")
        return self._handle


class _ObjectLog:
    """Objects 00000000, 00000001, ... below a URL; each process begins one of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._number: int | None = None
        self._lines: list[bytes] = []

    def append(self, line: bytes) -> None:
        if self._number is None:
            self._number = int(max(urls.children(self._url), default="-1"), 10) + 1
        self._lines.append(line)
        urls.write(join(self._url, f"{self._number:08d}"), b"".join(self._lines))
        if len(self._lines) == LINES_A_PIECE:
            self._lines, self._number = [], self._number + 1

    def read(self) -> bytes:
        names = urls.children(self._url)
        return b"".join(urls.read(join(self._url, name)) for name in names)

    def close(self) -> None:
        self._lines, self._number = [], None

    def remove(self) -> None:
        self.close()
        urls.remove(self._url)


FOLDER = ".unetkit"
LINES = "journal.txt"
FINGERPRINT = "fingerprint.json"
# The entry of a fingerprint with the checksum of all others.
CHECKSUM = "checksum"
# The entry that is no setting.
DOCUMENTS = "documents"
# What the journal becomes when the output is published.
CHUNK_LIST = "chunks.jsonl"
LINES_AT_ONCE = 4096


class Journal:
    """An append-only record in the folder of a partial, or of an output that kept its fingerprint.

    A line is the checksum of the rest, and a JSON list of the part's key and the part's own
    checksum. A line that was torn, or that is not ours, says nothing: its part is not done.
    Nothing is created before something is recorded.
    """

    def __init__(self, folder: str) -> None:
        self._output = folder
        self.folder = join(folder, FOLDER)
        self._log = open_log(join(self.folder, LINES))
        self._before: dict[str, int | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_fingerprint(
        self, fingerprint: dict[str, Any], *, documents: Mapping[str, str] | None = None
    ) -> None:
        """Store what the output's bytes depend on; nested dicts are compared entry by entry.

        Beside it the checksums of the documents that are written by now.
        """
        if not is_remote(self.folder):
            make_folder(self.folder)
        known = plain({**fingerprint, DOCUMENTS: documents or {}})
        write_json(join(self.folder, FINGERPRINT), {**known, CHECKSUM: _checksum_of(known)})
        self.hide()

    def hide(self) -> None:
        """Let programs that list a Zarr group take the folder of records for an empty array.

        They would remark on a folder that is no node, and on every file in one that is a group.
        """
        node = read_node(self._output)
        if isinstance(node, GroupNode) and not exists(join(self.folder, ARRAYS[node.zarr_format])):
            mark_as_array(self.folder, zarr_format=node.zarr_format)

    def read_fingerprint(self) -> dict[str, Any] | None:
        """Return the stored fingerprint, None where there is none; a damaged one is refused."""
        found = self._read()
        if found is not None:
            found.pop(DOCUMENTS, None)
        return found

    def read_documents(self) -> Any:
        """Return the checksums stored beside the fingerprint; earlier versions have none."""
        return (self._read() or {}).get(DOCUMENTS, {})

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(read(join(self.folder, FINGERPRINT)))
        except (UnavailableError, ResourceError):
            raise
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self._unreadable(f"{type(error).__name__}: {error!s:.80}") from error
        if not isinstance(found, dict):
            raise self._unreadable("something else")
        # What earlier versions wrote has none.
        checksum = found.pop(CHECKSUM, None)
        if checksum not in (None, _checksum_of(found)):
            raise self._unreadable("another checksum than it says")
        return found

    def lacks_fingerprint(self) -> OutputError | None:
        """Return what is wrong where parts are recorded, and nothing says what they are parts of.

        They must not be thrown away unasked.
        """
        return self._unreadable("none beside what is done") if self._log.read() else None

    def _unreadable(self, got: str) -> OutputError:
        return OutputError(
            f"{join(self.folder, FINGERPRINT)} must say what was begun as it was written, got"
            f" {got}; bring it back, or start afresh with --overwrite, without --resume"
        )

    def record(self, key: str, *, checksum: int | None) -> None:
        """Say that a part is done, and what its checksum is, where there is something to check."""
        text = json.dumps([key, checksum])
        self._log.append(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())

    def done(self) -> dict[str, int | None]:
        """Return the parts that are done, each with its checksum; the last line on a part holds."""
        lines = self._log.read().split(b"\n")
        texts = [text for line in lines if (text := _checked(line)) is not None]
        return dict(_entries(texts))

    def is_done(self, key: str, checksum: Callable[[], int | None]) -> bool:
        """Tell whether a part was done when first asked, and is still what was written then."""
        if self._before is None:
            self._before = self.done()
        return key in self._before and checksum() == self._before[key]

    def close(self) -> None:
        """Close the file; recording opens it again."""
        self._log.close()

    def discard(self) -> None:
        """Remove the record of parts, once the output is complete."""
        self._log.remove()


def _checksum_of(known: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(known, sort_keys=True).encode()):08x}"


def _checked(line: bytes) -> bytes | None:
    """Return what a line says where its checksum holds."""
    head, _, text = line.partition(b" ")
    return text if head == b"%08x" % zlib.crc32(text) else None


def _entries(texts: list[bytes]) -> Iterator[tuple[str, int | None]]:
    """Read the lines, many at a time, since a call a line would take most of the time."""
    for start in range(0, len(texts), LINES_AT_ONCE):
        block = texts[start : start + LINES_AT_ONCE]
        try:
            values = json.loads(b"[" + b",".join(block) + b"]")
        except (ValueError, RecursionError):
            values = [value for text in block for value in _parse(text)]
        for value in values:
            match value:
                case [str(key), int() | None as checksum]:
                    yield key, checksum


def _parse(text: bytes) -> list[Any]:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return []


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in which entries a fingerprint differs from an earlier one that went through JSON.

    >>> differences({"plan": {"tile": 512}}, {"plan": {"tile": 1024}})
    ['plan.tile: 512 before, 1024 now']
    """
    old, new = _flat(before), _flat(plain(now))
    return [
        f"{key}: {old.get(key)!s:.80} before, {new.get(key)!s:.80} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested entries by their path."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


# The entry of a file that says how its arrays are put together.
_TREE = "tree"


class Results:
    """Results of an unfinished run, a file each, in a folder with a journal.

    A result counts once the journal has its checksum; one that was torn or altered is not there.
    """

    def __init__(self, folder: str, journal: Journal) -> None:
        self._folder = Path(folder)
        self._journal = journal

    def put(self, key: str, tree: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep the result of a job: what JSON can hold, and arrays of plain numbers."""
        stream = io.BytesIO()
        text = np.frombuffer(json.dumps(tree, allow_nan=False).encode(), np.uint8)
        np.savez_compressed(stream, allow_pickle=False, **{_TREE: text}, **arrays)
        data = stream.getvalue()
        make_folder(str(self._folder))
        try:
            self._path(key).write_bytes(data)
        except OSError as error:
            raise ResourceError(f"{self._folder} must be writable, got: {error}") from error
        self._journal.record(key, checksum=zlib.crc32(data))

    def get(self, key: str) -> tuple[Any, dict[str, np.ndarray[Any, Any]]] | None:
        """Return what an earlier run kept; None where it is not there as it was written."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        if not self._journal.is_done(key, lambda: zlib.crc32(data)):
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return json.loads(arrays.pop(_TREE).tobytes()), arrays

    def _path(self, key: str) -> Path:
        return self._folder / f"{sha256(key.encode()).hexdigest()[:32]}.npz"


def fingerprint(url: str) -> dict[str, int]:
    """Count files and bytes of a stored array, and say when one was written last, in nanoseconds.

    Empty for what lies elsewhere.
    """
    if is_remote(url):
        return {}
    found = {"files": 0, "bytes": 0, "newest": 0}
    for folder, _, names in os.walk(url):
        for name in names:
            entry = Path(folder, name).stat()
            found["files"] += 1
            found["bytes"] += entry.st_size
            found["newest"] = max(found["newest"], entry.st_mtime_ns)
    return found
