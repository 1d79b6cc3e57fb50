"""How far apart several looks at a pixel are, in numbers that have no unit of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a stored value of 255 stands for is the most that there can be.
LEVELS = 255
# The name of the measure, as it is written down.
MEASURE = "mutual information, as a share of the logarithm of the number of classes"


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


def mutual_information(
    mean: NDArray[np.floating], mean_entropy: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return how much of each pixel's uncertainty is disagreement of those who looked at it.

    It is the entropy of the mean less the mean of the entropies: 0 where all looks say the same,
    also where they agree that it may be either, and largest where each is sure of something else.

    Parameters
    ----------
    mean : ndarray of float, shape (K, Y, X)
        The mean over looks of the probabilities.
    mean_entropy : ndarray of float, shape (Y, X)
        The mean over looks of their entropies, in nats.

    Returns
    -------
    ndarray of float, shape (Y, X)
        As a share of log(K), so that it lies in 0 to 1.

    References
    ----------
    Houlsby, Huszar, Ghahramani, Lengyel (2011), Bayesian active learning for classification and
    preference learning, equation 2. Lakshminarayanan, Pritzel, Blundell (2017), Simple and
    scalable predictive uncertainty estimation using deep ensembles, section 2.4: networks that
    were trained apart take the place of draws from a posterior.

    Examples
    --------
    Two looks that are sure of the same, of different classes, and of nothing:

    >>> one = np.array([[[1.0, 1.0, 0.5]], [[0.0, 0.0, 0.5]]])
    >>> other = np.array([[[1.0, 0.0, 0.5]], [[0.0, 1.0, 0.5]]])
    >>> mutual_information((one + other) / 2, (entropy(one) + entropy(other)) / 2)
    array([[0., 1., 0.]])
    """
    apart: NDArray[Any] = (entropy(mean) - mean_entropy) / mean.dtype.type(np.log(len(mean)))
    # Rounding may leave a little less than nothing.
    return np.asarray(np.clip(apart, 0, 1))


def stored_disagreement(seen: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the mutual information of each pixel as 255ths.

    `seen` (K + 1, Y, X) are the mean probabilities, and the mean entropy as the last channel.
    """
    share = mutual_information(seen[:-1], seen[-1])
    return np.asarray(np.rint(share * LEVELS), np.uint8)
