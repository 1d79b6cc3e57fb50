"""Square blocks of one image that stand for independent samples of it.

What this module does not know: how sure a score is, and in which boxes an image is read::

    blocks of side 128         a box may hold parts of several
    +---+---+---+---+
    | 0 | 1 | 2 | 3 |          numbers run along rows; those at the far edges may be narrower,
    +---+---+---+---+          and all planes of an image share them
    | 4 | 5 | 6 | 7 |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.scores import contingency

if TYPE_CHECKING:
    from unetkit.scores.contingency import Contingency

Array = np.ndarray[Any, Any]

# Sides of the blocks, the largest first, and how many there have to be. Our own choice: cells are
# smaller, 16 tell something, and some hundreds are enough, so that a slide has larger ones.
SIDES = {8192: 256, 4096: 256, 2048: 256, 1024: 16, 512: 16, 256: 16, 128: 16}


@dataclass(frozen=True)
class SpatialBlocks:
    """The blocks of an image: the unit of a block bootstrap.

    Parameters
    ----------
    side : int
        In pixels.
    height, width : int
        Of the image.
    """

    side: int
    height: int
    width: int

    @property
    def across(self) -> int:
        """How many stand side by side."""
        return -(-self.width // self.side)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.across * -(-self.height // self.side)

    @property
    def areas(self) -> Array:
        """Pixels of each."""
        sides = [
            np.minimum(self.side, length - np.arange(0, length, self.side))
            for length in (self.height, self.width)
        ]
        return np.outer(*sides).ravel()

    def at(self, y: Array, x: Array) -> Array:
        """Give the number of the block of each pixel.

        Parameters
        ----------
        y, x : ndarray of int
            In pixels of the whole image.
        """
        return np.asarray(y // self.side * self.across + x // self.side)

    def tables(
        self,
        truth: Array,
        found: Array,
        *,
        origin: tuple[int, int] = (0, 0),
        ignore: Array | None = None,
    ) -> Contingency:
        """Count the label pairs of a box, each block as an image of its own.

        Parameters
        ----------
        truth, found : ndarray of int, shape (Y, X)
        origin : tuple of int
            Row and column of the box in the image.
        ignore : ndarray, shape (Y, X), optional
            Pixels where it is not 0 are not counted.
        """
        parts = []
        for y, rows in _lines(origin[0], truth.shape[0], self.side):
            for x, columns in _lines(origin[1], truth.shape[1], self.side):
                skip = None if ignore is None else ignore[rows, columns]
                table = contingency.from_labels(
                    truth[rows, columns], found[rows, columns], ignore=skip
                )
                number = y * self.across + x
                parts.append(replace(table, image=table.image + number, images=self.count))
        return contingency.merge(parts)


def spatial_blocks(height: int, width: int) -> SpatialBlocks | None:
    """Choose into which blocks an image is cut.

    Returns
    -------
    SpatialBlocks or None
        By the image's size alone; None where there would be too few.
    """
    for side, least in SIDES.items():
        blocks = SpatialBlocks(side, height, width)
        if blocks.count >= least:
            return blocks
    return None


def _lines(start: int, length: int, side: int) -> list[tuple[int, slice]]:
    """Cut rows or columns of a box at the edges of blocks."""
    numbers = range(start // side, -(-(start + length) // side))
    return [(n, slice(max(n * side - start, 0), (n + 1) * side - start)) for n in numbers]
