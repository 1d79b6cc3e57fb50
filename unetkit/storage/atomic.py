"""Write a file that is there whole or not at all, with the rights that the user's umask gives."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import OutputError, ResourceError
from unetkit.storage import urls
from unetkit.storage.urls import exists, is_remote, join, read

if TYPE_CHECKING:
    from collections.abc import Mapping

# What says what a group or an array is, in either format of Zarr.
DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zarray", ".zattrs"})


def is_stored(path: str | Path) -> bool:
    """Tell whether a Zarr store on this machine lies at a path."""
    return any(Path(path, name).is_file() for name in DOCUMENTS)


def write_bytes(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all, in a folder that exists.

    It is written beside its place under another name, reaches the disk, and takes its place. A new
    file gets the mode that the umask leaves of 0666; an existing one keeps its mode. What killed
    jobs left of their tries to write it goes.
    """
    if is_remote(path):
        urls.write(path, data)
        return
    target = Path(path)
    check_parent(path)
    if target.is_dir():
        raise OutputError(f"{path} must be a file, got a folder; choose another name")
    temporary = _temporary(target)
    try:
        _write_new(temporary, data, mode=_mode(target))
        # Before it is there: a command whose output is there looks no further.
        _sweep_abandoned(target, now=temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise ResourceError(f"{path} must be writable, got: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")


# Seconds after which a file that is not complete is nobody's any more: none takes so long to write.
ABANDONED = 3600


def is_abandoned(path: Path, *, now: Path) -> bool:
    """Say whether a file that is not complete is older than any that a job writes, by its disk.

    The clock is that of a file that was just written there, which may be another machine's.
    """
    ages = (now.stat().st_mtime, path.stat(follow_symlinks=False).st_mtime)
    return ages[0] - ages[1] > ABANDONED


def _sweep_abandoned(target: Path, *, now: Path) -> None:
    """Remove tries to write a file that were given up long before it was written."""
    with suppress(OSError):
        for path in _beside(target, "tmp"):
            if is_abandoned(path, now=now):
                path.unlink()


def share_file(source: str, target: str, *, content: bytes) -> None:
    """Let a file that nobody writes into be at another place too; elsewhere its content is copied.

    It may be torn when the power goes, as a chunk may that was just written.
    """
    if is_remote(target):
        urls.write(target, content)
        return
    place = Path(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        # Of a link the file that it leads to is not ours to share.
        if not is_remote(source) and not Path(source).is_symlink():
            with suppress(OSError):
                os.link(source, place)
                return
        place.write_bytes(content)
    except OSError as error:
        raise ResourceError(f"{target} must be writable, got: {error}") from error


def write_text(path: str, text: str) -> None:
    """Write a text file in UTF-8, as `write_bytes` does; of a name that is none, what can be."""
    write_bytes(path, text.encode(errors="replace"))


def write_json(path: str, value: Any) -> None:
    """Write strict JSON, without NaN or Inf, as `write_bytes` does."""
    write_bytes(path, _json(value))


def _json(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode(errors="replace")


def write_jsons(documents: Mapping[str, Any]) -> None:
    """Write documents by their paths, each as `write_json` does; many take one wait for the disk.

    What was written before is safe on the disk, too, before the first of many is in its place.
    """
    if not waits_once(len(documents)) or any(map(is_remote, documents)):
        for path, value in documents.items():
            write_json(path, value)
        return
    written: list[tuple[Path, Path]] = []
    try:
        for path, value in documents.items():
            target, data = Path(path), _json(value)
            written.append((_temporary(target), target))
            _write_new(written[-1][0], data, mode=_mode(target), synced=False)
        sync()
        for temporary, target in written:
            temporary.replace(target)
    except OSError as error:
        raise ResourceError(f"{written[-1][1]} must be writable, got: {error}") from error
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _mode(target: Path) -> int | None:
    return stat.S_IMODE(target.stat().st_mode) if target.is_file() else None


def _write_new(path: Path, data: bytes, *, mode: int | None, synced: bool = True) -> None:
    # O_EXCL and O_NOFOLLOW: a link planted under this name is never followed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        if mode is not None:
            path.chmod(mode)
        if synced:
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename last, or a file's content; some file systems know no such thing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync() -> None:
    """Make sure that all that was written outlives a power cut, where the system can."""
    if hasattr(os, "sync"):
        os.sync()


# From so many files on it takes less time to wait for all that was written than for each of them:
# our choice. Less than that does not wait for what other programs write.
MANY = 32


def waits_once(count: int) -> bool:
    """Tell whether so many files are waited for at once; elsewhere `sync` may return too early."""
    return count >= MANY and sys.platform == "linux"


def sync_documents(folder: str) -> None:
    """Make sure that the metadata of new arrays outlives a power cut; chunks are checked later."""
    if is_remote(folder):
        return  # a store is safe as it is
    places = [
        place
        for above, _, files in os.walk(folder)
        for place in (*(Path(above, name) for name in DOCUMENTS.intersection(files)), Path(above))
    ]
    if waits_once(len(places)):
        sync()
        return
    for place in places:
        sync_folder(place)


def make_folder(path: str) -> None:
    """Make a folder and those around it, where they are not there yet."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{path} must be writable, got: {error}") from error


def check_parent(url: str) -> None:
    """Make sure that the folder of an output exists and can be written to."""
    parent = Path(url).parent
    if not parent.is_dir():
        raise OutputError(f"the folder of {url} must exist, got none at {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise ResourceError(f"the folder of {url} must be writable, got no right to write")


MARK = ".unetkit/publishing"
# What a reader asks for first, in either format of Zarr.
ROOTS = ("zarr.json", ".zattrs", ".zgroup")


def is_half_there(url: str) -> bool:
    """Tell whether a publishing to a URL was cut off, so that nothing there can be read."""
    return _is_stored(join(url, MARK)) and not any(_is_stored(join(url, name)) for name in ROOTS)


def _is_stored(url: str) -> bool:
    try:
        read(url, stop=1)
    except FileNotFoundError:
        return False
    return True


def publish(partial: str, url: str) -> None:
    """Copy a complete partial, a store or a file, to its place in the same store, and remove it.

    What is in the place and may be replaced is removed first, its root documents before the rest,
    so that at no moment parts of two outputs are read as one.
    """
    if urls.is_file(partial):
        urls.copy(partial, url, [""])
        urls.remove(partial)
        return
    urls.write(join(url, MARK), b"\n")
    earlier = [name for name in urls.files_below(url) if name != MARK]
    for chosen in _apart(earlier):
        urls.remove(url, chosen)
    rest, roots = reversed(_apart(urls.files_below(partial)))
    urls.copy(partial, url, rest)
    urls.copy(partial, url, roots)
    urls.remove(join(url, MARK))
    if exists(partial):
        urls.remove(partial)


def _apart(names: list[str]) -> tuple[list[str], list[str]]:
    """Part root documents from the rest."""
    return [n for n in names if n in ROOTS], [n for n in names if n not in ROOTS]


# Names that this library and zarr give to files until they are complete, and this one to folders
# until they are removed.
HALF_WRITTEN = re.compile(r".+\.[0-9a-f]{32}\.partial|\..+\.[0-9a-f]{16}\.tmp")
HALF_REMOVED = re.compile(r"\..+\.[0-9a-f]{16}\.unetkit-old")


def half_removed(url: str) -> Path:
    """Name what a folder or file is called while it is being removed or replaced."""
    place = Path(url.rstrip("/"))
    return place.with_name(f".{place.name[:200]}.{secrets.token_hex(8)}.unetkit-old")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sweep(folder: str) -> None:
    """Remove what killed jobs left half written or half removed below a folder of our own."""
    if is_remote(folder):
        return  # a store has whole objects only
    for place, folders, files in os.walk(folder):
        for name in filter(HALF_WRITTEN.fullmatch, files):
            Path(place, name).unlink()
        for name in filter(HALF_REMOVED.fullmatch, folders):
            shutil.rmtree(Path(place, name))
        folders[:] = [name for name in folders if not HALF_REMOVED.fullmatch(name)]


def sweep_removed(folder: str) -> None:
    """Remove what killed jobs left half removed right below a folder, where looking is quick."""
    if is_remote(folder):
        return
    for path in Path(folder).iterdir():
        if HALF_REMOVED.fullmatch(path.name):
            # Another job may be at it.
            shutil.rmtree(path, ignore_errors=True)


def recover(url: str, partial: str) -> None:
    """Put back an output whose replacement was killed half-way, and remove what is left of others.

    Where nothing is in the output's place, what was put aside for a new one was whole; a partial
    is put aside only to be removed.
    """
    if is_remote(url):
        return
    place = Path(url.rstrip("/"))
    for path in asides(partial):
        remove(path)
    for path in asides(url):
        if os.path.lexists(place):
            remove(path)
        else:
            path.rename(place)


def asides(url: str) -> list[Path]:
    """List what was put aside in order to be removed or replaced, and is still there."""
    return _beside(Path(url.rstrip("/")), "unetkit-old")


def _beside(place: Path, ending: str) -> list[Path]:
    """List what this library called after a file or folder beside it, by chance and an ending."""
    start = f".{place.name[:200]}."
    with os.scandir(place.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(start)]
    token = re.compile(rf"[0-9a-f]{{16}}\.{re.escape(ending)}")
    return [place.with_name(name) for name in names if token.fullmatch(name, len(start))]
