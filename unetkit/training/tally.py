"""Which classes lie where in a sample, as counts of its annotated pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.training.split import Region


@dataclass(frozen=True, eq=False)
class Tally:
    """How many annotated pixels of each class lie where in a sample.

    Parameters
    ----------
    boxes : ndarray of int, shape (N, 5)
        Plane, first row, first column, past-the-last row and column; together the whole sample.
    counts : ndarray of int, shape (N, K)
        Annotated pixels of each class.
    """

    boxes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def is_partial(self) -> bool:
        """Whether there are pixels that nobody annotated."""
        _, y0, x0, y1, x1 = self.boxes.T
        return bool(self.counts.sum() < ((y1 - y0) * (x1 - x0)).sum())

    def within(self, region: Region) -> Tally:
        """Keep the boxes that meet a region, cut to it; counts stay those of the whole box."""
        boxes = self.boxes.copy()
        np.maximum(boxes[:, 1:3], (region.y0, region.x0), out=boxes[:, 1:3])
        np.minimum(boxes[:, 3:], (region.y1, region.x1), out=boxes[:, 3:])
        met = (boxes[:, 1] < boxes[:, 3]) & (boxes[:, 2] < boxes[:, 4])
        return Tally(boxes[met], self.counts[met])
