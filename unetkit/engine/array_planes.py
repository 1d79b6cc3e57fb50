"""NumPy and Dask arrays, seen as planes as stored ones are; and planes made of tiles, as Dask's.

What tiles are made of is not known here.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.geometry.tiles import mirror_span
from unetkit.storage.image_file import AXES
from unetkit.storage.planes import PlaneArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.geometry.tiles import Cover, Tile

# What an array in memory is looked at by, for statistics: as `unetkit import` stores it.
CHUNK = 512
# Bytes of a Dask array that are computed at once for statistics: our choice.
AT_ONCE = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPlanes(PlaneArray):
    """An array of NumPy or Dask, or a part of each plane of one, seen as planes.

    What is written goes into the array; without `values`, nowhere.
    """

    values: Any = None  # its axes are `axes`
    origin: tuple[int, int] = (0, 0)  # the row and column of the planes where `values` begin

    __eq__, __hash__ = object.__eq__, object.__hash__

    @property
    def is_stored(self) -> bool:
        """Whether files or objects hold it: nothing that can be looked at again later does."""
        return False

    @property
    def is_lazy(self) -> bool:
        """Whether Dask computes it when it is read."""
        return is_lazy(self.values)

    def with_absolute_url(self) -> ArrayPlanes:
        """Return the same: what is no place has no other name."""
        return self

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box of a plane, as `PlaneArray.read` does."""
        return self._chosen(np.asarray(self._part(plane, y0, y1, x0, x1)))

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read block after block, for statistics; several of a Dask array are computed at once."""
        boxes = self.boxes
        _, y0, y1, x0, x1 = boxes[0]
        size = self.channel_count * self.dtype.itemsize * (y1 - y0) * (x1 - x0)
        left = iter(boxes)
        while some := list(itertools.islice(left, max(1, AT_ONCE // size))):
            parts = [self._part(*box) for box in some]
            yield from map(self._chosen, _computed(parts) if self.is_lazy else parts)

    def reading_bytes(self) -> int:
        """Return what is held to read parts: what is in memory is there already."""
        return 0

    def _part(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> Any:
        selection = self._selection(plane, slice(y0, y1), slice(x0, x1))
        pairs = zip(self.axes, selection, strict=True)
        # Channels are chosen afterwards: an index of lists and whole numbers would move axes.
        return self.values[
            tuple(
                slice(None) if axis == "c" and self.has_channels else where for axis, where in pairs
            )
        ]

    def _chosen(self, block: NDArray[Any]) -> NDArray[Any]:
        if self.picked is not None and "c" in self.axes:
            kept = [axis for axis in self.axes if axis in "cyx"]
            block = block.take(self.picked, kept.index("c"))
        found = self._arranged(block)
        return found.copy() if np.may_share_memory(found, block) else found

    def _selection(self, plane: int, rows: slice, columns: slice) -> tuple[Any, ...]:
        found = super()._selection(plane, rows, columns)
        moved = dict(zip("yx", self.origin, strict=True))
        return tuple(
            slice(where.start - moved[axis], where.stop - moved[axis]) if axis in moved else where
            for axis, where in zip(self.axes, found, strict=True)
        )

    def _open(self, mode: str) -> Any:
        return _Nowhere() if self.values is None else self.values

    def _check_writable(self, y0: int, y1: int, x0: int, x1: int) -> None:
        """Allow any box: no two of them share what is written whole."""


def is_lazy(values: Any) -> bool:
    """Tell whether Dask computes an array when it is read."""
    # Whoever has one has loaded it; it is not loaded to find none.
    arrays = sys.modules.get("dask.array")
    return arrays is not None and isinstance(values, arrays.Array)


def _computed(parts: Sequence[Any]) -> tuple[Any, ...]:
    import dask

    found: tuple[Any, ...] = dask.compute(*parts)
    return found


class _Nowhere:
    """Takes what nobody wants."""

    def __setitem__(self, where: object, values: object) -> None:
        pass


def array_planes(values: Any, axes: str, *, name: str = "the array") -> ArrayPlanes:
    """See an array of NumPy or Dask as the planes of an image; errors call it by its `name`."""
    if values.dtype.kind not in "buif":
        raise InputError(
            f"{name} must hold whole numbers or floats, got {values.dtype}; convert it first"
        )
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError(
            f"{name} must have no masked pixels, got {int(values.mask.sum())}; call its"
            " filled() with what they are to count as"
        )
    if any(math.isnan(size) for size in values.shape):
        raise InputError(
            f"{name} must have known sizes, got shape {values.shape}; call its"
            " compute_chunk_sizes() first"
        )
    if not all(values.shape):
        raise InputError(f"{name} must have pixels, got shape {values.shape}; leave it out")
    lazy = is_lazy(values)
    whole = values.chunksize if lazy else values.shape
    chunks = tuple(
        size if lazy or axis == "c" else min(size, CHUNK if axis in "yx" else 1)
        for axis, size in zip(axes, whole, strict=True)
    )
    return planes_of(values, axes, values.shape, values.dtype, name=name, chunks=chunks)


def planes_of(
    values: Any,
    axes: str,
    shape: Sequence[int],
    dtype: Any,
    *,
    name: str = "the array",
    chunks: tuple[int, ...] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> ArrayPlanes:
    """See `values`, which may be a part or None, as planes of a shape; images where they have c."""
    kind = np.dtype(dtype)
    return ArrayPlanes(
        url=name,
        axes=axes,
        shape=tuple(shape),
        dtype=np.dtype(np.uint8) if kind.kind == "b" else kind.newbyteorder("="),
        chunks=tuple(shape) if chunks is None else chunks,
        has_channels=True,
        values=values,
        origin=origin,
    )


def lazy_tiles(
    data: ArrayPlanes,
    tiles: Cover,
    make: Callable[[ArrayPlanes, Tile], NDArray[Any]],
    *,
    channels: int | None,
    dtype: np.dtype[Any],
    told: Any,
) -> Any:
    """Return a lazy Dask array of what `make` makes of each tile of each plane, a chunk each.

    `make` gets what the tile reads of the plane, as the only plane there is, and returns (C, Y, X),
    or (Y, X) where there are no `channels`. Axes are t, c, z, y, x, those that there are. What
    is `told` tells the result from others of the same array.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    name = f"unetkit-{tokenize(data.values.name, told)}"
    axes = [a for a in AXES if (a == "c" and channels) or (a != "c" and a in data.axes)]
    sizes = {"c": (channels,), "y": _lengths(tiles.height, tiles.tile)}
    sizes |= {"x": _lengths(tiles.width, tiles.tile)}
    sizes |= {axis: (1,) * data.size(axis) for axis in "tz"}
    shape = tuple(len(sizes[axis]) for axis in axes)
    bounds = [np.cumsum((0, *lengths)).tolist() for lengths in data.values.chunks]
    graph = {}
    for place in np.ndindex(*shape):
        at = dict(zip(axes, place, strict=True))
        tile = tiles[at["y"] * tiles.columns + at["x"]]
        box = {axis: (at[axis], at[axis] + 1) for axis in "tz" if axis in at}
        box |= {"y": mirror_span(tile.read_y0, tile.read_y1, tiles.height)}
        box |= {"x": mirror_span(tile.read_x0, tile.read_x1, tiles.width)}
        reach = [box.get(axis, (0, data.size(axis))) for axis in data.axes]
        keys, places = _touched(data.values.name, bounds, reach)
        empty = replace(
            data,
            values=None,
            shape=tuple(1 if a in "tz" else data.size(a) for a in data.axes),
            origin=(box["y"][0], box["x"][0]),
        )
        lengths = tuple(stop - start for start, stop in reach)
        job = _TileOf(empty, tile, tuple(places), lengths, tuple(axes), make)
        graph[(name, *place)] = (partial(_made, job), keys)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[data.values])
    chunks = tuple(sizes[axis] for axis in axes)
    return da.Array(layers, name, chunks, dtype=dtype, meta=np.empty((0,) * len(axes), dtype))


