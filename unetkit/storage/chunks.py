"""The stored bytes of chunks: their checksums tell whether a tile is as it was written."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError
from unetkit.storage.atomic import write_text
from unetkit.storage.nodes import ArrayNode, opened, read_node
from unetkit.storage.urls import inside, is_remote, join, remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.storage.planes import PlaneArray

DOCUMENT = "zarr.json"


def box_checksum(
    data: PlaneArray, plane: int, *, y0: int, y1: int, x0: int, x1: int, start: int = 0
) -> int:
    """Checksum the stored chunks of a box, as they lie on disk, without decoding them.

    Unlike a checksum inside a chunk it also tells when a chunk is absent or another's.

    Parameters
    ----------
    data : PlaneArray
        An array of this library's own.
    plane : int
        Which of the planes along t and z.
    y0, y1, x0, x1 : int
        Rows and columns, ends excluded; whole chunks, or up to the end of the plane.
    start : int
        The checksum of what comes before, to make one of several boxes.

    Returns
    -------
    int
        A CRC-32 over each chunk's key, length and bytes.
    """
    array = opened(data.url, zarr_format=data.zarr_format, version=data.version)
    t, z = divmod(plane, data.size("z"))
    sizes = dict(zip(data.axes, data.chunks, strict=True))
    where = {
        "t": range(t, t + 1),
        "z": range(z, z + 1),
        "c": range(-(-data.size("c") // sizes.get("c", 1))),
        "y": range(y0 // sizes["y"], -(-y1 // sizes["y"])),
        "x": range(x0 // sizes["x"], -(-x1 // sizes["x"])),
    }
    checksum = start
    for place in itertools.product(*(where[axis] for axis in data.axes)):
        key = array.metadata.encode_chunk_key(place)
        stored = _bytes(join(data.url, key))
        # A chunk of nothing but background is not stored at all.
        length = -1 if stored is None else len(stored)
        checksum = zlib.crc32(f"{key} {length} ".encode(), checksum)
        checksum = zlib.crc32(stored or b"", checksum)
    return checksum


def list_chunks(folder: str) -> Iterator[dict[str, Any]]:
    """List every chunk stored in a folder of this machine, in sorted order.

    Yields
    ------
    dict
        `array`: the array's path inside the folder; `key`: the chunk's inside the array;
        `length` in bytes; `crc32` of the stored bytes.
    """
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not isinstance(read_node(place), ArrayNode):
            continue
        folders.clear()  # below are chunks
        for path in sorted(Path(place).glob("c/**/*")):
            if path.is_file():
                yield _entry(folder, place, path)


def list_documents(folder: str) -> Iterator[dict[str, Any]]:
    """List every metadata document in a folder of this machine, as `list_chunks` does chunks."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if isinstance(read_node(place), ArrayNode):
            folders.clear()
        if DOCUMENT in files:
            yield _entry(folder, place, Path(place, DOCUMENT))


def write_list(folder: str, path: str) -> None:
    """Write down every chunk and document of a folder, for `damages` to compare with.

    Parameters
    ----------
    folder : str
        A finished output, or one that is about to be published.
    path : str
        Where the list goes: JSON lines.
    """
    entries = itertools.chain(list_documents(folder), list_chunks(folder))
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))


def damages(folder: str, path: str) -> Iterator[tuple[str, str]]:
    """Compare a folder with the list of what was in it.

    Nothing is decoded: the stored bytes are what was published, or they are not.

    Parameters
    ----------
    folder : str
        The output.
    path : str
        Its list.

    Yields
    ------
    tuple of str
        For each chunk or document its path inside the folder, and what is wrong with it: "" where
        nothing is.

    Raises
    ------
    InputError
        If the list can't be read.
    """
    listed = set()
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
            name = join(entry["array"], entry["key"]).removeprefix("./")
            length, checksum = entry["length"], entry["crc32"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"line {number} of {path} must name a chunk, got {line!r:.80}; predict again"
            ) from error
        listed.add(name)
        yield name, _damage(inside(folder, name, what="the list of chunks"), length, checksum)
    for entry in itertools.chain(list_documents(folder), list_chunks(folder)):
        name = join(entry["array"], entry["key"]).removeprefix("./")
        if name not in listed:
            yield name, "was not there when it was published"


def _damage(path: str, length: int, checksum: int) -> str:
    try:
        stored = Path(path).read_bytes()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    if len(stored) != length:
        return f"is {len(stored)} bytes long instead of {length}"
    return "" if zlib.crc32(stored) == checksum else "has other bytes"


def _entry(folder: str, place: str, path: Path) -> dict[str, Any]:
    stored = path.read_bytes()
    return {
        "array": Path(place).relative_to(folder).as_posix(),
        "key": path.relative_to(place).as_posix(),
        "length": len(stored),
        "crc32": zlib.crc32(stored),
    }


def _bytes(url: str) -> bytes | None:
    if is_remote(url):
        filesystem, path = remote(url)
        return bytes(filesystem.cat_file(path)) if filesystem.exists(path) else None
    try:
        return Path(url).read_bytes()
    except FileNotFoundError:
        return None
