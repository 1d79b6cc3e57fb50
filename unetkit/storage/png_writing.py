"""Write a grey PNG of any height and width, some rows at a time."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unetkit.errors import InputError
from unetkit.storage.urls import storing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from unetkit.storage.planes import PlaneArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
    """Write a plane of labels as a grey PNG; values stay as they are.

    Parameters
    ----------
    path : str
        A local file.
    data : PlaneArray
        One plane.
    dtype : numpy.dtype
        uint8 or uint16; values must fit.
    software : str
        Who wrote it.
    pixel_size : mapping of str to float, optional
        Micrometres along y and x.
    advance : callable
        Called after each band of rows, `bands` times.

    Raises
    ------
    InputError
        If there are several planes.
    SurroundingsError
        If the disk is full or refuses.

    References
    ----------
    W3C, Portable Network Graphics (third edition), 2025.
    """
    if data.planes != 1 or max(data.height, data.width) > LARGEST_SIDE:
        raise InputError(
            f"{data.url} must be one plane to be written as PNG, got {data.planes}; use --to tiff"
        )
    depth = 8 * dtype.itemsize
    with storing(path), Path(path).open("wb") as file:
        file.write(SIGNATURE)
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", data.width, data.height, depth, 0, 0, 0, 0))
        _chunk(file, b"tEXt", b"Software\0" + software.encode("latin-1"))
        if pixel_size is not None:
            a_metre = (round(1e6 / pixel_size[axis]) for axis in "xy")
            _chunk(file, b"pHYs", struct.pack(">IIB", *a_metre, 1))
        squeeze = zlib.compressobj(6)
        for rows in _rows(data, dtype):
            _chunk(file, b"IDAT", squeeze.compress(rows))
            advance()
        _chunk(file, b"IDAT", squeeze.flush())
        _chunk(file, b"IEND", b"")


def bands(data: PlaneArray) -> int:
    """Count the bands of rows in which a plane is written."""
    return -(-data.height // _band(data))


def _band(data: PlaneArray) -> int:
    return max(1, min(data.chunk[0], BAND_BYTES // (data.width * data.dtype.itemsize)))


def _rows(data: PlaneArray, dtype: np.dtype[Any]) -> Iterator[bytes]:
    """Read rows, big end first, each led by the number of the filter that leaves it as it is."""
    step = _band(data)
    for y in range(0, data.height, step):
        block = data.read(0, y, min(y + step, data.height), 0, data.width)
        pixels = block.astype(dtype.newbyteorder(">")).view(np.uint8)
        yield np.pad(pixels, ((0, 0), (1, 0))).tobytes()


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    if content or kind == b"IEND":
        file.write(struct.pack(">I", len(content)) + kind + content)
        file.write(struct.pack(">I", zlib.crc32(kind + content)))
