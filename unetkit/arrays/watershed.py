"""A seeded watershed, by blocks of an image, that parts it as one of the whole image does.

Water rises from the seeds. Along a path it *arrives* at a pixel at (level, steps): the highest
pixel that it had to pass, and how many steps it took since it first stood so high; the earlier of
two arrivals is the lower pair, and seeds come before all else, the lowest first. A pixel's arrival
is the earliest over all paths, and it belongs to the neighbour that was reached first, of several
the first in raster order. So nothing but pixels decides. Where no heights are equal, and none is
lower than a seed, the parts are those of scikit-image; on flat ground floods meet half-way in both,
and what is equally near goes by pixels here, by the order of seeds there.

Blocks know no more of each other than the arrivals along their faces, and are flooded again until
these stay. That is exact, without any halo: a step never makes an arrival earlier, so that a block
given arrivals of real paths around it computes the earliest ones of the paths that it was told of.
They only become earlier from round to round, and when nothing changes, every pixel has the
earliest arrival by way of any neighbour. Were one later than on its best path, the first such
pixel of that path would have a neighbour that is right, and could not be late.

Nothing passes from one connected object to another, so that only what two seeds share is flooded,
and what touches a face, where others may come from. All else belongs to its one seed, or has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np

from unetkit.arrays.components import components, sizes_and_first_pixels
from unetkit.errors import UsageError
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]
Side = Literal["top", "left", "right", "bottom"]
OPPOSITE: dict[Side, Side] = {"top": "bottom", "left": "right", "right": "left", "bottom": "top"}

# An arrival is level * 2^48 + steps. Seeds are there before the water rises, at their height less
# 256; an object without a seed is never reached; what is no object lets nothing pass.
STEPS = np.int64(48)
BEFORE = np.int64(-256)
BARRIER = np.int64(np.iinfo(np.int64).max)
UNREACHED = np.int64(BARRIER - 1)
HIGHEST = 255


@dataclass(frozen=True)
class FloodedFace:
    """What a flooded block tells along one of its faces.

    Attributes
    ----------
    arrival : ndarray of int64, shape (N,)
        When the water arrived at each pixel; later ones for no seed in reach, and for no object.
    from_beyond : ndarray of bool, shape (N,)
        Whether it came across the face, so that the pixel belongs to the one beyond.
    """

    arrival: Array
    from_beyond: Array


@dataclass(frozen=True)
class Basins:
    """A flooded block.

    Attributes
    ----------
    labels : ndarray of uint32, shape (Y, X)
        Its own numbers of what belongs together inside it, in raster order; 0 is background.
    count : int
        The highest of them.
    flooded_faces : dict of FloodedFace
        By side.
    """

    labels: Array
    count: int
    flooded_faces: Mapping[Side, FloodedFace]


def check_seed_level(seed_level: float) -> None:
    """Refuse what is no probability at which an object is sure."""
    if not 0 < seed_level <= 1:
        raise UsageError(
            f"seed-level must be above 0 and at most 1, got {seed_level}; "
            f"leave it out to use {SEED_LEVEL}"
        )


# Our choice: what a network is sure of, and no speck.
SEED_LEVEL, SEED_SIZE = 0.9, 20


def heights_and_seeds(elevation: Array, seed_level: float = SEED_LEVEL) -> tuple[Array, Array]:
    """Turn the probability of objects, or an expected distance, into heights, and find the seeds.

    Parameters
    ----------
    elevation : ndarray of uint8 or float, shape (Y, X)
        255ths, or from 0 to 1; both give the same.
    seed_level : float
        Seeds are pixels of at least this elevation, as it is in 255ths.

    Returns
    -------
    heights : ndarray of uint8, shape (Y, X)
        Low where objects are sure.
    seeds : ndarray of bool, shape (Y, X)

    Raises
    ------
    UsageError
        If `seed_level` is no probability.
    """
    check_seed_level(seed_level)
    if elevation.dtype != np.uint8:
        elevation = np.rint(elevation * 255).astype(np.uint8)
    lowest = np.argmax(np.arange(256) / 255 >= seed_level)
    return HIGHEST - elevation, elevation >= lowest


def watershed(
    heights: Array, mask: Array, seeds: Array, *, around: Mapping[Side, Array] | None = None
) -> Basins:
    """Part the objects of a block where the floods of two seeds meet.

    An object without a seed stays whole, and so does one with a single seed. Neighbours are the
    four pixels beside each, as for `components`.

    Parameters
    ----------
    heights : ndarray of uint8, shape (Y, X)
        Where water stands last it parts: 255 less the probability of objects.
    mask : ndarray of bool, shape (Y, X)
        The pixels of objects.
    seeds : ndarray of bool, shape (Y, X)
        Connected ones are one seed; those outside the mask do not count.
    around : dict of ndarray of int64, optional
        By side, the arrivals along the face of the block beyond, where there is one.

    Returns
    -------
    Basins

    Examples
    --------
    Two seeds with a bridge between them:

    >>> heights = np.array([[0, 0, 9, 9, 9, 0]], np.uint8)
    >>> watershed(heights, heights < 10, heights < 1).labels
    array([[1, 1, 1, 1, 2, 2]], dtype=uint32)
    """
    objects, count = components(mask)
    contested = _at_faces(objects, count) | _shared(objects, count, seeds & mask)
    arrival = _flooded(heights, objects, seeds, around or {}, wet=contested)
    origin = _origins(arrival.reshape(-1), arrival.shape[1])
    flooded_faces = {
        side: FloodedFace(
            arrival[_line(side, 1)].copy(),
            origin.reshape(arrival.shape)[_line(side, 1)] == _places(side, arrival.shape),
        )
        for side in OPPOSITE
    }
    labels = np.zeros(mask.shape, np.uint32)
    return Basins(labels, _number(origin, objects, count, labels), flooded_faces)


def arrivals(
    heights: Array, mask: Array, seeds: Array, *, around: Mapping[Side, Array] | None = None
) -> dict[Side, Array]:
    """Give the arrivals along the faces of a block, as `watershed` finds them; takes less time.

    Parameters
    ----------
    heights, mask, seeds, around
        As for `watershed`.

    Returns
    -------
    dict of ndarray of int64
        By side.
    """
    objects, count = components(mask)
    wet = _at_faces(objects, count)
    arrival = _flooded(heights, objects, seeds, around or {}, wet=wet)
    return {side: arrival[_line(side, 1)].copy() for side in OPPOSITE}


class FloodExchange:
    """What the blocks of a grid know of one another while they are flooded, round by round.

    Parameters
    ----------
    grid : tuple of int
        (planes, rows of blocks, blocks in a row); blocks are numbered in that order.

    Attributes
    ----------
    outdated : list of int
        Blocks for which it matters what has become known since they were flooded; at first all.
    """

    def __init__(self, grid: tuple[int, int, int]) -> None:
        self._grid = grid
        self._lines: dict[int, Mapping[Side, Array]] = {}
        self._known: dict[int, dict[Side, Array]] = {}
        self.outdated = list(range(math.prod(grid)))

    def around(self, number: int) -> dict[Side, Array]:
        """Give the arrivals beyond the faces of a block, as they are known by now.

        Parameters
        ----------
        number : int
            The block.

        Returns
        -------
        dict of ndarray of int64
            By side, as `watershed` takes them.
        """
        _, rows, columns = self._grid
        plane, place = divmod(number, rows * columns)
        row, column = divmod(place, columns)
        places: dict[Side, tuple[int, int]] = {
            "top": (row - 1, column),
            "left": (row, column - 1),
            "right": (row, column + 1),
            "bottom": (row + 1, column),
        }
        found: dict[Side, Array] = {}
        for side, (y, x) in places.items():
            beyond = (plane * rows + y) * columns + x
            if 0 <= y < rows and 0 <= x < columns and beyond in self._lines:
                found[side] = self._lines[beyond][OPPOSITE[side]]
        return found

    def update(self, found: Mapping[int, Mapping[Side, Array]]) -> None:
        """Take note of a round, and see what is outdated by it.

        Parameters
        ----------
        found : dict
            Of each block that was flooded with what `around` gave, the arrivals along its faces.
        """
        self._known |= {number: self.around(number) for number in found}
        self._lines |= found
        self.outdated = [number for number in self._lines if self._is_outdated(number)]

    def _is_outdated(self, number: int) -> bool:
        known, lines = self._known[number], self._lines[number]
        return any(
            _changes_a_face(lines[side], known.get(side), now)
            for side, now in self.around(number).items()
        )


def _changes_a_face(own: Array, known: Array | None, now: Array) -> bool:
    """Tell whether other arrivals beyond a face change anything on this side of it."""
    # What is not earlier beyond than here comes from here, and a seed from nowhere.
    before = own if known is None else np.minimum(known, own)
    return bool(((np.minimum(now, own) != before) & (own >= 0)).any())


def same_basin(one: FloodedFace, other: FloodedFace) -> Array:
    """Tell at which pixels of a face both sides are one object.

    Parameters
    ----------
    one, other : FloodedFace
        Of the two blocks, along the face between them.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    seeds = (one.arrival < 0) & (other.arrival < 0)
    unreached = (one.arrival == UNREACHED) & (other.arrival == UNREACHED)
    return np.asarray(one.from_beyond | other.from_beyond | seeds | unreached)


