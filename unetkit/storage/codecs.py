"""Codecs that make of stored bytes no more than a chunk has room for."""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import zarr
from numcodecs import Blosc, GZip, Zstd
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec

# Codecs believe the length that compressed data claims, so that a chunk of some kilobytes could
# take all memory before anyone finds that it does not fit.

# What codecs between a chunk's numbers and its compressed bytes may add: checksums, an index.
ADDED = 2**16
# What a chunk of Blosc says that is compressed by Snappy, without which numcodecs is built.
SNAPPY = 2


def decode_within(codec: Any, data: bytes, limit: int) -> Any:
    """Decompress `data` with a codec of numcodecs; ValueError where it holds more than `limit`."""
    start = _stream(codec)
    if start is not None:
        return _inflate(start, data, limit)
    if codec.codec_id == "zstd":
        claimed = _zstd_length(data)
        if claimed is None:  # it was written without knowing
            return imagecodecs.zstd_decode(data, out=limit)
    elif codec.codec_id == "blosc":
        # Blosc goes by the length that the chunk claims, and reads on where memory ends it.
        if (whole := int.from_bytes(data[12:16], "little")) > len(data) or len(data) < 16:
            raise ValueError(f"it has {len(data)} bytes where it says {max(whole, 16)}")
        claimed = int.from_bytes(data[4:8], "little")
    elif codec.codec_id == "lz4":
        claimed = int.from_bytes(data[:4], "little")
    else:
        return codec.decode(data)  # a checksum, which adds nothing
    _check(claimed, limit)
    if codec.codec_id == "blosc" and data[2:3] and data[2] >> 5 == SNAPPY:
        return imagecodecs.blosc_decode(data)
    return codec.decode(data)


def _check(length: int, limit: int) -> None:
    if length > limit:
        raise ValueError(f"it holds at least {length} bytes where its array has {limit}")


def _stream(codec: Any) -> Any:
    """Return what begins to decompress one that does not say its length; None for the others."""
    starts = {
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": zlib.decompressobj,
        "bz2": bz2.BZ2Decompressor,
        "lzma": lambda: lzma.LZMADecompressor(format=codec.format, filters=codec.filters),
    }
    return starts.get(codec.codec_id)


def _inflate(start: Any, data: bytes, limit: int) -> bytes:
    """Decompress one stream after the other, up to one byte more than `limit`."""
    found = b""
    while data:
        stream = start()
        found += stream.decompress(data, limit + 1 - len(found))
        _check(len(found), limit)
        if not stream.eof:
            raise ValueError("it ends too early")
        data = stream.unused_data
    return found


def _zstd_length(data: bytes) -> int | None:
    """Read what a frame's header says (RFC 8878, section 3.1.1.1); None where it says nothing."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 5:
        return 0  # the codec refuses it
    kind, single = data[4] >> 6, data[4] >> 5 & 1
    size = (single, 2, 4, 8)[kind]
    if not size:
        return None
    begin = 5 + (1 - single) + (0, 1, 2, 4)[data[4] & 3]
    return int.from_bytes(data[begin : begin + size], "little") + (256 if size == 2 else 0)


class BoundedCompressor(Codec):  # type: ignore[misc]
    """A compressor of format 2 that makes at most `limit` bytes of a chunk."""

    codec_id = "bounded"

    def __init__(self, codec: Any, limit: int) -> None:
        self.codec_id = codec.codec_id
        self._codec = codec
        self._limit = limit

    def encode(self, buf: Any) -> Any:
        """Compress."""
        return self._codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decompress what fits."""
        return decode_within(self._codec, bytes(buf), self._limit)

    def get_config(self) -> Any:
        """Say what is stored of the compressor."""
        return self._codec.get_config()


class _Bounded:
    """A compressor of format 3 that makes of a chunk no more than it has values."""

    plain: Any  # the codec of numcodecs that decompresses the same

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        data = decode_within(self.plain, chunk_bytes.to_bytes(), size + size // 8 + ADDED)
        return chunk_spec.prototype.buffer.from_bytes(bytes(data))


class _Zstd(_Bounded, ZstdCodec):
    plain = Zstd()


class _Gzip(_Bounded, GzipCodec):
    plain = GZip()


class _Blosc(_Bounded, BloscCodec):
    plain = Blosc()


BOUNDED: dict[Any, Any] = {ZstdCodec: _Zstd, GzipCodec: _Gzip, BloscCodec: _Blosc}


def bounded(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Let an array's codecs make no more of stored bytes than its chunks hold."""
    inner: Any = array.async_array
    metadata: Any = inner.metadata
    if metadata.zarr_format == 3:
        metadata = bounded_metadata(metadata)
    elif metadata.compressor is not None:
        # Filters may store a value in a type of eight bytes, whatever it is read as.
        itemsize = 8 if metadata.filters else np.dtype(array.dtype).itemsize
        limit = math.prod(metadata.chunks) * itemsize
        metadata = replace(metadata, compressor=BoundedCompressor(metadata.compressor, limit))
    return zarr.Array(type(inner)(metadata, inner.store_path, inner.config))


def bounded_metadata(metadata: Any) -> Any:
    """Say of an array of format 3 the same, with codecs that make no more than its chunks hold."""
    return replace(metadata, codecs=tuple(map(_bounded_codec, metadata.codecs)))


def _bounded_codec(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(map(_bounded_codec, codec.codecs)))
    bounded: Any
    for plain_codec, bounded in BOUNDED.items():
        if isinstance(codec, plain_codec):
            return bounded.from_dict(codec.to_dict())
    inner = getattr(codec, "_codec", None)  # one of Zarr 2 in a store of Zarr 3
    if inner is None or not isinstance(codec, BytesBytesCodec):
        return codec
    bounded = type("Bounded", (_Bounded, type(codec)), {"plain": inner})
    return bounded.from_dict(codec.to_dict())
