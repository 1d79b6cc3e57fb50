"""New arrays and groups, and the attributes of those there are; it never replaces what exists."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.codecs import ZstdCodec

from unetkit.errors import InputError, OutputError, SurroundingsError
from unetkit.storage.atomic import write_json
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.urls import exists, join, read_bytes, storing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def create_array(
    url: str,
    *,
    shape: Sequence[int],
    axes: str,
    dtype: np.dtype[Any],
    chunks: Sequence[int],
    fill_value: float = 0,
    zarr_format: Literal[2, 3] = 3,
) -> ArrayNode:
    """Create an array where nothing is yet: format v3, zstd with a checksum, named dimensions.

    The checksum of four bytes a chunk turns a flipped bit from a wrong pixel into an error. What
    reads format v2 only often knows neither zstd nor checksums: it gets Blosc with LZ4.

    Raises
    ------
    InputError
        If an axis is of size 0.
    OutputError
        If something is there.
    """
    if len(shape) != len(axes) or min(shape, default=0) < 1:
        raise InputError(
            f"an image must have at least one pixel along each of its axes {axes!r}, "
            f"got shape {tuple(shape)}"
        )
    if exists(url):
        raise OutputError(f"{url} must not exist yet, got something there; remove it first")
    with storing(url):
        zarr.create_array(
            store=url,
            shape=tuple(int(n) for n in shape),
            chunks=tuple(min(int(c), int(n)) for c, n in zip(chunks, shape, strict=True)),
            dtype=dtype,
            fill_value=fill_value,
            zarr_format=zarr_format,
            overwrite=False,
            **_storage(zarr_format, axes),
        )
    node = read_node(url)
    if not isinstance(node, ArrayNode):
        raise SurroundingsError(f"{url} must hold what was just written, got nothing there")
    return node


def _storage(zarr_format: Literal[2, 3], axes: str) -> dict[str, Any]:
    if zarr_format == 3:
        return {
            "compressors": ZstdCodec(level=3, checksum=True),
            "dimension_names": tuple(axes),
        }
    return {
        "compressors": Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
        "attributes": {"_ARRAY_DIMENSIONS": list(axes)},
    }


def create_group(
    url: str, attributes: Mapping[str, Any], *, zarr_format: Literal[2, 3] = 3
) -> None:
    """Create a group where none is yet."""
    with storing(url):
        zarr.create_group(
            store=url, attributes=plain(attributes), zarr_format=zarr_format, overwrite=False
        )


def replace_attributes(url: str, attributes: Mapping[str, Any]) -> None:
    """Replace the named top-level attributes of a group, and keep the others.

    At no time, a power cut included, is the document of the group half there.
    """
    node = read_node(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be a Zarr group, got none there; check the path")
    merged = {**node.attributes, **plain(attributes)}
    if node.zarr_format == 2:
        write_json(join(url, ".zattrs"), merged)
        return
    document = json.loads(read_bytes(join(url, "zarr.json")))
    write_json(join(url, "zarr.json"), {**document, "attributes": merged})


def plain(value: Any) -> Any:
    """Turn numpy numbers, tuples and the like into what strict JSON can hold; NaN becomes null.

    zarr keeps a value that it could not write in memory and fails on every later write.
    """
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