def _line(side: Side, depth: int) -> tuple[slice | int, slice | int]:
    """Index the line along a side, so deep below the edge of an array with a rim of one pixel."""
    inner = slice(1, -1)
    lines: dict[Side, tuple[slice | int, slice | int]] = {
        "top": (depth, inner),
        "left": (inner, depth),
        "right": (inner, -1 - depth),
        "bottom": (-1 - depth, inner),
    }
    return lines[side]


def _places(side: Side, shape: tuple[int, ...]) -> Array:
    """Give where the pixels along a side of such a rim lie in the raveled array."""
    height, width = shape
    start = {"top": 1, "left": width, "right": 2 * width - 1, "bottom": (height - 1) * width + 1}
    step, count = (1, width - 2) if side in ("top", "bottom") else (width, height - 2)
    return start[side] + step * np.arange(count)


def _at_faces(objects: Array, count: int) -> Array:
    """Tell of each of the objects of a block, from 0, which is none, whether it touches a face."""
    found = np.zeros(count + 1, bool)
    for line in (objects[0], objects[-1], objects[:, 0], objects[:, -1]):
        found[line] = True
    found[0] = False
    return found


def _shared(objects: Array, count: int, seeds: Array) -> Array:
    """Tell of each of the objects of a block, likewise, whether it has several seeds."""
    _, first = sizes_and_first_pixels(*components(seeds))
    return np.bincount(objects.reshape(-1)[first], minlength=count + 1) > 1


