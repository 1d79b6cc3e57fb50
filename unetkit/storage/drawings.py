"""Shapes as they were drawn on an image, and the rings of points that they are made of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    # Rings of points (x, y), or an array (R, N, 2) of them; a pixel is inside of an odd number.
    Part = Sequence[NDArray[Any]] | NDArray[Any]

Convention = Literal["corners", "centres"]
# The class of what lies in no shape.
BACKGROUND = "background"
# Our own choice: no image has a side of more pixels, and float64 is exact to far below a pixel.
FARTHEST = 1e9


@dataclass(frozen=True)
class Shape:
    """An object as it was drawn."""

    parts: Sequence[Part]  # which are added
    label: str | None = None  # the class
    name: str = ""
    plane: tuple[int, int] | None = None  # t and z, where the file says it
    is_mask: bool = False  # whether it was painted, so that its rings are pixels' edges
    group: Any = None  # those of one class and group are one object


@dataclass
class Drawing:
    """What a file says of one image."""

    path: str
    convention: Convention  # where points are counted from
    image: str | None = None  # the name of its file, where this file says it
    size: tuple[int, int] | None = None  # height, width
    shapes: list[Shape] = field(default_factory=list)
    empty: int = 0  # objects that their program could not draw
    flat: Counter[str] = field(default_factory=Counter)  # kinds of shapes without an area

    @property
    def half(self) -> float:
        """Where the centre of the first pixel lies."""
        return 0.0 if self.convention == "centres" else 0.5

    def add(self, shape: Shape, *, flat: str | None = None) -> None:
        """Add a shape, or count one without an area of the kind `flat`, or one without points."""
        if flat is not None:
            self.flat[flat] += 1
        elif any(len(part) for part in shape.parts):
            self.shapes.append(shape)
        else:
            self.empty += 1


def base(name: str) -> str:
    """Return a file's name without its folders, whichever system wrote it."""
    return re.split(r"[\\/]", name)[-1]


def as_ring(points: Any) -> NDArray[np.float64]:
    """Check points (x, y); the last is left out where it repeats the first."""
    ring = np.asarray(points, np.float64)
    if not ring.size:
        return np.empty((0, 2))
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError(f"a ring must be a list of points, got {str(points)[:60]}")
    ring = ring[:, :2]
    if not (np.abs(ring) < FARTHEST).all():
        raise ValueError("coordinates must be numbers of pixels, got others")
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def as_part(rings: Sequence[Any]) -> list[NDArray[np.float64]]:
    """Check the rings of a part; those without points are left out."""
    return [ring for ring in map(as_ring, rings) if len(ring)]


def box_part(
    x0: float, y0: float, x1: float, y1: float, *, angle: float = 0
) -> list[NDArray[np.float64]]:
    """Make a part of a box, turned about its middle by radians, clockwise as seen on a screen."""
    ring = as_ring([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if not angle:
        return [ring]
    middle, cos, sin = ring.mean(axis=0), np.cos(angle), np.sin(angle)
    return [(ring - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle]


def rectangles(x0: Any, y0: Any, x1: Any, y1: Any) -> NDArray[np.float64]:
    """Make a part of boxes that lie apart: an array (N, 4, 2) of rings."""
    left, top, right, bottom = np.broadcast_arrays(*np.atleast_1d(x0, y0, x1, y1))
    rings = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return np.moveaxis(np.array(rings, np.float64), -1, 0)


def runs_by_row(mask: NDArray[Any], *, x0: int, y0: int) -> NDArray[np.float64]:
    """Make a part of the pixels of a mask (Y, X) whose first one lies at a place."""
    padded = np.pad(mask.astype(bool), ((0, 0), (1, 1))).astype(np.int8)
    y, x = np.nonzero(np.diff(padded, axis=1))
    y, start, end = y[::2] + y0, x[::2] + x0, x[1::2] + x0
    return rectangles(start, y, end, y + 1)


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], *, angle: float, half: float
) -> NDArray[np.float64]:
    """Make a part of the pixels whose centres, at n + `half`, lie in an ellipse, rim included.

    `angle` is in radians, clockwise as seen on a screen.
    """
    (cx, cy), (rx, ry) = centre, radii
    if not (0 < rx < FARTHEST / 4 and 0 < ry < FARTHEST / 4 and max(abs(cx), abs(cy)) < FARTHEST):
        return np.empty((0, 4, 2))
    cos, sin = np.cos(angle), np.sin(angle)
    # (x, y) is in where a x^2 + 2 b x y + c y^2 <= 1.
    a, b, c = (
        (cos / rx) ** 2 + (sin / ry) ** 2,
        cos * sin * (1 / rx**2 - 1 / ry**2),
        (sin / rx) ** 2 + (cos / ry) ** 2,
    )
    high = np.hypot(rx * sin, ry * cos)
    rows = np.arange(np.ceil(cy - high - half), np.floor(cy + high - half) + 1)
    y = rows + half - cy
    inside = (b * y) ** 2 - a * (c * y**2 - 1)
    rows, y, wide = rows[inside >= 0], y[inside >= 0], np.sqrt(inside[inside >= 0]) / a
    start = np.ceil(cx - b * y / a - wide - half)
    end = np.floor(cx - b * y / a + wide - half) + 1
    there = end > start
    return rectangles(start[there], rows[there], end[there], rows[there] + 1)