@dataclass(frozen=True)
class _TileOf:
    """How a chunk is made of the chunks that its tile reads."""

    data: ArrayPlanes  # what is read, still without values
    tile: Tile
    places: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]  # in what is read, in a chunk
    lengths: tuple[int, ...]  # of what is read
    axes: tuple[str, ...]  # of the result
    make: Callable[[ArrayPlanes, Tile], NDArray[Any]]


def _made(job: _TileOf, chunks: Sequence[Any]) -> NDArray[Any]:
    values = np.empty(job.lengths, job.data.dtype)
    for chunk, (target, source) in zip(chunks, job.places, strict=True):
        values[target] = np.asarray(chunk)[source]
    found = job.make(replace(job.data, values=values), job.tile)
    kept = iter(found.shape)
    return found.reshape([1 if axis in "tz" else next(kept) for axis in job.axes])


def _touched(
    name: str, bounds: Sequence[Sequence[int]], reach: Sequence[tuple[int, int]]
) -> tuple[list[tuple[Any, ...]], list[tuple[tuple[slice, ...], tuple[slice, ...]]]]:
    """List the chunks that a box has parts of: their keys, and where each lies in box and chunk."""
    along = []
    for edges, (start, stop) in zip(bounds, reach, strict=True):
        first = int(np.searchsorted(edges, start, side="right")) - 1
        last = int(np.searchsorted(edges, stop))
        found = []
        for number in range(first, last):
            low, high = max(start, edges[number]), min(stop, edges[number + 1])
            if low < high:
                inner = slice(low - edges[number], high - edges[number])
                found.append((number, slice(low - start, high - start), inner))
        along.append(found)
    keys, places = [], []
    for parts in itertools.product(*along):
        numbers, targets, sources = zip(*parts, strict=True)
        keys.append((name, *numbers))
        places.append((targets, sources))
    return keys, places


def _lengths(length: int, tile: int) -> tuple[int, ...]:
    return tuple(min(tile, length - start) for start in range(0, length, tile))