def _flooded(
    heights: Array, objects: Array, seeds: Array, around: Mapping[Side, Array], *, wet: Array
) -> Array:
    """Return arrivals of shape (Y + 2, X + 2); the rim shows what is beyond the faces.

    Only those objects are flooded that are `wet`.
    """
    height, width = objects.shape
    arrival = np.full((height + 2, width + 2), BARRIER)
    _sow(arrival, heights, objects, wet, seeds)
    flat = arrival.reshape(-1)
    first, later = np.flatnonzero(flat < 0), [np.empty(0, np.int64)]
    for side, line in around.items():
        # What waits beyond for water has none to give, and is not this block's to flood.
        arrival[_line(side, 0)] = np.where(line == UNREACHED, BARRIER, line)
        places = _places(side, arrival.shape)
        later.append(places[line < UNREACHED])
    beyond = np.concatenate(later)
    beyond = beyond[np.argsort(flat[beyond])]
    _flood(flat, np.pad(heights, 1).reshape(-1), width + 2, np.concatenate([first, beyond]))
    return arrival


@numba.njit(nogil=True, cache=is_kept())
def _sow(arrival, heights, objects, wet, seeds):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Let seeds be there before the water rises, and all other pixels of wet objects wait."""
    for y in range(objects.shape[0]):
        for x in range(objects.shape[1]):
            if wet[objects[y, x]]:
                sown = BEFORE + np.int64(heights[y, x])
                arrival[y + 1, x + 1] = sown if seeds[y, x] else UNREACHED


@numba.njit(nogil=True, cache=is_kept())
def _flood(arrival, heights, width, sources):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Reach each pixel once, in the order of arrival: a queue a level, `sources` in between."""
    following = np.empty(arrival.size, np.int32)
    first, last = np.full(256, -1, np.int32), np.full(256, -1, np.int32)
    beside, size, source = (-width, -1, 1, width), arrival.size, 0
    for level in range(256):
        while True:
            i = first[level]
            beyond = arrival[sources[source]] if source < sources.size else BARRIER
            if beyond >> STEPS <= level and (i < 0 or beyond <= arrival[i]):
                i, source = sources[source], source + 1
            elif i < 0:
                break
            else:
                first[level] = following[i]
            for k in range(4):
                j = i + beside[k]
                if j < 0 or j >= size or arrival[j] != UNREACHED:
                    continue
                queue = heights[j]
                if arrival[i] < 0 or queue > level:
                    arrival[j] = np.int64(queue) << STEPS
                else:
                    queue = level
                    arrival[j] = arrival[i] + 1
                following[j] = -1
                if first[queue] < 0:
                    first[queue] = j
                else:
                    following[last[queue]] = j
                last[queue] = j


