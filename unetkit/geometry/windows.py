"""Windows of one size over an image, half a side apart, and the cells that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


def window_starts(length: int, side: int) -> list[int]:
    """Return where windows begin along an axis, every half side; the last one ends with the axis.

    >>> window_starts(11, 4), window_starts(3, 4)
    ([0, 2, 4, 6, 7], [0])
    """
    last = max(0, length - side)
    return [*range(0, last, max(1, side // 2)), last]


@dataclass(frozen=True)
class Windows:
    """All windows of a plane, and the cells between any of their edges.

    ::

        window 0  |-----------|
        window 1        |-----------|
        window 2          |-----------|   ends with the image
        cells     |-----|-|---|-----|-|

    Parameters
    ----------
    height, width : int
        Of the plane, in pixels.
    side : int
        Of a window; along an axis that is shorter, a window has the axis.
    """

    height: int
    width: int
    side: int

    @cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """Where windows begin along y and x."""
        return window_starts(self.height, self.side), window_starts(self.width, self.side)

    @cached_property
    def edges(self) -> tuple[list[int], list[int]]:
        """Where cells begin along y and x, and where the last one ends."""
        return self._edges(0, self.height), self._edges(1, self.width)

    def _edges(self, axis: int, length: int) -> list[int]:
        starts, side = self.starts[axis], min(self.side, length)
        return sorted({edge for start in starts for edge in (start, start + side)})

    def cells(self, axis: int) -> list[tuple[int, int]]:
        """Return the cells of each window along an axis, the last one excluded."""
        place = {edge: number for number, edge in enumerate(self.edges[axis])}
        side = min(self.side, (self.height, self.width)[axis])
        return [(place[start], place[start + side]) for start in self.starts[axis]]

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Return y0, y1, x0 and x1 of each window, row by row."""
        high, wide = min(self.side, self.height), min(self.side, self.width)
        rows, columns = self.starts
        return [(y, y + high, x, x + wide) for y in rows for x in columns]
