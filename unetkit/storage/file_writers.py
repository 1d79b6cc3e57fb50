"""Write images of any size as TIFF and PNG files, a few tiles or rows at a time."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import tifffile

from unetkit.errors import InputError
from unetkit.storage.image_file import PNG_SIGNATURE
from unetkit.storage.urls import storing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from unetkit.storage.planes import PlaneArray

    Array = np.ndarray[Any, Any]


TILE = 512
# So many tiles are read at once, since the chunks below them are larger.
TILES_AT_ONCE = 8
# Above this many bytes of pixels the addresses of a classic TIFF might not suffice.
LARGEST_CLASSIC = 2**32 - 2**25
MICROMETRES_A_CENTIMETRE = 1e4


def write_tiff(
    path: str,
    data: PlaneArray,
    *,
    dtype: np.dtype[Any],
    software: str,
    name: str,
    channel_names: tuple[str, ...] = (),
    pixel_size: Mapping[str, float] | None = None,
    advance: Callable[[], None],
) -> None:
    """Write an array as OME-TIFF: tiles of 512 pixels, deflated, BigTIFF where it may be needed.

    Every plane of every channel becomes a page; values must fit `dtype`. `advance` is called with
    each row of tiles, `tile_rows` times.
    """
    shape = (data.size("t"), data.size("z"), data.channel_count, data.height, data.width)
    # The same image gives the same bytes, so that the identifier is none of chance or time.
    identity = uuid5(NAMESPACE_URL, f"unetkit:{name}:{shape}:{dtype}")
    metadata: dict[str, Any] = {"axes": "TZCYX", "Name": name, "UUID": f"urn:uuid:{identity}"}
    if data.channels is not None and channel_names:
        metadata["Channel"] = {"Name": list(channel_names)}
    options: dict[str, Any] = {}
    if pixel_size is not None:
        for axis, size in pixel_size.items():
            metadata[f"PhysicalSize{axis.upper()}"] = size
            metadata[f"PhysicalSize{axis.upper()}Unit"] = "µm"
        across = tuple(MICROMETRES_A_CENTIMETRE / pixel_size[axis] for axis in "xy")
        options = {"resolution": across, "resolutionunit": "CENTIMETER"}
    large = math.prod(shape) * dtype.itemsize > LARGEST_CLASSIC
    with storing(path), tifffile.TiffWriter(path, ome=True, bigtiff=large) as file:
        file.write(
            _tiles(data, dtype, advance),
            shape=shape,
            dtype=dtype,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            software=software,
            metadata=metadata,
            maxworkers=1,
            **options,
        )


def tile_rows(data: PlaneArray) -> int:
    """Count the rows of tiles in all pages."""
    return data.planes * data.channel_count * -(-data.height // TILE)


def _tiles(data: PlaneArray, dtype: np.dtype[Any], advance: Callable[[], None]) -> Iterator[Array]:
    """Read tile after tile, page after page: t, z, then c."""
    for plane in range(data.planes):
        for channel in range(data.channel_count):
            page = data.pick([channel]) if data.has_channels else data
            for y in range(0, data.height, TILE):
                # Before the row: who writes asks for no more once the last tile is there.
                advance()
                yield from _row_of_tiles(page, plane, y, dtype)


def _row_of_tiles(page: PlaneArray, plane: int, y: int, dtype: np.dtype[Any]) -> Iterator[Array]:
    y1, step = min(y + TILE, page.height), TILE * TILES_AT_ONCE
    for x in range(0, page.width, step):
        block = page.read(plane, y, y1, x, min(x + step, page.width))
        block = block.reshape(block.shape[-2:]).astype(dtype)
        for start in range(0, block.shape[1], TILE):
            yield block[:, start : start + TILE]


# What the format can count to.
LARGEST_SIDE = 2**31 - 1
BAND_BYTES = 2**26


def write_png(
    path: str,
    data: PlaneArray,
    *,
    dtype: np.dtype[Any],
    software: str,
    pixel_size: Mapping[str, float] | None = None,
    advance: Callable[[], None],
) -> None:
    """Write a plane of labels as a grey PNG of uint8 or uint16; values stay as they are.

    `advance` is called after each band of rows, `bands` times.

    References
    ----------
    W3C, Portable Network Graphics (third edition), 2025.
    """
    if data.planes != 1 or max(data.height, data.width) > LARGEST_SIDE:
        raise InputError(
            f"{data.url} must be one plane to be written as PNG, got {data.planes}; use --to tiff"
        )
    notes = [(b"tEXt", b"Software\0" + software.encode("latin-1"))]
    if pixel_size is not None:
        a_metre = (round(1e6 / pixel_size[axis]) for axis in "xy")
        notes.append((b"pHYs", struct.pack(">IIB", *a_metre, 1)))
    size = {"height": data.height, "width": data.width, "depth": 8 * dtype.itemsize}
    with storing(path), Path(path).open("wb") as file:
        png_stream(file, _rows(data, dtype, advance), notes=notes, **size)


def png_stream(
    file: BinaryIO,
    rows: Iterable[bytes],
    *,
    height: int,
    width: int,
    depth: int,
    notes: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Write a grey PNG of rows that come some at a time, each led by the number of its filter."""
    file.write(PNG_SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    for kind, content in notes:
        _chunk(file, kind, content)
    squeeze = zlib.compressobj(6)
    for some in rows:
        _chunk(file, b"IDAT", squeeze.compress(some))
    _chunk(file, b"IDAT", squeeze.flush())
    _chunk(file, b"IEND", b"")


def bands(data: PlaneArray) -> int:
    """Count the bands of rows in which a plane is written."""
    return -(-data.height // _band(data))


def _band(data: PlaneArray) -> int:
    return max(1, min(data.chunk[0], BAND_BYTES // (data.width * data.dtype.itemsize)))


def _rows(data: PlaneArray, dtype: np.dtype[Any], advance: Callable[[], None]) -> Iterator[bytes]:
    """Read rows, big end first, each led by the number of the filter that leaves it as it is."""
    step = _band(data)
    for y in range(0, data.height, step):
        block = data.read(0, y, min(y + step, data.height), 0, data.width)
        pixels = block.astype(dtype.newbyteorder(">")).view(np.uint8)
        yield np.pad(pixels, ((0, 0), (1, 0))).tobytes()
        advance()


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    if content or kind == b"IEND":
        file.write(struct.pack(">I", len(content)) + kind + content)
        file.write(struct.pack(">I", zlib.crc32(kind + content)))
