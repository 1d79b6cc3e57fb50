"""Choose a few among many: those that score high, and that are unlike each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def standardized(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring each column to mean 0 and standard deviation 1; a constant one to 0.

    >>> standardized(np.array([[1.0, 5.0], [3.0, 5.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    centred: NDArray[np.float64] = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    # What rounding leaves of a constant column is no difference.
    constant = spread <= 1e-9 * np.abs(features).max(axis=0, initial=0)
    return np.where(constant, 0, centred / np.where(constant, 1, spread))


def choose_diverse(
    scores: NDArray[np.float64],
    features: NDArray[np.float64],
    *,
    count: int,
    known: NDArray[np.bool_],
    near: Callable[[int], NDArray[np.bool_]],
) -> list[int]:
    """Choose one after the other what scores high and is unlike all that is chosen or known.

    The first is the one with the highest score, unless something is known. Each further one has
    the largest product of its score and its distance to the nearest of those, as in a greedy
    k-centre.

    Parameters
    ----------
    scores : ndarray of float, shape (N,)
        What scores 0 is never chosen.
    features : ndarray of float, shape (N, F)
        On scales that compare.
    count : int
        How many to choose; there may be fewer.
    known : ndarray of bool, shape (N,)
        What is not to be chosen, since it is known already.
    near : callable
        Takes the index of one that was chosen, and marks what must not be chosen after it.

    Returns
    -------
    list of int
        Indices, in the order of their choice; of equal ones the first.

    References
    ----------
    Sener, Savarese (2018), Active learning for convolutional neural networks: a core-set approach,
    algorithm 1, with each distance weighted by the score.

    Examples
    --------
    The second best is like the best, so that the third is chosen before it:

    >>> scores, features = np.array([0.9, 0.8, 0.5]), np.array([[0.0], [0.1], [1.0]])
    >>> choose_diverse(scores, features, count=2, known=np.zeros(3, bool), near=lambda _: False)
    [0, 2]
    """
    left: NDArray[Any] = np.where(known, 0, scores)
    distance = np.full(len(scores), np.inf)
    for one in np.flatnonzero(known).tolist():
        distance = np.minimum(distance, _distance(features, one))
    chosen: list[int] = []
    while len(chosen) < count and (left > 0).any():
        gain = left if np.isinf(distance).all() else left * distance
        # What is the same as something chosen is still better than nothing.
        best = int(np.argmax(gain if (gain > 0).any() else left))
        chosen.append(best)
        distance = np.minimum(distance, _distance(features, best))
        left = np.where(near(best), 0, left)
        left[best] = 0
    return chosen


def _distance(features: NDArray[np.float64], one: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sqrt(((features - features[one]) ** 2).sum(axis=1))
    return found
