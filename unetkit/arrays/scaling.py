"""Scale arrays along y and x by whole fractions, whole or in parts, with the same bits.

Pixels are squares that fill the plane from its first corner on: pixel i of a plane that is scaled
by p / q covers the pixels from i q / p to (i + 1) q / p of what it is made of. All places are whole
numbers of 1 / 2p, so that a pixel depends on nothing but its own coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.arrays.resampling import keys_weights

if TYPE_CHECKING:
    from fractions import Fraction

    from numpy.typing import NDArray

Kernel = Literal["cubic", "linear", "vote", "nearest"]
# Single precision holds what is computed from these, to the last digit that is kept.
_SMALL = (np.uint8, np.uint16, np.int8, np.int16, np.float16, np.float32)


@dataclass(frozen=True)
class Taps:
    """What the pixels of a part of a scaled axis are made of.

    Parameters
    ----------
    index : ndarray of int64, shape (N, K)
        Pixels of the source; those beyond an end are the last one there.
    weights : ndarray of int64 or float64, shape (N, K)
        How much each counts: whole numbers, but for ``cubic``. Those of a pixel add up to `total`.
    total : ndarray of int64 or float64, shape (N,)
    """

    index: NDArray[np.int64]
    weights: NDArray[Any]

    @property
    def total(self) -> NDArray[Any]:
        """What the weights of each pixel add up to."""
        return np.asarray(self.weights.sum(axis=1))

    @property
    def reach(self) -> tuple[int, int]:
        """The first pixel of the source that is asked for, and the one after the last."""
        return int(self.index.min()), int(self.index.max()) + 1

    def moved(self, start: int) -> Taps:
        """Return the same for a source of which `start` is the first pixel."""
        return Taps(self.index - start, self.weights)


def scaled_length(length: int, ratio: Fraction) -> int:
    """Return how many pixels a scaled axis has; the last may reach over the end.

    Examples
    --------
    >>> from fractions import Fraction
    >>> scaled_length(1001, Fraction(1, 2)), scaled_length(3, Fraction(2))
    (501, 6)
    """
    return -(-length * ratio.numerator // ratio.denominator)


def taps(start: int, stop: int, *, length: int, ratio: Fraction, kernel: Kernel) -> Taps:
    """Say what the pixels of a scaled axis are made of.

    Made smaller, a pixel is the mean of what it covers, of that which the source has; or, with
    ``nearest``, the pixel in its middle. Made larger, it is interpolated between the centres of
    pixels, and the first and the last are repeated beyond the ends: ``cubic`` by Keys' kernel
    (a = -0.5), ``linear``, and ``vote`` by the quadratic B-spline, which is smooth and never
    negative.

    Parameters
    ----------
    start, stop : int
        The part: the first pixel, and the one after the last.
    length : int
        Pixels of the source.
    ratio : Fraction
        Its pixel's size, divided by that of a pixel of the result.
    kernel : {"cubic", "linear", "vote", "nearest"}

    Returns
    -------
    Taps

    Examples
    --------
    >>> from fractions import Fraction
    >>> taps(0, 2, length=3, ratio=Fraction(2, 3), kernel="linear").weights
    array([[2, 1],
           [1, 2]])
    """
    p, q = ratio.numerator, ratio.denominator
    at = np.arange(start, stop, dtype=np.int64)
    if ratio <= 1 and kernel != "nearest":
        return _covered(at, p, q, length=length)
    # The place of each centre, in 2p-ths of a pixel of the source.
    place, whole = (2 * at + 1) * q - p, 2 * p
    if kernel in ("vote", "nearest"):
        first = (place + p) // whole
        rest = place - first * whole
        weights = [(p - rest) ** 2, 6 * p**2 - 2 * rest**2, (p + rest) ** 2]
        if kernel == "nearest":
            weights = [np.ones_like(rest)]
        first -= len(weights) // 2
    else:
        first = place // whole
        rest = place - first * whole
        weights = [whole - rest, rest]
        if kernel == "cubic":
            weights = list(keys_weights(rest / whole).T)
            first -= 1
    index = first[:, np.newaxis] + np.arange(len(weights))
    return Taps(index.clip(0, length - 1), np.stack(weights, axis=1))


def _covered(at: NDArray[np.int64], p: int, q: int, *, length: int) -> Taps:
    """Weigh the pixels that each pixel covers by how much of them it covers, in p-ths."""
    at = np.minimum(at, (length * p - 1) // q)[:, np.newaxis]
    # The same for all parts, so that the same is added in the same order.
    index = at * q // p + np.arange((q + p - 2) // p + 1)
    covered = np.minimum((index + 1) * p, (at + 1) * q) - np.maximum(index * p, at * q)
    weights = np.where(index < length, covered.clip(0), 0)
    return Taps(index.clip(0, length - 1), weights)


def scale(array: NDArray[Any], rows: Taps, columns: Taps) -> NDArray[np.floating[Any]]:
    """Return the weighted mean of an array at each pixel of a part.

    Parameters
    ----------
    array : ndarray, shape (C, Y, X) or (Y, X)
        What `rows` and `columns` count in.
    rows, columns : Taps

    Returns
    -------
    ndarray of float32, or float64 where single precision is not enough
        Of the height and width of the part.
    """
    real = np.dtype(np.float32 if array.dtype in _SMALL else np.float64)
    return _along(_along(array, rows, real, axis=-2), columns, real, axis=-1)


def _along(array: NDArray[Any], taps: Taps, real: np.dtype[Any], *, axis: int) -> NDArray[Any]:
    weights = (taps.weights / taps.total[:, np.newaxis]).astype(real)

    def term(k: int) -> NDArray[Any]:
        weight = weights[:, k] if axis == -1 else weights[:, k, np.newaxis]
        part = array.take(taps.index[:, k], axis=axis).astype(real, copy=False)
        return np.asarray(np.multiply(part, weight, out=part))

    out = term(0)
    for k in range(1, weights.shape[1]):
        out += term(k)
    return out


# Pixels of rims that are counted at a time, times what each is made of.
COUNTED = 2**21


def vote(labels: NDArray[Any], rows: Taps, columns: Taps) -> NDArray[Any]:
    """Return the label that most of each pixel is made of.

    Weights are added up as whole numbers; of labels that weigh the same, the one is taken that
    comes first in y, x order.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        What `rows` and `columns` count in.
    rows, columns : Taps
        Of whole weights.

    Returns
    -------
    ndarray, shape of the part
        Labels of the same dtype.

    Examples
    --------
    >>> from fractions import Fraction
    >>> half = taps(0, 1, length=2, ratio=Fraction(1, 2), kernel="vote")
    >>> vote(np.array([[3, 7], [7, 0]]), half, half)
    array([[7]])
    """
    high, wide = rows.index.shape[1], columns.index.shape[1]
    out = labels[np.ix_(rows.index[:, high // 2], columns.index[:, wide // 2])]
    varied = np.zeros(out.shape, bool)
    for a in range(high):
        for b in range(wide):
            varied |= labels[np.ix_(rows.index[:, a], columns.index[:, b])] != out
    y, x = np.nonzero(varied)
    step = max(1, COUNTED // (high * wide))
    for first in range(0, len(y), step):
        part = y[first : first + step], x[first : first + step]
        out[part] = _most(labels, rows, columns, part)
    return out


def _most(
    labels: NDArray[Any],
    rows: Taps,
    columns: Taps,
    places: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> NDArray[Any]:
    """Return the label of most weight at each of some pixels."""
    y, x = places
    found = labels[rows.index[y][:, :, np.newaxis], columns.index[x][:, np.newaxis]]
    found = found.reshape(len(y), -1)
    weights = rows.weights[y][:, :, np.newaxis] * columns.weights[x][:, np.newaxis]
    weights = weights.reshape(found.shape)
    order = np.argsort(found, axis=1, kind="stable")
    found, weights = (np.take_along_axis(each, order, axis=1) for each in (found, weights))
    begins = np.ones(found.shape, bool)
    begins[:, 1:] = found[:, 1:] != found[:, :-1]
    starts = np.flatnonzero(begins)
    sums = np.add.reduceat(weights.ravel(), starts)
    pixel = starts // found.shape[1]
    ranked = np.lexsort((order.ravel()[starts], -sums, pixel))
    winners = ranked[np.searchsorted(pixel[ranked], np.arange(len(y)))]
    return np.asarray(found.ravel()[starts[winners]])
