"""Smaller levels of an image and its labels, each made from the stored level before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from unetkit.errors import InputError
from unetkit.machine import ahead
from unetkit.progress import span
from unetkit.storage.nodes import GroupNode, create_array, read_node, replace_attributes
from unetkit.storage.ome import (
    array_below,
    label_names,
    multiscales,
    ome,
    ome_part,
    read_multiscale,
)
from unetkit.storage.outputs import discard
from unetkit.storage.planes import Box, PlaneArray, plane_array, whole_chunks
from unetkit.storage.urls import exists, inside, join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unetkit.progress import Told
    from unetkit.storage.ome import Multiscale

    Reduce = Callable[[np.ndarray[Any, Any], int, int], np.ndarray[Any, Any]]
    Array = np.ndarray[Any, Any]


# Viewers open a level of this side at once.
LARGEST_TOP = 1024
# Blocks of whole chunks up to this side are made in one go, whatever the size of the image.
BLOCK_SIDE = 1024
# Our own choice: bands of 2^17 to 2^22 bytes take a tenth of the time of a whole strip of a slide.
BAND_BYTES = 2**20


# How many times smaller in y and x a level is than the one before.
Step = tuple[int, int]


def add_pyramid(
    url_of_image: str,
    *,
    rebuild: bool = False,
    steps: Sequence[Step] | None = None,
    told: Told = lambda _: None,
) -> None:
    """Add levels of half the size until the longer side is at most 1024 pixels.

    The image's pixels are means of blocks of two by two, those of its labels are every second
    pixel of every second row, since a mean of labels is no label. Labels get as many levels as
    their image. Each level is made from the stored one before, a few chunks at a time, and is
    listed in the metadata once all levels are whole; what an interrupted call left is made again.
    With `steps` levels are as those of another image are. `told` takes the share that is done.
    """
    folder = join(url_of_image, "labels")
    names = label_names(read_node(folder))
    places = [url_of_image, *(inside(folder, name, what="a label's name") for name in names)]
    for number, place in enumerate(places):
        node, part = _group(place), span(told, number / len(places), (number + 1) / len(places))
        steps = _add_levels(node, steps=steps, nearest=number > 0, rebuild=rebuild, told=part)


def steps_of(url_of_image: str) -> list[Step]:
    """Tell how much smaller each level of an image is than the one before."""
    multiscale = read_multiscale(_group(url_of_image))
    axes = "" if multiscale is None else multiscale.axes
    shapes = [array_below(path).shape for path in (multiscale.paths if multiscale else ())]
    sizes = [[shape[axes.index(axis)] for axis in "yx"] for shape in shapes]
    return [
        (max(1, round(high[0] / low[0])), max(1, round(high[1] / low[1])))
        for high, low in pairwise(sizes)
    ]


def _group(url: str) -> GroupNode:
    node = read_node(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be an OME-Zarr image, got something else there")
    return node


class PyramidWriter:
    """Writes an image from its first block to its last, and its smaller levels along with it.

    It is used in a `with`, at whose end the levels are listed and no thread of it writes any more.
    The levels are those of `add_pyramid`; nothing is read back for them. What is less than whole
    chunks of a level waits for its neighbours: no more than a row of chunks.
    """

    def __init__(self, url: str, data: PlaneArray, *, nearest: bool = False) -> None:
        self.node = _group(url)
        self.nearest = nearest
        self.levels = [data]
        self.steps: list[Step] = []
        for number in range(1, level_count(data.height, data.width)):
            level = self.levels[-1]
            self.steps.append(_fitting(level, (2, 2)))
            self.levels.append(
                _create_level(level, join(self.node.url, str(number)), self.steps[-1])
            )
        # Of each smaller level whether blocks have to wait for others, those of a row that is not
        # full, and the rows that are no chunk yet.
        self._waits: list[bool] = []
        # What is smaller is written while the next block is read, compressed and written.
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._smaller: Future[None] | None = None
        self._blocks: list[list[Array]] = [[] for _ in self.levels]
        self._rows: list[list[Array]] = [[] for _ in self.levels]

    def write(self, plane: int, y0: int, x0: int, block: Array) -> None:
        """Store the next block of whole chunks, row by row of blocks that are equally high."""
        self._settle()
        if self.steps:
            self._smaller = self._pool.submit(self._write_smaller, plane, (y0, x0), block)
        self.levels[0].write(plane, y0, x0, block)

    def _settle(self) -> None:
        if self._smaller is not None:
            self._smaller.result()
            self._smaller = None

    def _write_smaller(self, plane: int, corner: tuple[int, int], block: Array) -> None:
        reduce = every_second if self.nearest else block_mean
        y0, x0 = corner
        for number, (level, (fy, fx)) in enumerate(zip(self.levels[1:], self.steps, strict=True)):
            y0, x0, block = y0 // fy, x0 // fx, reduce(block, fy, fx)
            if number == len(self._waits):
                # As the first block, so all others.
                whole = level.is_whole(y0, y0 + block.shape[-2], x0, x0 + block.shape[-1])
                self._waits.append(not whole)
            if self._waits[number]:
                found = self._joined(number, level, (y0, x0), block)
                if found is None:
                    return
                (y0, x0), block = found
            level.write(plane, y0, x0, block)

    def _joined(
        self, number: int, level: PlaneArray, corner: tuple[int, int], block: Array
    ) -> tuple[tuple[int, int], Array] | None:
        """Join a block to those that wait; None where they are not yet whole chunks."""
        y1, x1 = (start + size for start, size in zip(corner, block.shape[-2:], strict=True))
        blocks, rows = self._blocks[number], self._rows[number]
        blocks.append(block)
        if x1 < level.width:
            return None
        rows.append(np.concatenate(blocks, axis=-1))
        blocks.clear()
        if y1 % level.chunk[0] and y1 < level.height:
            return None
        joined = np.concatenate(rows, axis=-2)
        rows.clear()
        return (y1 - joined.shape[-2], 0), joined

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """List the levels, now that they are whole; after a failure nothing is written any more."""
        try:
            if kind is None:
                self._settle()
        finally:
            self._pool.shutdown(cancel_futures=True)
        multiscale = read_multiscale(self.node)
        if kind is None and multiscale is not None and self.steps:
            factors = list(accumulate(self.steps, _times, initial=(1, 1)))
            _list_levels(self.node, multiscale, factors, nearest=self.nearest)


def _fitting(level: PlaneArray, step: Step) -> Step:
    """Leave an axis of one pixel as it is."""
    return step[0] if level.height > 1 else 1, step[1] if level.width > 1 else 1


def _times(one: Step, other: Step) -> Step:
    return one[0] * other[0], one[1] * other[1]


def _add_levels(
    node: GroupNode,
    *,
    steps: Sequence[Step] | None,
    nearest: bool,
    rebuild: bool,
    told: Told,
) -> Sequence[Step]:
    multiscale = read_multiscale(node)
    if multiscale is None:
        raise InputError(f"{node.url} must be an OME-Zarr image, got something else there")
    axes = multiscale.axes
    level = plane_array(array_below(multiscale.paths[0]), axes=axes, has_channels="c" in axes)
    if steps is None:
        steps = [(2, 2)] * (level_count(level.height, level.width) - 1)
    factors = [(1, 1)]
    for number, own in enumerate(steps, start=1):
        step = _fitting(level, own)
        factors.append(_times(factors[-1], step))
        place = join(node.url, str(number))
        if number < len(multiscale.paths) and not rebuild:
            level = plane_array(array_below(place), axes=axes, has_channels=level.has_channels)
            continue
        if exists(place):
            discard(place)
        reduce = every_second if nearest else block_mean
        # Each level takes about a quarter of the time of the one before.
        part = span(told, 1 - 0.25 ** (number - 1), 1 - 0.25**number)
        level = _halve(level, place, steps=step, reduce=reduce, told=part)
    if len(factors) > len(multiscale.paths):
        _list_levels(node, multiscale, factors, nearest=nearest)
    return steps


def _list_levels(
    node: GroupNode, multiscale: Multiscale, factors: Sequence[Step], *, nearest: bool
) -> None:
    document = multiscales(
        name=multiscale.name,
        axes=multiscale.axes,
        placement=multiscale.placement,
        factors=factors,
        nearest=nearest,
    )
    found = {**(ome(node) if node.zarr_format == 3 else {}), "multiscales": document}
    replace_attributes(node.url, ome_part(found, zarr_format=node.zarr_format))


def level_count(height: int, width: int) -> int:
    """Count the levels until the longer side is at most 1024 pixels.

    >>> level_count(1024, 800), level_count(1025, 10), level_count(100_000, 100_000)
    (1, 2, 8)
    """
    count, side = 1, max(height, width)
    while side > LARGEST_TOP:
        side = -(-side // 2)
        count += 1
    return count


def _create_level(level: PlaneArray, place: str, step: Step) -> PlaneArray:
    """Create the array of the next smaller level, in chunks like those of the one before."""
    sizes = {"y": -(-level.height // step[0]), "x": -(-level.width // step[1])}
    chunks = dict(zip(level.axes, level.chunks, strict=True))
    node = create_array(
        place,
        shape=[sizes.get(axis, level.size(axis)) for axis in level.axes],
        axes=level.axes,
        dtype=level.dtype,
        chunks=[min(chunks[axis], sizes.get(axis, chunks[axis])) for axis in level.axes],
        zarr_format=level.zarr_format,
    )
    return plane_array(node, axes=level.axes, has_channels=level.has_channels)


def _halve(
    level: PlaneArray,
    place: str,
    *,
    steps: Step,
    reduce: Reduce,
    told: Told,
) -> PlaneArray:
    """Store the next smaller level, a few chunks at a time; of nothing, nothing is written."""
    fy, fx = steps
    smaller = _create_level(level, place, steps)

    def reduced(box: Box) -> Array | None:
        plane, y, y1, x, x1 = box
        source = (plane, y * fy, min(y1 * fy, level.height), x * fx, min(x1 * fx, level.width))
        return None if level.is_blank(*source) else reduce(level.read(*source), fy, fx)

    boxes = smaller.chunk_boxes(BLOCK_SIDE)
    for number, (box, block) in enumerate(zip(boxes, ahead(map(reduced, boxes)), strict=True)):
        if block is not None:
            smaller.write(box[0], box[1], box[3], block)
        told((number + 1) / len(boxes))
    return smaller


def every_second(block: np.ndarray[Any, Any], fy: int, fx: int) -> np.ndarray[Any, Any]:
    """Keep the first pixel of each block of `fy` x `fx`.

    >>> every_second(np.arange(6).reshape(2, 3), 2, 2)
    array([[0, 2]])
    """
    return block[..., ::fy, ::fx]


def block_mean(block: np.ndarray[Any, Any], fy: int, fx: int) -> np.ndarray[Any, Any]:
    """Average blocks of `fy` x `fx` pixels; a block cut off at the end averages what it has.

    Integers are rounded, halves to even.

    >>> block_mean(np.array([[0, 4, 9], [2, 2, 9]], np.uint8), 2, 2)
    array([[2, 9]], dtype=uint8)
    """
    if block.dtype in (np.uint8, np.uint16) and max(fy, fx) <= 2:
        return _pair_means(block, fy, fx)
    pad = [(0, 0)] * (block.ndim - 2) + [(0, -block.shape[-2] % fy), (0, -block.shape[-1] % fx)]
    # Repeating the last row where one is missing leaves the mean of what there is.
    whole = np.pad(block, pad, mode="edge")
    lead, (high, wide) = whole.shape[:-2], whole.shape[-2:]
    exact = np.float32 if block.dtype.itemsize <= 2 or block.dtype == np.float32 else np.float64
    blocks = whole.reshape(*lead, high // fy, fy, wide // fx, fx)
    mean: np.ndarray[Any, Any] = blocks.mean(axis=(-3, -1), dtype=exact)
    if block.dtype.kind in "iu":
        mean = np.rint(mean)
    return mean.astype(block.dtype)


def _pair_means(block: Array, fy: int, fx: int) -> Array:
    """Average one or two pixels along y and x of small integers, in whole numbers alone.

    So many rows at a time that what is made on the way stays in a processor's cache.
    """
    rows = max(2, BAND_BYTES * block.shape[-2] // block.nbytes // 2 * 2)
    if rows < block.shape[-2]:
        bands = (block[..., y : y + rows, :] for y in range(0, block.shape[-2], rows))
        return np.concatenate([_pair_means(band, fy, fx) for band in bands], axis=-2)
    pad = [(0, 0)] * (block.ndim - 2) + [(0, -block.shape[-2] % fy), (0, -block.shape[-1] % fx)]
    whole = np.ascontiguousarray(np.pad(block, pad, mode="edge") if np.any(pad) else block)
    bits = 8 * block.dtype.itemsize
    wide = np.dtype(f"u{2 * block.dtype.itemsize}")
    total: Array = whole.view(wide) if fx == 2 else whole.astype(wide)
    if fx == 2:
        # Two neighbours are the halves of one longer number, whichever lies first.
        total = (total >> bits) + (total & (2**bits - 1))
    if fy == 2:
        total = total[..., ::2, :] + total[..., 1::2, :]
    shift = (fy == 2) + (fx == 2)
    if shift:
        # Halves go to the even one.
        total = (total + (2**shift // 2 - 1) + ((total >> shift) & 1)) >> shift
    return total.astype(block.dtype)


def thumbnail(data: PlaneArray, plane: int, *, side: int) -> Array:
    """Return a small copy of a plane, (C, Y, X) of an image, (Y, X) of labels.

    It is made from the smallest stored level that is large enough, which for a whole slide is a
    matter of a few chunks; without a pyramid everything has to be read, block by block. The longer
    side of the copy is at least `side` pixels, where the image has as many, and less than twice.
    """
    level = data
    for other in _levels(data):
        if max(other.height, other.width) >= side:
            level = other
    return _reduced(level, plane, factor=max(1, max(level.height, level.width) // side))


def downscaled(
    data: PlaneArray, plane: int, *, factor: int, box: tuple[int, int, int, int] | None = None
) -> Array:
    """Read a plane, each block of `factor` x `factor` pixels as one, as exactly as from level 0.

    An image's pixels are means, those of labels are kept ones. A `box`, y0, y1, x0, x1, begins
    and ends on multiples of `factor` or at the plane's end; left out, it is the whole plane.
    """
    found, there = data, 1
    for number, level in enumerate(_levels(data)) if factor > 1 else ():
        sizes = {"y": -(-data.height // 2**number), "x": -(-data.width // 2**number)}
        wanted = tuple(sizes.get(axis, data.size(axis)) for axis in data.axes)
        if factor % 2**number == 0 and level.shape == wanted:
            found, there = level, 2**number
    y0, y1, x0, x1 = box or (0, data.height, 0, data.width)
    inside = (y0 // there, -(-y1 // there), x0 // there, -(-x1 // there))
    return _reduced(found, plane, factor=factor // there, box=inside)


def downscale_factor(height: int, width: int, *, longest: int, pixels: int) -> int:
    """Choose a power of two by which a plane has at most `longest` pixels a side, `pixels` in all.

    >>> downscale_factor(512, 512, longest=2048, pixels=2**22)
    1
    >>> downscale_factor(50_000, 400, longest=2048, pixels=2**22)
    32
    >>> downscale_factor(2048, 2048, longest=2048, pixels=2**20)
    2
    """
    factor = 1
    while (
        -(-max(height, width) // factor) > longest
        or -(-height // factor) * -(-width // factor) > pixels
    ):
        factor *= 2
    return factor


def _levels(data: PlaneArray) -> list[PlaneArray]:
    """Open the stored levels of which an array is the first, from large to small."""
    return [level for level, _ in levels_of(data)]


def levels_of(data: PlaneArray) -> list[tuple[PlaneArray, Mapping[str, float]]]:
    """Open the stored levels of which an array is the first, from large to small.

    With each comes how many pixels of the first one of its pixels is long, as far as it says so.
    """
    parent, _, name = data.url.rpartition("/")
    node = read_node(parent) if name and data.item is None else None
    multiscale = read_multiscale(node) if isinstance(node, GroupNode) else None
    if multiscale is None or multiscale.paths[0] != data.url:
        return [(data, {})]
    opened = [
        plane_array(array_below(path), axes=data.axes, has_channels=data.has_channels)
        for path in multiscale.paths
    ]
    levels = [level.over(data) for level in opened] if data.repeated else opened
    chosen = [replace(level, picked=data.picked) for level in levels]
    return list(zip(chosen, multiscale.factors, strict=True))


def _reduced(
    level: PlaneArray, plane: int, *, factor: int, box: tuple[int, int, int, int] | None = None
) -> Array:
    """Make a plane, or a box of it, smaller; no more than a block and the result are in memory."""
    reduce = block_mean if level.has_channels else every_second
    step = whole_chunks(factor, BLOCK_SIDE)
    top, bottom, left, right = box or (0, level.height, 0, level.width)
    rows = []
    for y in range(top, bottom, step):
        y1 = min(y + step, bottom)
        blocks = (
            level.read(plane, y, y1, x, min(x + step, right)) for x in range(left, right, step)
        )
        rows.append(np.concatenate([reduce(b, factor, factor) for b in blocks], axis=-1))
    return np.concatenate(rows, axis=-2)
