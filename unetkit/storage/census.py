"""Which chunks of an array are stored, told from their names alone; nothing is read or decoded.

A chunk that is absent reads as the fill value, be it empty glass or the end of a copy that broke
off, and only a person can tell which.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.storage.nodes import opened
from unetkit.storage.urls import is_remote, remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unetkit.storage.planes import PlaneArray

# So many absent chunks are named; a sparse slide may lack millions.
NAMED = 10_000


@dataclass(frozen=True)
class Census:
    """What is stored of an array.

    Parameters
    ----------
    total : int
        Chunks of its grid; of a sharded array the shards.
    stored : int
        Those that are there.
    absent : tuple of str
        The keys of the others, in order, the first 10,000.
    size : int
        Bytes of those that are there.
    state : int
        Changes when one of them is written anew, comes or goes.
    """

    total: int
    stored: int
    absent: tuple[str, ...]
    size: int
    state: int

    @property
    def missing(self) -> int:
        """How many chunks are absent."""
        return self.total - self.stored

    def to_dict(self) -> dict[str, int]:
        """Return what tells this state of the array from any other."""
        return {
            "total": self.total,
            "stored": self.stored,
            "bytes": self.size,
            "state": self.state,
        }


def take_census(data: PlaneArray) -> Census | None:
    """Compare the chunks that are stored with the grid of an array.

    Parameters
    ----------
    data : PlaneArray
        The array; of a stack the whole of it.

    Returns
    -------
    Census or None
        None where the store can't list what it holds, such as a plain web server.

    Raises
    ------
    InputError
        If the folder may not be listed.
    """
    if data.url.startswith(("http:", "https:")):
        return None
    array = opened(data.url, zarr_format=data.zarr_format, version=data.version)
    units = array.shards or array.chunks
    grid = tuple(-(-n // unit) for n, unit in zip(array.shape, units, strict=True))
    key = _pattern(array.metadata.encode_chunk_key, len(grid))
    files: Iterable[tuple[str, int, int | str]]
    files = _list_remote(data.url) if is_remote(data.url) else _list_folder(data.url)
    there = np.zeros(math.prod(grid), bool)
    size, state = 0, 0
    for name, length, stamp in files:
        found = key.fullmatch(name)
        place = tuple(map(int, found.groups())) if found else grid
        if any(index >= end for index, end in zip(place, grid, strict=True)):
            continue  # metadata, or what some other program left
        there[np.ravel_multi_index(place, grid)] = True
        size += length
        # A sum, so that the order of the listing does not matter.
        state += zlib.crc32(f"{name} {length} {stamp}".encode())
    absent = np.unravel_index(np.flatnonzero(~there)[:NAMED], grid)
    names = (array.metadata.encode_chunk_key(place) for place in _places(absent))
    return Census(len(there), int(there.sum()), tuple(names), size, state % 2**63)


def _places(columns: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)


def _pattern(encode: Any, ndim: int) -> re.Pattern[str]:
    """Make an expression that reads a chunk's key, for any way in which keys are written."""
    sample = encode((7,) * ndim)
    prefix, separator = sample[: sample.index("7")], sample[-2]
    number = r"(0|[1-9]\d{0,18})"
    return re.compile(re.escape(prefix) + re.escape(separator).join([number] * ndim))


def _list_folder(url: str) -> Iterator[tuple[str, int, int]]:
    """Yield the path inside a folder, the length and the time of change of every file in it."""
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(f"{url}/{inside}") as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(f"{inside}{entry.name}/")
                    else:
                        found = entry.stat()
                        yield f"{inside}{entry.name}", found.st_size, found.st_mtime_ns
        except OSError as error:
            raise InputError(
                f"{url}/{inside} must be readable, got: {error}; check the disk and your rights"
            ) from error


def _list_remote(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield the key, the length and the tag of every object below a URL."""
    filesystem, path = remote(url)
    above = f"{path.rstrip('/')}/"
    for name, entry in filesystem.find(path, detail=True).items():
        key = str(name).removeprefix(above)
        yield key, int(entry.get("size") or 0), str(entry.get("ETag", ""))
