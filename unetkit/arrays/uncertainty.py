"""How unsure several looks at a pixel are together, in numbers that have no unit of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a stored value of 255 stands for is the most that there can be.
LEVELS = 255
# The name of the measure, as it is written down.
MEASURE = "entropy of the mean probabilities, as a share of the logarithm of the number of classes"


def entropy(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the entropy of each pixel's classes, in nats.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, Y, X)
        They add up to 1 at each pixel; 0 times its logarithm counts as 0.

    Returns
    -------
    ndarray of float, shape (Y, X)
        From 0, where one class is certain, to log(K), where all are equally probable.

    Examples
    --------
    >>> entropy(np.array([[[1.0, 0.5]], [[0.0, 0.5]]])).round(4)
    array([[0.    , 0.6931]])
    """
    total: NDArray[Any] = np.zeros_like(probabilities[0])
    least = np.finfo(probabilities.dtype).tiny
    for one in probabilities:
        total -= one * np.log(np.maximum(one, least))
    return total


def stored_uncertainty(mean: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return how unsure the looks at each pixel are together, as 255ths.

    It is the entropy of their mean probabilities as a share of log(K): 0 where all are sure of the
    same, and the most where each is unsure, or each sure of something else.

    Parameters
    ----------
    mean : ndarray of float32, shape (K, Y, X)
        The mean over looks of the probabilities.

    Returns
    -------
    ndarray of uint8, shape (Y, X)

    References
    ----------
    Lakshminarayanan, Pritzel, Blundell (2017), Simple and scalable predictive uncertainty
    estimation using deep ensembles, section 2.4, of the mean. Its part that is disagreement alone,
    the mutual information, finds fewer of the wrong pixels (docs/figures.md).

    Examples
    --------
    Looks that are sure of the same in the mean, unsure, and sure of different classes:

    >>> stored_uncertainty(np.array([[[1.0, 0.9, 0.5]], [[0.0, 0.1, 0.5]]], np.float32))
    array([[  0, 120, 255]], dtype=uint8)
    """
    share = entropy(mean) / np.float32(np.log(len(mean)))
    # Rounding may leave a little less than nothing, or more than all.
    return np.asarray(np.rint(np.clip(share, 0, 1) * LEVELS), np.uint8)
