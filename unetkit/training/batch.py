"""What one step learns from; it does not know where that was drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from.

    Parameters
    ----------
    images : ndarray of float32, shape (N, C, Y, X)
        Normalized, with the context that the model needs.
    targets : ndarray of int64, shape (N, Y', X')
        Classes inside the model's margin.
    weights : ndarray of float32, shape (N, Y', X')
        Weights of those pixels.
    samples : tuple of str
        Where the tiles come from.
    seed : int
        Of what the network draws in this step.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    samples: tuple[str, ...]
    seed: int = 0

    def parts(self, count: int) -> Iterator[Batch]:
        """Cut the batch into at most `count` parts of nearly the same number of tiles."""
        total = len(self.images)
        for own in np.array_split(np.arange(total), min(count, total)):
            cut = slice(own[0], own[-1] + 1)
            yield replace(
                self,
                images=self.images[cut],
                targets=self.targets[cut],
                weights=self.weights[cut],
                samples=self.samples[cut],
            )
