"""What killed jobs leave lying about: files half written, folders half removed; and their removal.

A file that is written, and a folder that is removed, first has another name, which tells what it
was to be. Whoever calls must be the only job there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from unetkit.storage.urls import is_remote

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


def recover(url: str, partial: str) -> None:
    """Put back an output whose replacement was killed half-way, and remove what is left of others.

    Parameters
    ----------
    url : str
        The output. Where nothing is in its place, what was put aside for a new one was whole.
    partial : str
        The folder in which it is made; it is put aside only to be removed.
    """
    if is_remote(url):
        return
    place = Path(url.rstrip("/"))
    for path in _asides(partial):
        remove(path)
    for path in _asides(url):
        if os.path.lexists(place):
            remove(path)
        else:
            path.rename(place)


def _asides(url: str) -> list[Path]:
    place = Path(url.rstrip("/"))
    start = f".{place.name[:200]}."
    return [
        path
        for path in place.parent.iterdir()
        if path.name.startswith(start)
        and re.fullmatch(r"[0-9a-f]{16}\.unetkit-old", path.name.removeprefix(start))
    ]
