"""Which parts of an unfinished output are done: one line a part, and what the output depends on.

Whether a chunk is there does not tell: one that holds background only is never stored.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, Self

from unetkit.errors import SurroundingsError, TryAgainError
from unetkit.storage.appending import lines_at
from unetkit.storage.atomic import make_folder, write_json
from unetkit.storage.creation import plain
from unetkit.storage.urls import is_remote, join, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ".unetkit"
LINES = "journal.txt"
FINGERPRINT = "fingerprint.json"
# What the journal becomes when the output is published.
CHUNK_LIST = "chunks.jsonl"
LINES_AT_ONCE = 4096


class Journal:
    """An append-only record in the folder of a partial.

    A line is the checksum of the rest, and a JSON list of the part's key and the part's own
    checksum. A line that was torn, or that is not ours, says nothing: its part is not done.
    Nothing is created before something is recorded.

    Parameters
    ----------
    folder : str
        The partial, or a finished output that kept its fingerprint.
    """

    def __init__(self, folder: str) -> None:
        self.folder = join(folder, FOLDER)
        self._lines = lines_at(join(self.folder, LINES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_fingerprint(self, fingerprint: dict[str, Any]) -> None:
        """Store what the output's bytes depend on.

        Parameters
        ----------
        fingerprint : dict
            Settings and checksums; nested dicts are compared entry by entry.
        """
        if not is_remote(self.folder):
            make_folder(self.folder)
        write_json(join(self.folder, FINGERPRINT), plain(fingerprint))

    def read_fingerprint(self) -> dict[str, Any] | None:
        """Return the stored fingerprint; None where there is none that can be read."""
        try:
            found = json.loads(read_bytes(join(self.folder, FINGERPRINT)))
        except (TryAgainError, SurroundingsError):
            raise
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def differences(self, fingerprint: dict[str, Any]) -> list[str]:
        """Say in which entries a fingerprint differs from the stored one.

        Returns
        -------
        list of str
            Such as `plan.tile: 512 before, 1024 now`; empty if they are equal.
        """
        return differences(self.read_fingerprint() or {}, fingerprint)

    def record(self, key: str, *, checksum: int | None) -> None:
        """Say that a part is done.

        Parameters
        ----------
        key : str
            Of the part.
        checksum : int or None
            Of what was stored, for those who check it later; None where there is nothing to check.

        Raises
        ------
        SurroundingsError
            If the disk is full or refuses.
        """
        text = json.dumps([key, checksum])
        self._lines.append(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())

    def done(self) -> dict[str, int | None]:
        """Return the parts that are done, each with its checksum; the last line on a part holds."""
        lines = self._lines.read().split(b"\n")
        texts = [text for line in lines if (text := _checked(line)) is not None]
        return dict(_entries(texts))

    def close(self) -> None:
        """Close the file; recording opens it again."""
        self._lines.close()

    def discard(self) -> None:
        """Remove the record of parts, once the output is complete."""
        self._lines.remove()


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
            values = [value for text in block for value in _alone(text)]
        for value in values:
            match value:
                case [str(key), int() | None as checksum]:
                    yield key, checksum


def _alone(text: bytes) -> list[Any]:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return []


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in which entries a fingerprint differs from an earlier one that went through JSON.

    Examples
    --------
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
