"""From class maps to objects: which pixels are objects, their ids over any blocks, their growth.

It knows what blocks tell of their objects, and not how they are stored or run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.components import components, sizes_and_first_pixels
from unetkit.arrays.meanings import TARGETS, meaning_of
from unetkit.arrays.watershed import OPPOSITE, heights_and_seeds, same_basin, watershed
from unetkit.errors import LabelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from unetkit.arrays.meanings import Meaning
    from unetkit.arrays.watershed import FloodedFace, Side

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BlockSummary:
    """What a block tells of its objects, so that blocks can be joined without their pixels."""

    sizes: Array  # int64, shape (count,): pixels of object 1, 2, ...
    first: Array  # int64, shape (count,): the raster index of its first pixel in the whole image
    # Of uint32: the ids along the block's first and last row (X,), and first and last column (Y,).
    top: Array
    bottom: Array
    left: Array
    right: Array
    # int64, shape (count,): the pixels of each object that lie where objects are wanted, where
    # not all are.
    wanted: Array | None = None
    # By side, where floods came from, if a watershed parted the objects.
    flooded_faces: Mapping[Side, FloodedFace] | None = None

    @property
    def count(self) -> int:
        """How many objects the block has."""
        return len(self.sizes)


def summarize(
    labels: Array,
    count: int,
    *,
    y0: int,
    x0: int,
    width: int,
    start: int = 0,
    where: Array | None = None,
    flooded_faces: Mapping[Side, FloodedFace] | None = None,
) -> BlockSummary:
    """Report a labelled block's objects: their sizes, first pixels, and ids along its faces.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Ids 1 to `count` of this block alone, as `components` gives them.
    count : int
        The highest id.
    y0, x0 : int
        Where the block begins in its plane, in pixels.
    width : int
        Width of the whole plane, in pixels.
    start : int
        Raster index of the plane's first pixel: plane number times height times width.
    where : ndarray of bool, shape (Y, X), optional
        Objects that have no pixel in it, in any block, are not wanted.
    flooded_faces : dict of FloodedFace, optional
        Where floods came from, as `watershed` gives it; left out, objects that touch are one.

    Returns
    -------
    BlockSummary
    """
    sizes, inside = sizes_and_first_pixels(labels, count)
    y, x = np.divmod(inside, labels.shape[1])
    return BlockSummary(
        sizes=sizes,
        first=start + (y + y0) * width + (x + x0),
        top=labels[0].copy(),
        bottom=labels[-1].copy(),
        left=labels[:, 0].copy(),
        right=labels[:, -1].copy(),
        wanted=None if where is None else sizes_and_first_pixels(labels * where, count)[0],
        flooded_faces=flooded_faces,
    )


def touching(face: Array, other: Array, *, where: Array | bool = True) -> Array:
    """List which ids meet across the face between two blocks.

    Parameters
    ----------
    face, other : ndarray of int, shape (N,)
        Ids along the last line of one block and the first line of the next.
    where : ndarray of bool, shape (N,), optional
        Where to look; left out, everywhere.

    Returns
    -------
    ndarray of int64, shape (P, 2)
        Each meeting pair once.
    """
    return np.unique(_met(face, other, where=where).astype(np.int64), axis=0)


def neighbours(
    labels: Array, steps: Sequence[tuple[int, int]] = ((0, 1), (1, 0), (1, 1), (1, -1))
) -> Array:
    """List the pairs of objects that lie one of some steps apart.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is background.
    steps : sequence of tuple of int
        Pixels down and to the right; left out, to the eight pixels around.

    Returns
    -------
    ndarray, shape (P, 2), of the dtype of `labels`
        Each pair once, the lower id first.

    Examples
    --------
    >>> neighbours(np.array([[1, 2, 0, 3]])).tolist()
    [[1, 2]]
    """
    found, (height, width) = [], labels.shape
    for down, right in steps:
        to_left, to_right = max(-right, 0), max(right, 0)
        one = labels[: max(height - down, 0), to_left : max(width - to_right, 0)]
        other = labels[down:, to_right : max(width - to_left, 0)]
        found.append(np.sort(_met(one, other, where=one != other), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _met(one: Array, other: Array, *, where: Array | bool) -> Array:
    """Pair the ids of two arrays of one shape where both have an object."""
    both = (one != 0) & (other != 0) & where
    return np.stack([one[both], other[both]], axis=1)


@dataclass(frozen=True)
class LabelMapping:
    """The objects of a whole image, and how each block finds their ids."""

    sizes: Array  # int64, shape (N,): pixels of object 1, 2, ..., N
    # uint32 or uint64, shape (P + 1,): the final id of each provisional one; 0 for background and
    # for what was too small.
    ids: Array = field(repr=False)
    # int64, shape (blocks + 1,): a block's object k has the provisional id `offsets[block] + k`.
    offsets: Array = field(repr=False)
    # As `ids`, with a number for what nobody wants as well, in the same order; None where all that
    # is large enough is wanted. By these objects grow, since what is left out holds its ground.
    ranks: Array | None = field(repr=False, default=None)

    @property
    def count(self) -> int:
        """How many objects the image has."""
        return len(self.sizes)

    def lookup(self, block: int) -> Array:
        """Give the final ids of one block: `joined.lookup(b)[labels]` relabels it.

        Parameters
        ----------
        block : int
            The block's place among the summaries.

        Returns
        -------
        ndarray of uint32 or uint64, shape (count + 1,)
            Entry 0 is background.
        """
        return self._of(self.ids, block)

    def ranks_of(self, block: int) -> Array | None:
        """Give the numbers by which one block's objects grow, as `lookup` does the final ids."""
        return None if self.ranks is None else self._of(self.ranks, block)

    def _of(self, numbers: Array, block: int) -> Array:
        first, last = self.offsets[block], self.offsets[block + 1]
        return np.concatenate([numbers[:1], numbers[first + 1 : last + 1]])


