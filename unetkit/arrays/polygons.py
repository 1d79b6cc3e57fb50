"""Which pixels belong to polygons, exactly, from blocks of any size; the inverse of `outlines`.

Points are (x, y). On corners (0, 0) is the outer corner of the first pixel, whose centre is
(0.5, 0.5), and a pixel is in where its centre is. Where edges are shared no pixel goes to two
polygons or to none: a centre on a right or lower edge is in, on a left or upper one out.

    0   1   2  x
  0 +---+---+       the polygon (0.5, 0.5), (2, 0.5), (2, 1.5), (0.5, 1.5) has the pixel whose
    | o-|-·-|       centre is (1.5, 1.5): those at (0.5, 0.5) and (0.5, 1.5) lie on its left
  1 +-|-+---|       edge, (1.5, 0.5) on its upper one
    | o-|-·-|
  2 +---+---+
  y

On centres (0, 0) is the centre of the first pixel, and every centre on the outline is in: what
programs that trace the rim of an object write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    # Rings of points (x, y), the last not repeated, or an array (R, N, 2) of rings of one length.
    # What an odd number of them goes around is in.
    Part = Sequence[NDArray[Any]] | NDArray[Any]


@dataclass(frozen=True)
class Polygons:
    """Many shapes in a few arrays.

    Parameters
    ----------
    points : ndarray of float64, shape (N, 2)
        Of all rings, one after the other; x, y.
    rings : ndarray of int64, shape (R + 1,)
        Where each ring starts among the points.
    parts : ndarray of int64, shape (P + 1,)
        Where each part starts among the rings.
    shapes : ndarray of int64, shape (P,)
        The shape of which each is a part, ascending; the parts of a shape are added.
    on_centres : ndarray of bool, shape (P,)
        Whether a part's points are counted from the centre of the first pixel, its outline
        included.
    """

    points: Floats
    rings: Ints
    parts: Ints
    shapes: Ints
    on_centres: NDArray[np.bool_]

    @property
    def boxes(self) -> Floats:
        """The extent of each part (P, 4), on corners: least x and y, greatest x and y."""
        starts = self.rings[self.parts[:-1]]
        if not len(starts):
            return np.empty((0, 4))
        low = np.minimum.reduceat(self.points, starts)
        high = np.maximum.reduceat(self.points, starts)
        grown = self.on_centres[:, np.newaxis]
        return np.hstack([low, high + np.where(grown, 1, 0)])


def joined(shapes: Sequence[Sequence[Part]], on_centres: Sequence[bool]) -> Polygons:
    """Lay shapes out in arrays.

    Parameters
    ----------
    shapes : sequence of sequence of sequence of ndarray, shape (N, 2)
        The parts of each shape, and their rings.
    on_centres : sequence of bool
        Of each shape, whether its points are counted from the centre of the first pixel.

    Returns
    -------
    Polygons
    """
    parts = [part for shape in shapes for part in shape]
    counts = [len(shape) for shape in shapes]
    points = [
        np.reshape(part, (-1, 2)) if _is_array(part) else np.concatenate(list(part))
        for part in parts
    ]
    lengths = [
        np.full(len(part), part.shape[1]) if _is_array(part) else [len(ring) for ring in part]
        for part in parts
    ]
    return Polygons(
        np.concatenate([np.empty((0, 2)), *points]).astype(np.float64, copy=False),
        _starts(np.concatenate([np.empty(0, np.int64), *lengths])),
        _starts([len(part) for part in parts]),
        np.repeat(np.arange(len(shapes)), counts),
        np.repeat(np.array(on_centres, np.bool_), counts),
    )


def _is_array(part: Part) -> TypeGuard[NDArray[Any]]:
    return isinstance(part, np.ndarray)


def _starts(lengths: Sequence[int] | Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


@dataclass
class Painter:
    """Paints shapes over each other, block by block, and counts their pixels.

    Parameters
    ----------
    polygons : Polygons
        What is painted.
    values : ndarray of int, shape (S,)
        What each shape becomes; two of one value do not count as an overlap.
    order : ndarray of int, shape (S,), optional
        When each shape is painted; the last one stays. By default one after the other.

    Attributes
    ----------
    drawn, kept : ndarray of int64, shape (S,)
        Pixels of each shape, and those that no other went over, in the blocks so far.
    overlapping : ndarray of int64, shape (3,)
        Pixels that were painted with several values, and the first two such shapes.
    """

    polygons: Polygons
    values: NDArray[Any]
    order: Ints | None = None
    drawn: Ints = field(init=False)
    kept: Ints = field(init=False)
    overlapping: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.drawn = np.zeros(len(self.values), np.int64)
        self.kept = np.zeros(len(self.values), np.int64)
        self.overlapping = np.array([0, -1, -1])
        self._boxes = self.polygons.boxes
        when = np.arange(len(self.values)) if self.order is None else self.order
        self._by_order = np.argsort(when[self.polygons.shapes], kind="stable")

    def paint(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any] | None:
        """Paint a block.

        Parameters
        ----------
        y0, y1, x0, x1 : int
            Its rows and columns, the ends excluded.

        Returns
        -------
        ndarray, shape (Y, X), or None
            The values, 0 where no shape is; None if there is none in the block.
        """
        left, top, right, bottom = self._boxes.T
        here = (left < x1) & (right > x0) & (top < y1) & (bottom > y0)
        chosen = self._by_order[here[self._by_order]]
        if not len(chosen):
            return None
        owners = np.zeros((y1 - y0, x1 - x0), np.int32)
        painted = np.empty(owners.shape, self.values.dtype)
        shapes = self.polygons
        _paint(
            owners,
            (y0, x0),
            chosen,
            (shapes.points, shapes.rings, shapes.parts, shapes.shapes, shapes.on_centres),
            self._boxes,
            self.values,
            (self.drawn, self.kept, self.overlapping),
        )
        _name(owners, self.values, painted)
        return painted


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _paint(
    owners: Any, corner: Any, chosen: Any, shapes: Any, boxes: Any, values: Any, counts: Any
) -> None:
    """Fill parts in their order; `owners` hold the number of a shape + 1."""
    points, rings, parts, belongs, on_centres = shapes
    drawn, kept, overlapping = counts
    y0, x0 = corner
    high, wide = owners.shape
    for part in chosen:
        low_x, low_y, high_x, high_y = boxes[part]
        top, left = max(0, int(np.floor(low_y)) - y0), max(0, int(np.floor(low_x)) - x0)
        bottom = min(high, int(np.ceil(high_y)) - y0)
        right = min(wide, int(np.ceil(high_x)) - x0)
        inside = np.zeros((max(0, bottom - top), max(0, right - left)), np.uint8)
        starts = rings[parts[part] : parts[part + 1] + 1]
        _fill(inside, points, starts, y0 + top, x0 + left, on_centres[part])
        shape = belongs[part]
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                before = owners[top + y, left + x] - 1
                if not inside[y, x] or before == shape:
                    continue
                drawn[shape] += 1
                kept[shape] += 1
                owners[top + y, left + x] = shape + 1
                if before >= 0:
                    kept[before] -= 1
                    if values[before] != values[shape]:
                        if not overlapping[0]:
                            overlapping[1:] = before, shape
                        overlapping[0] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _name(owners: Any, values: Any, painted: Any) -> None:
    """Give pixels the values of the shapes that own them."""
    for y in range(owners.shape[0]):
        for x in range(owners.shape[1]):
            owner = owners[y, x]
            painted[y, x] = values[owner - 1] if owner else 0


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _fill(inside: Any, points: Any, starts: Any, y0: int, x0: int, on_centres: bool) -> None:
    """Set the pixels that an odd number of rings goes around; `inside` starts as 0."""
    height, width = inside.shape
    half = 0.0 if on_centres else 0.5
    for ring in range(len(starts) - 1):
        first, last = starts[ring], starts[ring + 1]
        for k in range(first, last):
            ax, ay, bx, by = _edge(points, k, first, last)
            if ay == by:
                continue
            low = max(_first_beyond(ay, half), y0)
            for row in range(low, min(_first_beyond(by, half), y0 + height)):
                column = _first_beyond(_crossing(ax, ay, bx, by, row + half), half) - x0
                if column < width:
                    inside[row - y0, max(column, 0)] ^= 1
    for row in range(height):
        for column in range(1, width):
            inside[row, column] ^= inside[row, column - 1]
    if on_centres:
        for ring in range(len(starts) - 1):
            first, last = starts[ring], starts[ring + 1]
            for k in range(first, last):
                _mark(inside, _edge(points, k, first, last), y0, x0)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _edge(points: Any, k: int, first: int, last: int) -> Any:
    """Return an edge from its upper end, so that both polygons that share it reckon alike."""
    other = k + 1 if k + 1 < last else first
    ax, ay, bx, by = points[k, 0], points[k, 1], points[other, 0], points[other, 1]
    if ay > by or (ay == by and ax > bx):
        return bx, by, ax, ay
    return ax, ay, bx, by


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _first_beyond(value: float, half: float) -> int:
    """Return the first n of which n + half is greater than a value."""
    n = int(np.floor(value - half))
    while n + half <= value:
        n += 1
    while n - 1 + half > value:
        n -= 1
    return n


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _crossing(ax: float, ay: float, bx: float, by: float, y: float) -> float:
    """Return where an edge passes a height between its ends."""
    if y == by:
        return bx
    return ax + (y - ay) * (bx - ax) / (by - ay)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _mark(inside: Any, edge: Any, y0: int, x0: int) -> None:
    """Set the pixels whose centres lie on an edge."""
    ax, ay, bx, by = edge
    height, width = inside.shape
    for row in range(max(int(np.ceil(ay)), y0), min(int(np.floor(by)) + 1, y0 + height)):
        first = last = np.rint(_crossing(ax, ay, bx, by, row))
        if ay == by:
            first, last = np.ceil(ax), np.floor(bx)
        elif (first - ax) * (by - ay) != (row - ay) * (bx - ax):
            continue
        for column in range(max(int(first), x0), min(int(last) + 1, x0 + width)):
            inside[row - y0, column - x0] = 1


def self_crossings(polygons: Polygons) -> Floats:
    """Find where rings cross themselves.

    A ring may touch itself at points and along edges, as those of pixels do.

    Parameters
    ----------
    polygons : Polygons
        Of any number of shapes.

    Returns
    -------
    ndarray of float64, shape (N, 3)
        The number of a shape, x and y of the first crossing in one of its rings.
    """
    found = _self_crossings(polygons.points, polygons.rings)
    rings = np.flatnonzero(~np.isnan(found[:, 0]))
    parts = np.searchsorted(polygons.parts, rings, side="right") - 1
    shapes, first = np.unique(polygons.shapes[parts], return_index=True)
    return np.column_stack([shapes, found[rings[first]]])


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _self_crossings(points: Any, rings: Any) -> Any:
    """Give each ring the place of a crossing, or NaN."""
    found = np.full((len(rings) - 1, 2), np.nan)
    for ring in range(len(rings) - 1):
        first, last = rings[ring], rings[ring + 1]
        count = last - first
        edges = np.empty((count, 4))
        for k in range(count):
            edges[k] = _edge(points, first + k, first, last)
        edges = edges[np.argsort(edges[:, 1], kind="mergesort")]
        for k in range(count):
            ax, ay, bx, by = edges[k]
            for other in range(k + 1, count):
                cx, cy, dx, dy = edges[other]
                if cy >= by or not np.isnan(found[ring, 0]):
                    break
                if max(cx, dx) <= min(ax, bx) or min(cx, dx) >= max(ax, bx):
                    continue
                c = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
                d = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
                a = (dx - cx) * (ay - cy) - (dy - cy) * (ax - cx)
                b = (dx - cx) * (by - cy) - (dy - cy) * (bx - cx)
                if ((c > 0 and d < 0) or (c < 0 and d > 0)) and (
                    (a > 0 and b < 0) or (a < 0 and b > 0)
                ):
                    share = c / (c - d)
                    found[ring] = cx + share * (dx - cx), cy + share * (dy - cy)
    return found
