"""Whole chunks of an array in a folder: decoded one by one, written by a few threads at once.

zarr sends each chunk through one event loop and compares all of it with the fill value first, which
together take as long as compressing it. The files are those that zarr writes, byte for byte.
"""

from __future__ import annotations

import itertools
import math
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numcodecs import Zstd
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.storage import LocalStore

from unetkit.machine import processor_count
from unetkit.storage.codecs import ADDED, BOUNDED, decode_within

if TYPE_CHECKING:
    from collections.abc import Callable

    import zarr

    Array = np.ndarray[Any, Any]
    Encode = Callable[[Array], bytes]
    Decode = Callable[[bytes], Array]

# One of so many pixels along each axis tells most chunks from empty ones, without a look at all.
SPARSE = 37


def encoder_of(array: zarr.Array[Any]) -> Encode | None:
    """Return what makes the content of a chunk's file; None where only zarr can write the array."""
    found = _compressor_of(array)
    if found is None:
        return None
    codec, dtype = found
    if array.metadata.zarr_format == 2:
        compress = codec.encode
    elif isinstance(codec, ZstdCodec):
        compress = Zstd(level=codec.level, checksum=codec.checksum).encode
    else:
        return None
    return lambda chunk: bytes(compress(np.ascontiguousarray(chunk, dtype=dtype)))


def decoder_of(array: zarr.Array[Any]) -> Decode | None:
    """Return what makes a chunk of the content of its file; None where only zarr can read it.

    `array` has bounded codecs (`unetkit.storage.codecs`), and so has what is returned.
    """
    found = _compressor_of(array)
    if found is None:
        return None
    codec, dtype = found
    if array.metadata.zarr_format == 2:
        decompress = codec.decode
    elif type(codec) in BOUNDED.values():
        limit = math.prod(array.chunks) * dtype.itemsize + ADDED
        decompress = partial(decode_within, codec.plain, limit=limit)
    else:
        return None
    return lambda content: np.frombuffer(decompress(content), dtype).reshape(array.chunks)


def _compressor_of(array: zarr.Array[Any]) -> tuple[Any, np.dtype[Any]] | None:
    """Return what alone compresses a chunk's numbers, and their type in the file, in a folder."""
    metadata: Any = array.metadata
    if type(array.store) is not LocalStore or array.shards is not None:
        return None
    dtype = np.dtype(array.dtype)
    if metadata.zarr_format == 2:
        if metadata.filters or metadata.order != "C" or metadata.compressor is None:
            return None
        return metadata.compressor, dtype
    first, *others = metadata.codecs
    if not isinstance(first, BytesCodec) or len(others) != 1:
        return None
    if first.endian is not None:  # numbers of one byte have no order
        dtype = dtype.newbyteorder(first.endian.value)
    return others[0], dtype


def write_chunks(
    array: zarr.Array[Any], encode: Encode, selection: tuple[Any, ...], values: Array
) -> None:
    """Store what a selection of whole chunks is to hold; chunks of the fill value are removed.

    `selection` has a whole number or a slice for each axis, `values` an axis for each slice. What
    a chunk has beyond the end of an axis is the fill value.
    """
    spans = [
        range(where, where + 1) if isinstance(where, int) else range(size)[where]
        for where, size in zip(selection, array.shape, strict=True)
    ]
    block = values.reshape([len(span) for span in spans])
    places = [
        range(span.start // unit, -(-span.stop // unit))
        for span, unit in zip(spans, array.chunks, strict=True)
    ]

    folder = Path(cast("LocalStore", array.store).root)

    def write(place: tuple[int, ...]) -> None:
        begins = [p * c - s.start for p, c, s in zip(place, array.chunks, spans, strict=True)]
        inside = (slice(b, b + c) for b, c in zip(begins, array.chunks, strict=True))
        path = folder / array.metadata.encode_chunk_key(place)
        chunk = block[tuple(inside)]
        if _is_all(chunk, array.fill_value):
            path.unlink(missing_ok=True)
        else:
            put_file(path, encode(_padded(chunk, array)))

    jobs = list(itertools.product(*places))
    if len(jobs) == 1:
        write(jobs[0])
        return
    with ThreadPoolExecutor(min(len(jobs), processor_count())) as pool:
        # Asked for its results, so that the first failure is raised.
        list(pool.map(write, jobs))


def _is_all(chunk: Array, fill: Any) -> bool:
    """Tell whether a chunk holds nothing but the fill value, bit for bit; some have none."""
    if fill is None:
        return False
    every = (slice(None, None, SPARSE),) * chunk.ndim
    return all(_is_same(part, fill) for part in (chunk[every], chunk))


def _is_same(values: Array, fill: Any) -> bool:
    if values.dtype.kind == "f":
        # Minus zero is not zero, and NaN is NaN.
        bits = np.dtype(f"u{values.dtype.itemsize}")
        return bool((values.view(bits) == np.asarray(fill, values.dtype).view(bits)).all())
    return not values.any() if not fill else bool((values == fill).all())


def _padded(chunk: Array, array: zarr.Array[Any]) -> Array:
    if chunk.shape == array.chunks:
        return chunk
    fill = 0 if array.fill_value is None else array.fill_value
    whole = np.full(array.chunks, fill, array.dtype)
    whole[tuple(map(slice, chunk.shape))] = chunk
    return whole


def put_file(path: Path, content: bytes) -> None:
    """Write a file that takes its place when it is whole, named until then as zarr does it."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(16)}.partial")
    try:
        try:
            temporary.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


class PackedArray:
    """An array in memory, packed: numbers of objects take about a hundredth of their bytes."""

    def __init__(self, values: Array) -> None:
        self.shape, self.dtype = values.shape, values.dtype
        self.content: bytes = _FAST.encode(np.ascontiguousarray(values))

    def values(self) -> Array:
        """Return them, not to be written into."""
        return np.frombuffer(_FAST.decode(self.content), self.dtype).reshape(self.shape)


_FAST = Zstd(level=1)
