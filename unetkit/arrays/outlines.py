"""Exact outlines of objects along the edges of their pixels, from blocks of any size.

Each edge between an object and what is not the object is one number; the edges of all blocks
together make the same rings as those of the whole image. A vertex is a pixel's corner:

    0   1   2  x
  0 +-->+-->+        an object of three pixels: its ring runs clockwise as seen on a screen,
    ^       |        which is the order that GeoJSON asks for where y grows upwards,
  1 +       v        and the holes run the other way
    ^   +<--+
    |   v
  2 +<--+
  y
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    # One ring each: corners (x, y), the last not repeated; the outer ring first, then its holes.
    Polygon = list[Ints]


# Towards which side a pixel lies, and where the edge along that side begins and which way it runs:
# (neighbour's y, x), (start's y, x); edges run right, down, left, up.
SIDES = (((-1, 0), (0, 0)), ((0, 1), (0, 1)), ((1, 0), (1, 1)), ((0, -1), (1, 0)))


def edges(rimmed: NDArray[Any], *, y0: int, x0: int, width: int) -> tuple[NDArray[Any], Ints]:
    """List the edges of the objects in a block.

    Parameters
    ----------
    rimmed : ndarray of int, shape (Y + 2, X + 2)
        Ids of a block and of the pixels around it; 0 is background and what lies beyond the image.
    y0, x0 : int
        Where the block's first pixel lies.
    width : int
        Width of the image, in pixels.

    Returns
    -------
    ids : ndarray of int, shape (N,)
        Whose edge each is.
    codes : ndarray of int64, shape (N,)
        The number of the corner at which the edge begins, times 4, plus the way it runs.
    """
    height, across = rimmed.shape
    inner = rimmed[1:-1, 1:-1]
    ids, codes = [], []
    for way, ((dy, dx), (sy, sx)) in enumerate(SIDES):
        beside = rimmed[1 + dy : height - 1 + dy, 1 + dx : across - 1 + dx]
        y, x = np.nonzero((inner != 0) & (inner != beside))
        ids.append(inner[y, x])
        codes.append(((y + (y0 + sy)) * (width + 1) + x + (x0 + sx)) * 4 + way)
    return np.concatenate(ids), np.concatenate(codes).astype(np.int64)


def polygons(
    ids: NDArray[Any], codes: Ints, *, height: int, width: int
) -> Iterator[tuple[int, list[Polygon]]]:
    """Join the edges of whole objects into polygons.

    Pixels that touch at a corner only are not connected: an object of several parts has several
    polygons. Rings may touch themselves or each other at corners, but never cross.

    Parameters
    ----------
    ids, codes : ndarray, shape (N,)
        As `edges` returns them, from all blocks in which the objects lie, in any order.
    height, width : int
        Of the image, in pixels.

    Yields
    ------
    tuple of int and list of Polygon
        An id and its polygons from top to bottom; ids in ascending order.
    """
    found, dense = np.unique(ids, return_inverse=True)
    stride = width + 1
    # Objects are laid one below the other, so that no two share a corner.
    sheet = stride * (height + 2)
    count = max(1, 2**60 // (4 * sheet))
    for first in range(0, len(found), count):
        chosen = (dense >= first) & (dense < first + count)
        laid = np.sort(codes[chosen] + (dense[chosen] - first) * (4 * sheet))
        order, ends = _loops(*_follow(laid, stride))
        loops = np.split(laid[order], ends[:-1])
        made: list[list[Polygon]] = [[] for _ in found[first : first + count]]
        for polygon, number in _grouped(laid, order, ends, loops, stride=stride, sheet=sheet):
            made[number].append(polygon)
        yield from zip(found[first : first + count].tolist(), made, strict=True)


def _follow(laid: Ints, stride: int) -> tuple[Ints, Ints]:
    """Find the edge after each: where two go on, the one along the same pixel."""
    start, way = laid >> 2, laid & 3
    end = start + np.array([1, stride, -1, -stride])[way]
    following = np.full(len(laid), -1, np.int64)
    # Turning right stays at the pixel; straight on and left come where there is no such edge.
    for turn in (3, 0, 1):
        wanted = (end << 2) | ((way + turn) & 3)
        place = np.minimum(np.searchsorted(laid, wanted), len(laid) - 1)
        following = np.where(laid[place] == wanted, place, following)
    return np.searchsorted(start, start), following


@njit(nogil=True, cache=is_kept())  # type: ignore[untyped-decorator]
def _loops(corner: Ints, following: Ints) -> tuple[Ints, Ints]:
    """Walk along the edges, and cut off a loop wherever a walk comes back to a corner.

    Returns the edges of all loops, one loop after the other, and where each of them ends.
    """
    count = len(corner)
    order, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    used = np.zeros(count, np.bool_)
    walk, passed = np.empty(count, np.int64), np.full(count, -1, np.int64)
    filled, loops = 0, 0
    for first in range(count):
        length, edge = 0, first
        while not used[edge]:
            used[edge] = True
            back = passed[corner[edge]]
            if back >= 0:
                for step in range(back, length):
                    order[filled] = walk[step]
                    passed[corner[walk[step]]] = -1
                    filled += 1
                length = back
                ends[loops] = filled
                loops += 1
            passed[corner[edge]] = length
            walk[length] = edge
            length += 1
            edge = following[edge]
        for step in range(length):
            order[filled] = walk[step]
            passed[corner[walk[step]]] = -1
            filled += 1
        if length:
            ends[loops] = filled
            loops += 1
    return order, ends[:loops]


def _grouped(
    laid: Ints, order: Ints, ends: Ints, loops: list[Ints], *, stride: int, sheet: int
) -> Iterator[tuple[Polygon, int]]:
    """Give each outer ring its holes; yields them with their objects' numbers."""
    rings = [_ring(loop, stride) for loop in loops]
    belongs = np.empty(len(laid), np.int64)
    belongs[order] = np.repeat(np.arange(len(loops)), np.diff(ends, prepend=0))
    upward = np.flatnonzero((laid & 3) == 3)
    rising = laid[upward] >> 2
    owner: dict[int, int] = {}
    holes: dict[int, list[int]] = {}
    # A ring's first corner is its highest, and the leftmost of those.
    by_place = sorted(range(len(rings)), key=lambda n: (rings[n][0, 1], rings[n][0, 0]))
    for number in by_place:
        if _is_outer(rings[number]):
            owner[number] = number
            holes[number] = []
            continue
        # Left of a hole's first pixel lies the object, up to the nearest edge that runs up: that
        # is its outer ring's, or that of a hole that was met before.
        x, y = rings[number][0]
        nearest = np.searchsorted(rising, (y + 1) * stride + x - 1, side="right") - 1
        owner[number] = owner[int(belongs[upward[nearest]])]
        holes[owner[number]].append(number)
    for outer in holes:
        sheet_number = int(rings[outer][0, 1]) * stride // sheet
        shift = np.array([0, sheet_number * (sheet // stride)])
        yield [rings[n] - shift for n in (outer, *holes[outer])], sheet_number


def _ring(loop: Ints, stride: int) -> Ints:
    """Return the corners of a loop at which it turns, from its highest, leftmost one on."""
    way = loop & 3
    turns = loop[way != np.roll(way, 1)] >> 2
    turns = np.roll(turns, -int(turns.argmin()))
    return np.stack([turns % stride, turns // stride], axis=-1)


def _is_outer(ring: Ints) -> bool:
    """Tell an outer ring by the corner where it begins: there it runs to the right."""
    return bool(ring[1, 1] == ring[0, 1])
