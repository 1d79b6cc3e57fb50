"""Write a file that is there whole or not at all, with the rights that the user's umask gives."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from unetkit import remote as stores
from unetkit.errors import OutputError, SurroundingsError
from unetkit.remote import is_remote

# What says what a group or an array is, in either format of Zarr.
DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zarray", ".zattrs"})


def write_bytes(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    It is written beside its place under another name, reaches the disk, and takes its place. A new
    file gets the mode that the umask leaves of 0666; an existing one keeps its mode.

    Parameters
    ----------
    path : str
        Where to; its folder must exist.
    data : bytes
        What to write.

    Raises
    ------
    OutputError
        If the folder is not there, or a folder lies at `path`.
    SurroundingsError
        If the disk is full or refuses.
    """
    if is_remote(path):
        stores.write(path, data)
        return
    target = Path(path)
    check_parent(path)
    if target.is_dir():
        raise OutputError(f"{path} must be a file, got a folder; choose another name")
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        _write_new(temporary, data, mode=_mode(target))
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise SurroundingsError(f"{path} must be writable, got: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str, text: str) -> None:
    """Write a text file in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: str, value: Any) -> None:
    """Write strict JSON, as `write_bytes` does.

    Raises
    ------
    ValueError
        If `value` holds NaN or Inf.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _mode(target: Path) -> int | None:
    return stat.S_IMODE(target.stat().st_mode) if target.is_file() else None


def _write_new(path: Path, data: bytes, *, mode: int | None) -> None:
    # O_EXCL and O_NOFOLLOW: a link planted under this name is never followed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        if mode is not None:
            path.chmod(mode)
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename last, or a file's content; some file systems know no such thing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_documents(folder: str) -> None:
    """Make sure that the metadata of new arrays outlives a power cut; chunks are checked later.

    Parameters
    ----------
    folder : str
        What was just created; a store is safe as it is.
    """
    if is_remote(folder):
        return
    for place, _, files in os.walk(folder):
        for name in DOCUMENTS.intersection(files):
            sync_folder(Path(place, name))
        sync_folder(Path(place))


def make_folder(path: str) -> None:
    """Make a folder and those around it, where they are not there yet.

    Raises
    ------
    SurroundingsError
        If the disk is full or refuses.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SurroundingsError(f"{path} must be writable, got: {error}") from error


def check_parent(url: str) -> None:
    """Make sure that the folder of an output exists and can be written to."""
    parent = Path(url).parent
    if not parent.is_dir():
        raise OutputError(f"the folder of {url} must exist, got none at {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise SurroundingsError(f"the folder of {url} must be writable, got no right to write")
