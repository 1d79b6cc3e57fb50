"""How far the outlines of truth and prediction lie apart, as histograms that add up over blocks.

What this module does not know: how an image is cut. A block is read with `REACH` pixels around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

# Distances are exact up to here; farther ones are only known to be farther.
FARTHEST = 256
# One more pixel, by which an outline is told from the inside.
REACH = FARTHEST + 1


@dataclass(frozen=True, eq=False)
class Surfaces:
    """How many outline pixels lie at each squared distance from the other outline.

    Attributes
    ----------
    true, pred : ndarray of int64, shape (65538,)
        Of the true outline and of the predicted one; the last place holds those that are farther
        than 256 pixels from the other outline, or have none to be near to.
    """

    true: Array
    pred: Array

    def __add__(self, other: Surfaces) -> Surfaces:
        """Add the outlines of another block."""
        return Surfaces(self.true + other.true, self.pred + other.pred)


def nothing() -> Surfaces:
    """Give the histograms of no outline at all."""
    return Surfaces(*np.zeros((2, FARTHEST**2 + 2), np.int64))


def measure(
    truth: Array, found: Array, *, inside: tuple[slice, slice], counted: Array | None = None
) -> Surfaces:
    """Measure the outlines of a block.

    Parameters
    ----------
    truth, found : ndarray of bool, shape (Y, X)
        Foreground of the block and `REACH` pixels around it; outside the image it is background.
    inside : tuple of slice
        The block in these arrays.
    counted : ndarray of bool, shape (Y, X), optional
        Where outlines count; left out, everywhere.

    Returns
    -------
    Surfaces
    """
    edges = [
        side & ~ndimage.binary_erosion(side) for side in (truth.astype(bool), found.astype(bool))
    ]
    if counted is not None:
        edges = [edge & counted for edge in edges]
    return Surfaces(*(_histogram(a, b, inside) for a, b in (edges, edges[::-1])))


def boundary_f(surfaces: Surfaces, *, tolerance: float = 2.0) -> float | None:
    """Measure how much of both outlines lies within `tolerance` pixels of the other, 0 to 1 (best).

    The harmonic mean of the shares of the predicted and of the true outline. None where neither
    side has an outline.

    References
    ----------
    Csurka et al. (2013), BMVC, What is a good evaluation measure for semantic segmentation?
    """
    if not surfaces.true.sum() + surfaces.pred.sum():
        return None
    near = int(np.floor(tolerance**2 + 1e-9)) + 1
    shares = [_share(side[:near].sum(), side.sum()) for side in (surfaces.pred, surfaces.true)]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def hausdorff95(surfaces: Surfaces) -> float | None:
    """Measure the distance that 95 % of either outline keep to the other, in pixels, 0 best.

    The larger of the two directions. None where a side has no outline, or the distance is above
    256 pixels.

    References
    ----------
    Taha and Hanbury (2015), BMC Medical Imaging 15:29.
    """
    values = [_percentile(side, 0.95) for side in (surfaces.true, surfaces.pred)]
    known = [value for value in values if value is not None]
    return max(known) if len(known) == 2 else None


def surface_distance(surfaces: Surfaces) -> float | None:
    """Measure the mean distance of all outline pixels to the other outline, in pixels, 0 best.

    Both outlines are taken together. None where a side has no outline, or a pixel of it is farther
    than 256 pixels.

    References
    ----------
    Heimann et al. (2009), IEEE Transactions on Medical Imaging 28:1251.
    """
    both = surfaces.true + surfaces.pred
    if both[-1] or not surfaces.true.sum() or not surfaces.pred.sum():
        return None
    at = np.flatnonzero(both)
    return float((np.sqrt(at) * both[at]).sum() / both.sum())


def _histogram(edge: Array, other: Array, inside: tuple[slice, slice]) -> Array:
    """Count the pixels of one outline by their squared distance to the other."""
    own = edge[inside]
    if not own.any():
        return np.zeros(FARTHEST**2 + 2, np.int64)
    if not other.any():
        squared = np.full(int(own.sum()), FARTHEST**2 + 1)
    else:
        distance = ndimage.distance_transform_edt(~other)[inside][own]
        squared = np.minimum(np.rint(distance**2).astype(np.int64), FARTHEST**2 + 1)
    return np.bincount(squared, minlength=FARTHEST**2 + 2)


def _percentile(histogram: Array, share: float) -> float | None:
    """Find the value below which a share of a histogram lies, between two linearly."""
    count = int(histogram.sum())
    if not count:
        return None
    place = share * (count - 1)
    below = int(np.floor(place))
    sums = np.cumsum(histogram)
    low, high = (int(np.searchsorted(sums, n, "right")) for n in (below, min(below + 1, count - 1)))
    if high > FARTHEST**2:
        return None
    return float(np.sqrt(low) + (np.sqrt(high) - np.sqrt(low)) * (place - below))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