def merge_across_blocks(
    summaries: Sequence[BlockSummary], *, grid: tuple[int, int, int], min_size: int = 0
) -> LabelMapping:
    """Unite the objects of all blocks of an image and number them in raster order.

    Parameters
    ----------
    summaries : sequence of BlockSummary
        One a block: plane by plane, in each plane row by row, in each row from left to right.
    grid : tuple of int
        (planes, rows of blocks, blocks in a row).
    min_size : int
        Objects with fewer pixels are left out.

    Returns
    -------
    LabelMapping
        The same ids for any tiling of the same image.

    Raises
    ------
    ValueError
        If `grid` does not hold as many blocks as there are summaries.
    """
    if len(summaries) != np.prod(grid):
        raise ValueError(f"grid must hold {len(summaries)} blocks, got {grid}")
    offsets = np.concatenate([[0], np.cumsum([s.count for s in summaries], dtype=np.int64)])
    return merge(summaries, _grid_pairs(summaries, offsets, grid), min_size=min_size)


def merge(
    summaries: Iterable[BlockSummary], pairs: Iterable[Array], *, min_size: int = 0
) -> LabelMapping:
    """Unite provisional objects along `pairs`, and number the results in raster order.

    Parameters
    ----------
    summaries : iterable of BlockSummary
        One a block, in the order in which provisional ids run on.
    pairs : iterable of ndarray of int, shape (P, 2)
        Provisional ids (block offset + own id) that are one object.
    min_size : int
        Objects with fewer pixels are left out, as are those without a pixel that is wanted.

    Returns
    -------
    LabelMapping
    """
    blocks = list(summaries)
    offsets = np.concatenate([[0], np.cumsum([s.count for s in blocks], dtype=np.int64)])
    total = int(offsets[-1])
    edges = np.concatenate([np.empty((0, 2), np.int64), *pairs]) - 1
    groups, root = _united(edges, total)
    sizes = np.zeros(groups, np.int64)
    first = np.full(groups, np.iinfo(np.int64).max)
    if total:
        np.add.at(sizes, root, np.concatenate([s.sizes for s in blocks]))
        np.minimum.at(first, root, np.concatenate([s.first for s in blocks]))
    wanted = np.zeros(groups, np.int64)
    if total:
        np.add.at(
            wanted,
            root,
            np.concatenate([s.sizes if s.wanted is None else s.wanted for s in blocks]),
        )
    large = np.flatnonzero(sizes >= max(min_size, 1))
    large = large[np.argsort(first[large])]
    kept = large[wanted[large] > 0]
    ids, ranks = (
        np.concatenate([np.zeros(1, id_dtype(len(chosen))), _numbered(chosen, groups)[root]])
        for chosen in (kept, large)
    )
    return LabelMapping(
        sizes=sizes[kept], ids=ids, offsets=offsets, ranks=ranks if len(kept) < len(large) else None
    )


