"""The stored bytes of chunks: their checksums tell whether a tile is as it was written."""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.storage.nodes import ArrayNode, opened, read_node
from unetkit.storage.urls import is_remote, join, remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.storage.planes import PlaneArray


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
                stored = path.read_bytes()
                yield {
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
