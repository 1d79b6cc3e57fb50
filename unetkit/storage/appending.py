"""A text file that grows line by line; a store that knows no appending gets it in pieces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from unetkit import remote as stores
from unetkit.errors import InputError, SurroundingsError
from unetkit.storage.atomic import make_folder
from unetkit.storage.urls import is_remote, join

# A piece is written anew with each line, so that it has to stay short; a million lines are then
# five thousand pieces.
LINES_A_PIECE = 200


class Lines(Protocol):
    """What grows line by line."""

    def append(self, line: bytes) -> None:
        """Add a line; it is stored when this returns."""

    def read(self) -> bytes:
        """Return everything that was appended, also by earlier processes."""

    def close(self) -> None:
        """Let go of what is open; appending opens it again."""

    def remove(self) -> None:
        """Remove everything."""


def lines_at(url: str) -> Lines:
    """Return what appends to a file, there or not, on this machine or in a store."""
    return _Pieces(url) if is_remote(url) else _File(Path(url))


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def append(self, line: bytes) -> None:
        try:
            # One write a line: lines of two threads never mix.
            os.write(self._open(), line)
        except OSError as error:
            raise SurroundingsError(
                f"{self._path.parent} must be writable, got: {error}"
            ) from error

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


class _Pieces:
    """Objects 00000000, 00000001, ... below a URL; each process begins one of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._number: int | None = None
        self._lines: list[bytes] = []

    def append(self, line: bytes) -> None:
        if self._number is None:
            self._number = int(max(stores.names(self._url), default="-1"), 10) + 1
        self._lines.append(line)
        stores.write(join(self._url, f"{self._number:08d}"), b"".join(self._lines))
        if len(self._lines) == LINES_A_PIECE:
            self._lines, self._number = [], self._number + 1

    def read(self) -> bytes:
        names = stores.names(self._url)
        return b"".join(stores.read(join(self._url, name)) for name in names)

    def close(self) -> None:
        self._lines, self._number = [], None

    def remove(self) -> None:
        self.close()
        stores.remove(self._url)