def _united(edges: Array, total: int) -> tuple[int, Array]:
    """Count the groups that pairs (P, 2) of so many objects make, and say which each is in."""
    if not len(edges):
        return total, np.arange(total)
    # Loaded where it is used: no block of an image alone needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(total, total))
    groups, root = connected_components(graph, directed=False)
    return int(groups), root


def _numbered(chosen: Array, groups: int) -> Array:
    """Give groups numbers from 1 on in the order in which they are chosen, and the others 0."""
    numbers = np.zeros(groups, id_dtype(len(chosen)))
    numbers[chosen] = np.arange(1, len(chosen) + 1)
    return numbers


def id_dtype(count: int) -> np.dtype[Any]:
    """Choose the type of instance ids: uint32, or uint64 above 4,294,967,295 objects."""
    return np.dtype(np.uint32 if count <= np.iinfo(np.uint32).max else np.uint64)


def _grid_pairs(
    summaries: Sequence[BlockSummary], offsets: Array, grid: tuple[int, int, int]
) -> Iterable[Array]:
    """Yield the pairs of provisional ids that meet at each face of a grid of blocks."""
    numbers = np.arange(len(summaries)).reshape(grid)
    beside = np.stack([numbers[:, :, :-1], numbers[:, :, 1:]], axis=-1).reshape(-1, 2)
    below = np.stack([numbers[:, :-1], numbers[:, 1:]], axis=-1).reshape(-1, 2)
    for a, b in beside.tolist():
        yield _across(summaries[a], summaries[b], "right") + offsets[[a, b]]
    for a, b in below.tolist():
        yield _across(summaries[a], summaries[b], "bottom") + offsets[[a, b]]


def _across(one: BlockSummary, other: BlockSummary, side: Side) -> Array:
    """List the ids that are one object across the face between a block and the next."""
    beyond = OPPOSITE[side]
    faces: tuple[Array, Array] = getattr(one, side), getattr(other, beyond)
    if one.flooded_faces is None or other.flooded_faces is None:
        return touching(*faces)
    return touching(*faces, where=same_basin(one.flooded_faces[side], other.flooded_faces[beyond]))


def has_instances(target: str) -> bool:
    """Say whether a prediction with this target has objects (class maps do not)."""
    return meaning_of(target).objects is not None


def object_class(target: str) -> int:
    """Give the class that objects are, of two the one that a threshold is about.

    Parameters
    ----------
    target : str
        What the network learned.

    Returns
    -------
    int
        0 for `boundary`, whose objects are what is inside; 2 for `classes+boundary`, where those
        that follow are objects too; else 1.
    """
    first = meaning_of(target).objects
    return 1 if first is None else first


def foreground_of(class_map: Array, target: str) -> Array:
    """Mark the pixels that belong to objects: foreground, interior or inside.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned, a target with objects.

    Returns
    -------
    ndarray of bool, shape (Y, X)

    Raises
    ------
    UsageError
        If the target has no instances.
    """
    meaning = _with_objects(target)
    several = meaning.several
    return np.asarray(class_map >= meaning.objects if several else class_map == meaning.objects)


def object_probability(probabilities: Array, target: str) -> Array:
    """Give the probability of each pixel to belong to an object, of whichever class.

    Parameters
    ----------
    probabilities : ndarray of uint8 or float, shape (K, Y, X)
        255ths, or from 0 to 1.
    target : str
        What the network learned.

    Returns
    -------
    ndarray, shape (Y, X)
        Of the dtype of `probabilities`; sums of what was rounded are at most 255.

    Examples
    --------
    >>> probabilities = np.array([[[40]], [[15]], [[120]], [[81]]], np.uint8)
    >>> object_probability(probabilities, "classes+boundary")
    array([[201]], dtype=uint8)
    >>> object_probability(probabilities, "foreground+distance")
    array([[215]], dtype=uint8)
    """
    first = object_class(target)
    is_stored = probabilities.dtype == np.uint8
    if meaning_of(target).bands:
        # One number that was rounded, not three.
        return np.asarray((255 if is_stored else 1) - probabilities[0]).astype(probabilities.dtype)
    if not meaning_of(target).several:
        return np.asarray(probabilities[first])
    total = probabilities[first].astype(np.uint16 if is_stored else probabilities.dtype)
    # One after the other: NumPy's sum over an axis depends on how long the others are.
    for one in probabilities[first + 1 :]:
        total += one
    return np.asarray(np.minimum(total, 255).astype(np.uint8) if is_stored else total)


