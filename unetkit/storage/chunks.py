"""The stored bytes of chunks: their checksums tell whether a tile is as it was written."""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from unetkit.errors import InputError, UnavailableError
from unetkit.storage.atomic import DOCUMENTS, share_file, write_text
from unetkit.storage.nodes import ArrayNode, GroupNode, opened, read_node
from unetkit.storage.ome import provenance_marks
from unetkit.storage.retry import retrying
from unetkit.storage.urls import (
    base_name,
    file_system,
    files_below,
    inside,
    is_read_only,
    is_remote,
    join,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import zarr

    from unetkit.storage.planes import PlaneArray

CONCURRENCY = 16
BATCH = 1024


def box_checksum(
    data: PlaneArray, plane: int, *, y0: int, y1: int, x0: int, x1: int, start: int = 0
) -> int:
    """Checksum the stored chunks of a box, as they lie on disk, without decoding them.

    A CRC-32 over each chunk's key, length and bytes, of a box of whole chunks: unlike a checksum
    inside a chunk it also tells when a chunk is absent or another's. With `start`, the checksum of
    one box, it becomes one of several boxes.
    """
    checksum = start
    for key in _box_keys(data, plane, rows=(y0, y1), columns=(x0, x1)):
        stored = _bytes(join(data.url, key))
        # A chunk of nothing but background is not stored at all.
        length = -1 if stored is None else len(stored)
        checksum = zlib.crc32(f"{key} {length} ".encode(), checksum)
        checksum = zlib.crc32(stored or b"", checksum)
    return checksum


def _box_keys(
    data: PlaneArray, plane: int, *, rows: tuple[int, int], columns: tuple[int, int]
) -> Iterator[str]:
    """Yield the keys of the chunks that a box of a plane touches."""
    array = opened(data.url, zarr_format=data.zarr_format, version=data.version)
    t, z = divmod(plane, data.size("z"))
    sizes = dict(zip(data.axes, data.chunks, strict=True))
    where = {
        "t": range(t, t + 1),
        "z": range(z, z + 1),
        "c": range(-(-data.size("c") // sizes.get("c", 1))),
        "y": range(rows[0] // sizes["y"], -(-rows[1] // sizes["y"])),
        "x": range(columns[0] // sizes["x"], -(-columns[1] // sizes["x"])),
    }
    for place in itertools.product(*(where[axis] for axis in data.axes)):
        yield array.metadata.encode_chunk_key(place)


def list_stored(folder: str) -> Iterator[dict[str, Any]]:
    """List every metadata document, then every chunk, stored below a path or URL, both sorted.

    `array` is the path of the array or group inside the folder, `key` the file's inside the array;
    `length` in bytes and `crc32` are of the stored bytes.
    """
    names = [
        name
        for name in files_below(folder)
        if not any(part.startswith(".") for part in name.split("/")[:-1])
    ]
    documents = [
        (above or ".", name)
        for above, _, name in (name.rpartition("/") for name in names)
        if name in DOCUMENTS
    ]
    arrays = {
        above
        for above in {above for above, _ in documents}
        if isinstance(read_node(_below(folder, above)), ArrayNode)
    }
    owners = [(_owner(name, arrays), name) for name in names if base_name(name) not in DOCUMENTS]
    chunks = [
        (owner, name if owner == "." else name[len(owner) + 1 :])
        for owner, name in owners
        if owner is not None
    ]

    def entry(part: tuple[str, str]) -> dict[str, Any]:
        stored = read(_below(folder, *part))
        checksum = zlib.crc32(stored)
        return {"array": part[0], "key": part[1], "length": len(stored), "crc32": checksum}

    return _concurrently(entry, [*documents, *chunks])


def _owner(name: str, arrays: set[str]) -> str | None:
    """Name the innermost array that a file lies in."""
    while "/" in name:
        name = name.rpartition("/")[0]
        if name in arrays:
            return name
    return "." if "." in arrays else None


def _below(folder: str, *names: str) -> str:
    return join(folder, *(name for name in names if name != "."))


def _concurrently(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Do several at a time, since a store takes its time over each."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for start in range(0, len(items), BATCH):
            yield from pool.map(work, items[start : start + BATCH])


def write_list(folder: str, path: str) -> None:
    """Write down every chunk and document of a folder as JSON lines, for `damages`."""
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in list_stored(folder)))


# The length and the checksum of each file, by its path inside the folder.
ChunkList: TypeAlias = "dict[str, tuple[int, int]]"


def read_list(path: str) -> ChunkList:
    """Read what `write_list` wrote."""
    found: ChunkList = {}
    for number, line in enumerate(read(path).splitlines(), 1):
        try:
            entry = json.loads(line)
            name = join(entry["array"], entry["key"]).removeprefix("./")
            found[name] = entry["length"], entry["crc32"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"line {number} of {path} must name a chunk, got {line!r:.80}; predict again"
            ) from error
    return found


def damages(folder: str, path: str) -> Iterator[tuple[str, str]]:
    """Compare a folder with the list of what was in it.

    Nothing is decoded: the stored bytes are what was published, or they are not. Yields the path
    of each chunk or document inside the folder, and what is wrong with it: "" where nothing is.
    """
    listed = read_list(path)
    wanted = [
        (inside(folder, name, what="the list of chunks"), *told) for name, told in listed.items()
    ]
    yield from zip(listed, _concurrently(_damage, wanted), strict=True)
    for entry in list_stored(folder):
        name = join(entry["array"], entry["key"]).removeprefix("./")
        if name not in listed:
            yield name, "was not there when it was published"


def check_documents(folder: str, listed: ChunkList) -> None:
    """Make sure that the metadata documents below a folder are as they were listed."""
    names = [name for name in listed if base_name(name) in DOCUMENTS]
    wanted = [(inside(folder, name, what="the list of chunks"), *listed[name]) for name in names]
    for name, problem in zip(names, _concurrently(_damage, wanted), strict=True):
        if problem:
            raise InputError(
                f"{folder} must be as it was published, got one where {name} {problem}"
            )


def _damage(wanted: tuple[str, int, int]) -> str:
    path, length, checksum = wanted
    try:
        stored = read(path)
    except FileNotFoundError:
        return "is missing"
    except UnavailableError:
        raise
    except OSError as error:
        return f"can't be read ({error.strerror})"
    if len(stored) != length:
        return f"is {len(stored)} bytes long instead of {length}"
    return "" if zlib.crc32(stored) == checksum else "has other bytes"


def same_documents(first: str, second: str) -> bool:
    """Tell whether two arrays have the same metadata, so that chunks mean the same in both."""
    return all(_bytes(join(first, name)) == _bytes(join(second, name)) for name in DOCUMENTS)


@dataclass(frozen=True)
class PublishedChunks:
    """The chunks of a box of a finished array, as they were when it was published."""

    url: str  # of the array
    wanted: Mapping[str, tuple[int, int] | None]  # by their keys; None for one that was not stored

    @classmethod
    def of_box(
        cls,
        data: PlaneArray,
        plane: int,
        *,
        rows: tuple[int, int],
        columns: tuple[int, int],
        listed: ChunkList,
        name: str,
    ) -> Self:
        """Look a box up in a list in which the array has a `name`."""
        keys = _box_keys(data, plane, rows=rows, columns=columns)
        return cls(data.url, {key: listed.get(join(name, key)) for key in keys})

    def share(self, url: str) -> bool:
        """Let an array with the same documents have them too; False if any is another by now.

        Files are linked, where the disk can do so, and take no more room.
        """
        for key, told in self.wanted.items():
            try:
                stored = _bytes(join(self.url, key))
            except UnavailableError:
                raise
            except OSError:
                return False
            if (stored and (len(stored), zlib.crc32(stored))) != told:
                return False
            if stored is not None:
                share_file(join(self.url, key), join(url, key), content=stored)
        return True


def _bytes(url: str) -> bytes | None:
    try:
        return retrying(lambda: read(url))
    except FileNotFoundError:
        return None


# So many absent chunks are named; a sparse slide may lack millions.
NAMED = 10_000
# Of so many chunks an image says which ones are empty.
MAPPED = 2**23


@dataclass(frozen=True)
class ChunkInventory:
    """What is stored of an array."""

    total: int  # chunks of its grid; of a sharded array the shards
    stored: int
    absent: tuple[str, ...]  # the keys of the others, in order, the first 10,000
    size: int  # bytes of those that are there
    state: int  # changes when one of them is written again, comes or goes
    empty: int = 0  # those that its writer knew as nothing but background

    @property
    def missing(self) -> int:
        """How many chunks are absent and not known as empty."""
        return self.total - self.stored - self.empty

    def to_dict(self) -> dict[str, int]:
        """Return what tells this state of the array from any other."""
        found = {"total": self.total, "stored": self.stored}
        return {**found, "bytes": self.size, "state": self.state}


def inventory(data: PlaneArray) -> ChunkInventory | None:
    """Compare the chunks that are stored with the grid of an array; of a stack the whole of it.

    None where the store can't list what it holds, such as a plain web server.
    """
    if is_read_only(data.url):
        return None
    array, grid, there, (size, state) = _look(data)
    known = there | _known_as_empty(data.url, len(there))
    absent = np.unravel_index(np.flatnonzero(~known)[:NAMED], grid)
    places = zip(*(column.tolist() for column in absent), strict=True)
    names = tuple(map(array.metadata.encode_chunk_key, places))
    stored = int(there.sum())
    return ChunkInventory(len(there), stored, names, size, state, int(known.sum()) - stored)


def empty_chunks(data: PlaneArray) -> str | None:
    """Return a map of the chunks that a new array lacks, since they hold nothing but background.

    Its image keeps it as `empty_chunks`, so that what is lost later is told from what was empty.
    None where all chunks are there.
    """
    *_, there, _ = _look(data)
    if there.all() or len(there) > MAPPED:
        return None
    return base64.b64encode(zlib.compress(np.packbits(~there).tobytes())).decode("ascii")


def _known_as_empty(url: str, count: int) -> np.ndarray[Any, Any]:
    """Read the map that `empty_chunks` made of the largest level of an image."""
    nothing = np.zeros(count, bool)
    parent, _, name = url.rpartition("/")
    node = read_node(parent) if parent and name == "0" else None
    text = provenance_marks(node).get("empty_chunks") if isinstance(node, GroupNode) else None
    if not isinstance(text, str):
        return nothing
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(text), count // 8 + 1)
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
    except (ValueError, zlib.error):
        return nothing


def _look(
    data: PlaneArray,
) -> tuple[zarr.Array[Any], tuple[int, ...], np.ndarray[Any, Any], tuple[int, int]]:
    """Return an array, its grid, which of its chunks are there, and their bytes and state."""
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
    return array, grid, there, (size, state % 2**63)


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
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{inside}{entry.name}/")
                    elif entry.is_symlink() and entry.is_dir():
                        raise InputError(
                            f"{url}/{inside}{entry.name} must be a folder of its own, got a link; "
                            "copy the store with what its links lead to (cp -rL)"
                        )
                    else:
                        found = entry.stat()
                        yield f"{inside}{entry.name}", found.st_size, found.st_mtime_ns
        except OSError as error:
            raise InputError(
                f"{url}/{inside} must be readable, got: {error}; check the disk and your rights"
            ) from error


def _list_remote(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield the key, the length and the tag of every object below a URL."""
    filesystem, path = file_system(url)
    above = f"{path.rstrip('/')}/"
    for name, entry in filesystem.find(path, detail=True).items():
        key = str(name).removeprefix(above)
        yield key, int(entry.get("size") or 0), str(entry.get("ETag", ""))