@numba.njit(nogil=True, cache=is_kept())
def _origins(arrival, width):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Name the pixel that each belongs to; of seeds and of what is never reached an earlier one.

    Beyond the faces, and where no object is, it is -1.
    """
    origin = np.full(arrival.size, -1, np.int32)
    for i in range(width + 1, arrival.size - width - 1):
        if i % width == 0 or i % width == width - 1 or arrival[i] == BARRIER:
            continue
        origin[i] = i
        if arrival[i] < 0 or arrival[i] == UNREACHED:
            for j in (i - width, i - 1):
                if origin[j] >= 0 and (arrival[j] == arrival[i] or max(arrival[i], arrival[j]) < 0):
                    one, other = _source(origin, i), _source(origin, j)
                    origin[max(one, other)] = min(one, other)
            continue
        for j in (i - width, i - 1, i + 1, i + width):
            if arrival[j] < arrival[origin[i]]:
                origin[i] = j
    return origin


@numba.njit(nogil=True, cache=is_kept())
def _source(origin, i):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Follow origins to the end, and shorten the way for the next one."""
    while origin[i] != i and origin[origin[i]] >= 0:
        if origin[origin[origin[i]]] >= 0:
            origin[i] = origin[origin[i]]
        i = origin[i]
    return i


@numba.njit(nogil=True, cache=is_kept())
def _number(origin, objects, most, labels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Give one number to all that has one source, or is one object, in raster order."""
    count, width = 0, objects.shape[1] + 2
    of_source, of_object = np.zeros(origin.size, np.uint32), np.zeros(most + 1, np.uint32)
    for y in range(objects.shape[0]):
        for x in range(objects.shape[1]):
            if objects[y, x] == 0:
                continue
            i = (y + 1) * width + x + 1
            flooded = origin[i] >= 0
            place = _source(origin, i) if flooded else np.int64(objects[y, x])
            numbers = of_source if flooded else of_object
            if numbers[place] == 0:
                count += 1
                numbers[place] = count
            labels[y, x] = numbers[place]
    return count