def elevation(probabilities: Array, target: str) -> Array:
    """Give what a watershed goes by: how high each pixel stands out of the water, seeds highest.

    That is the probability of objects, or where bands of distance were learned the expected
    distance to the rim, as a share of the deepest: the sum over k of P(band >= k) / K.

    Parameters
    ----------
    probabilities : ndarray of uint8 or float, shape (K, Y, X)
        255ths, or from 0 to 1.
    target : str
        What the network learned.

    Returns
    -------
    ndarray, shape (Y, X)
        Of the dtype of `probabilities`.

    Examples
    --------
    Half of it rim, of 1/3, and half of it core:

    >>> elevation(np.array([[[0]], [[0.5]], [[0]], [[0.5]]]), "foreground+distance").round(3)
    array([[0.667]])
    """
    meaning = meaning_of(target)
    if not meaning.bands:
        return object_probability(probabilities, target)
    is_stored = probabilities.dtype == np.uint8
    total = np.zeros(probabilities.shape[1:], np.uint16 if is_stored else probabilities.dtype)
    for band in range(1, meaning.bands + 1):
        total += band * probabilities[band].astype(total.dtype)
    if not is_stored:
        return np.asarray(total / total.dtype.type(meaning.bands))
    return np.asarray(np.minimum((total + meaning.bands // 2) // meaning.bands, 255), np.uint8)


def growth_of(class_map: Array, target: str) -> Array | None:
    """Mark the pixels that objects may grow into; None where they may grow anywhere.

    Interior grows into boundary; foreground, whose gaps were cut, grows into background.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned.

    Returns
    -------
    ndarray of bool, shape (Y, X), or None
    """
    area = _with_objects(target).growth
    return None if area is None else np.asarray(class_map == area)


def instances(
    class_map: Array,
    target: str,
    *,
    min_size: int = 0,
    distance: int = 1,
    parted: Sequence[Any] | None = None,
) -> Array:
    """Find, number and grow the objects of a class map that fits in memory.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned.
    min_size : int
        Objects with fewer pixels, before they grow, are left out.
    distance : int
        How far objects grow, in pixels.
    parted : sequence of ndarray and int, optional
        Labels and count of objects that `separate` found; left out, those of `components`.

    Returns
    -------
    ndarray of uint32, shape (Y, X)
        The same ids that a tiled prediction gives.
    """
    labels, count = parted or components(foreground_of(class_map, target))
    summary = summarize(labels, count, y0=0, x0=0, width=labels.shape[1])
    kept = merge_across_blocks([summary], grid=(1, 1, 1), min_size=min_size).lookup(0)[labels]
    return grow(kept, distance=distance, within=growth_of(class_map, target))


def separate(
    elevation: Array, mask: Array, *, seed_level: float, seed_size: int
) -> tuple[Array, int]:
    """Part objects by a seeded watershed of their elevation, in an image that fits in memory.

    Parameters
    ----------
    elevation : ndarray of uint8 or float, shape (Y, X)
        255ths, or from 0 to 1: what the function of this name gives.
    mask : ndarray of bool, shape (Y, X)
        The pixels of objects.
    seed_level : float
        Seeds are at least so high.
    seed_size : int
        Seeds have at least so many pixels; what has none of them stays whole.

    Returns
    -------
    labels : ndarray of uint32, shape (Y, X)
        Ids in raster order; 0 is background.
    count : int
        How many objects there are.
    """
    heights, seeds = heights_and_seeds(elevation, seed_level)
    numbers, count = components(seeds & mask)
    large = np.bincount(numbers.ravel(), minlength=count + 1) >= seed_size
    large[0] = False
    basins = watershed(heights, mask, large[numbers])
    return basins.labels, basins.count


def grow(labels: Array, *, distance: int, within: Array | None = None) -> Array:
    """Grow instances into the free pixels around them, the nearest instance first.

    Equally near instances leave the pixel to the lower id. The result inside a block is exact
    when the block was read with `distance` pixels of context on each side.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is free.
    distance : int
        How far to grow, in pixels between pixel centres.
    within : ndarray of bool, shape (Y, X), optional
        The pixels that may be taken; everywhere when left out.

    Returns
    -------
    ndarray, shape (Y, X), of the dtype of `labels`

    Raises
    ------
    UsageError
        If `distance` is negative.
    LabelError
        If `labels` is not of an integer dtype.

    Examples
    --------
    >>> grow(np.array([[0, 0, 2, 0, 1, 0]]), distance=1)
    array([[0, 2, 2, 1, 1, 1]])
    """
    if distance < 0:
        raise UsageError(f"grow must be at least 0 pixels, got {distance}; 0 leaves objects alone")
    if labels.dtype.kind not in "iu":
        raise LabelError(f"labels must be integers, got {labels.dtype}; 0 stands for background")
    if distance == 0 or not labels.any():
        return labels.copy()
    # A distance transform of the whole block costs more than to look at a few neighbours.
    near = distance <= SHIFTED and (labels.dtype.kind == "u" or labels.min() >= 0)
    return (_grow_shifted if near else _grow_by_distance)(labels, distance, within)


# Up to this distance, in pixels, growing by shifts is the quicker way, as measured.
SHIFTED = 3


def _grow_shifted(labels: Array, distance: int, within: Array | None) -> Array:
    """Grow ring by ring: of the ids that many pixels away, a free pixel takes the lowest."""
    unsigned = labels.view(labels.dtype.str.replace("i", "u"))
    # Less one, free pixels wrap around to the highest value and lose every comparison.
    sought = np.pad(unsigned, distance) - 1
    free = unsigned == 0
    if within is not None:
        free &= within
    grown, (height, width) = unsigned.copy(), labels.shape
    steps = range(-distance, distance + 1)
    for squared in sorted({y * y + x * x for y in steps for x in steps} - {0}):
        if squared > distance**2:
            break
        lowest = np.full(labels.shape, np.iinfo(sought.dtype).max, sought.dtype)
        for y in steps:
            for x in steps:
                if y * y + x * x == squared:
                    top, left = distance + y, distance + x
                    seen = sought[top : top + height, left : left + width]
                    np.minimum(lowest, seen, out=lowest)
        lowest += 1
        np.copyto(grown, lowest, where=free)
        free &= lowest == 0
    result: Array = grown.view(labels.dtype)
    return result


def _grow_by_distance(labels: Array, distance: int, within: Array | None) -> Array:
    # Loaded where it is used: it takes longer than to grow by shifts.
    from scipy import ndimage

    grown = labels.copy()
    away = np.rint(ndimage.distance_transform_edt(labels == 0) ** 2).astype(np.int64)
    free = (away > 0) & (away <= distance**2)
    if within is not None:
        free &= within
    y, x = np.nonzero(free)
    padded = np.pad(labels, distance)
    for squared in np.unique(away[y, x]):
        ring = away[y, x] == squared
        nearest = _lowest_at(padded, y[ring] + distance, x[ring] + distance, squared=int(squared))
        grown[y[ring], x[ring]] = nearest
    return grown


def _with_objects(target: str) -> Meaning:
    """Look a target up, or say which have instances."""
    if not has_instances(target):
        names = ", ".join(filter(has_instances, TARGETS))
        raise UsageError(f"target must be one with instances, got {target!r}; try {names}")
    return meaning_of(target)


def _lowest_at(padded: Array, y: Array, x: Array, *, squared: int) -> Array:
    """Give the lowest id among the pixels exactly sqrt(squared) away from each (y, x)."""
    reach = int(np.sqrt(squared)) + 1
    steps = np.arange(-reach, reach + 1)
    dy, dx = np.nonzero(steps[:, None] ** 2 + steps**2 == squared)
    nothing = np.iinfo(padded.dtype).max
    lowest = np.full(len(y), nothing, padded.dtype)
    for down, right in zip(steps[dy], steps[dx], strict=True):
        seen = padded[y + down, x + right]
        np.minimum(lowest, np.where(seen == 0, nothing, seen), out=lowest)
    return lowest
