"""How far the outlines of truth and prediction lie apart, as counts that add up over blocks.

What this module does not know: how an image is cut. A block is read with `REACH` pixels around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from unetkit.scores.sums import mean_where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unetkit.scores.sums import Columns
    from unetkit.scores.units import SpatialBlocks

Array = np.ndarray[Any, Any]

# Distances are exact up to here; farther ones are only known to be farther.
FARTHEST = 256
# One more pixel, by which an outline is told from the inside.
REACH = FARTHEST + 1
# A key of a count is the unit, the label, the side and the squared distance, from high to low.
_SIDE = 2**17
_LABEL = 2 * _SIDE
_UNIT = 2**38
_TRUE, _PRED = 0, 1


@dataclass(frozen=True, eq=False)
class Surfaces:
    """How many outline pixels lie at each squared distance from the other outline.

    Attributes
    ----------
    keys : ndarray of int64, shape (K,)
        From low to high: which unit, label, side and squared distance. Those that are farther than
        256 pixels from the other outline, or have none to be near to, share one distance.
    counts : ndarray of int64, shape (K,)
    """

    keys: Array
    counts: Array

    def in_unit(self, unit: int) -> Surfaces:
        """Give the same outlines as those of one unit."""
        return _reduce(self.keys % _UNIT + unit * _UNIT, self.counts)


def nothing() -> Surfaces:
    """Give the counts of no outline at all."""
    return Surfaces(*np.zeros((2, 0), np.int64))


def merge(parts: Iterable[Surfaces]) -> Surfaces:
    """Add up the outlines of blocks."""
    every = [nothing(), *parts]
    return _reduce(*(np.concatenate([getattr(p, n) for p in every]) for n in ("keys", "counts")))


def measure(
    truth: Array,
    found: Array,
    *,
    inside: tuple[slice, slice],
    counted: Array | None = None,
    blocks: SpatialBlocks | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Surfaces:
    """Measure the outlines of a block.

    Parameters
    ----------
    truth, found : ndarray of bool or int, shape (Y, X)
        Foreground or classes of the block and `REACH` pixels around it; 0 outside the image. Each
        class has an outline of its own.
    inside : tuple of slice
        The block in these arrays.
    counted : ndarray of bool, shape (Y, X), optional
        Where outlines count; left out, everywhere.
    blocks : SpatialBlocks, optional
        Tell these apart, each as a unit.
    origin : tuple of int
        Row and column of the block in the image.
    """
    parts = []
    for label in np.union1d(truth[inside], found[inside]):
        if not label:
            continue
        edges = []
        for side in (truth, found):
            own = side == label
            edge = own & ~ndimage.binary_erosion(own)
            edges.append(edge if counted is None else edge & counted)
        for number, (edge, other) in enumerate((edges, edges[::-1])):
            y, x, squared = _squared(edge, other, inside)
            units = 0 if blocks is None else blocks.at(y + origin[0], x + origin[1])
            keys = units * _UNIT + int(label) * _LABEL + number * _SIDE + squared
            parts.append(Surfaces(keys, np.ones(len(keys), np.int64)))
    return merge(parts)


def outline_sums(surfaces: Surfaces, *, units: int, tolerance: float) -> dict[str, Columns]:
    """Take the sums by unit that the scores of outlines are made of.

    Parameters
    ----------
    surfaces : Surfaces
    units : int
        How many there are.
    tolerance : float
        Of `boundary_f`, in pixels.

    Returns
    -------
    dict of str to Columns
        `boundary_f`, `hausdorff95`, `surface_distance`.
    """
    unit, rest = np.divmod(surfaces.keys, _UNIT)
    label, squared = rest // _LABEL, rest % _SIDE
    side = rest // _SIDE % 2
    counts = surfaces.counts.astype(float)
    far = squared > FARTHEST**2
    near = (squared <= int(np.floor(tolerance**2 + 1e-9))) & ~far

    def add(keys: Array, *columns: Array) -> Columns:
        """Sum up columns at `keys` and after them."""
        names = np.unique(keys)
        names = (names[:, None] + np.arange(len(columns))).ravel()
        by_unit = np.zeros((units, len(names)))
        for n, column in enumerate(columns):
            np.add.at(by_unit, (unit, np.searchsorted(names, keys + n)), column)
        return names, by_unit

    sides = [counts * (side == _TRUE), counts * (side == _PRED)]
    return {
        "boundary_f": add(4 * label, *(near * s for s in sides), *sides),
        "hausdorff95": add(rest, counts),
        "surface_distance": add(4 * label, np.sqrt(squared) * counts, far * counts, *sides),
    }


def boundary_f(keys: Array, sums: Array) -> Array:
    """Take the harmonic mean of the shares of both outlines near the other, class by class."""
    near_true, near_pred, true, pred = _by_label(sums)
    recall, precision = (
        np.divide(near, every, out=np.zeros(np.shape(every)), where=every > 0)
        for near, every in ((near_true, true), (near_pred, pred))
    )
    whole = recall + precision
    means = np.divide(2 * recall * precision, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
    return mean_where(means, true + pred > 0)


def surface_distance(keys: Array, sums: Array) -> Array:
    """Take the mean distance of both outlines together, class by class."""
    distance, far, true, pred = _by_label(sums)
    there = (far == 0) & (true > 0) & (pred > 0)
    every = true + pred
    return mean_where(np.divide(distance, every, out=0 * every, where=every > 0), there)


def hausdorff95(keys: Array, sums: Array) -> Array:
    """Take the larger 95th percentile of the distances of either outline, class by class."""
    found = []
    for label in np.unique(keys // _LABEL):
        sides = [label * _LABEL + n * _SIDE for n in (_TRUE, _PRED)]
        chosen = [(keys >= first) & (keys < first + _SIDE) for first in sides]
        ends = [_percentile(keys[own] % _SIDE, sums[..., own], 0.95) for own in chosen]
        found.append(np.maximum(*ends))
    nothing = np.full((*sums.shape[:-1], 1), np.nan)
    values = np.stack(found, axis=-1) if found else nothing
    return mean_where(values, np.isfinite(values))


def _percentile(squared: Array, counts: Array, share: float) -> Array:
    """Find the distance below which a share of a histogram lies, between two linearly."""
    if not len(squared):
        return np.full(counts.shape[:-1], np.nan)
    running = np.cumsum(counts, axis=-1)
    count = running[..., -1]
    place = share * (count - 1)
    below = np.floor(np.maximum(place, 0))
    distance = np.where(squared > FARTHEST**2, np.nan, np.sqrt(squared))

    def at(rank: Array) -> Array:
        passed = (running <= rank[..., None]).sum(axis=-1)
        return np.asarray(distance[np.minimum(passed, len(squared) - 1)])

    low, high = at(below), at(np.clip(np.minimum(below + 1, count - 1), 0, None))
    return np.where(count > 0, low + (high - low) * (place - below), np.nan)


def _by_label(sums: Array) -> Array:
    """Put the four columns of each label first."""
    return np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)


def _squared(edge: Array, other: Array, inside: tuple[slice, slice]) -> tuple[Array, Array, Array]:
    """Give row, column and squared distance to the other outline of each pixel of an outline."""
    own = edge[inside]
    y, x = np.nonzero(own)
    if not len(y) or not other.any():
        return y, x, np.full(len(y), FARTHEST**2 + 1)
    distance = ndimage.distance_transform_edt(~other)[inside][own]
    return y, x, np.minimum(np.rint(distance**2).astype(np.int64), FARTHEST**2 + 1)


def _reduce(keys: Array, counts: Array) -> Surfaces:
    """Sort the counts and add up those of one key."""
    names, places = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(names), np.int64)
    np.add.at(sums, places.ravel(), counts)
    return Surfaces(names, sums)
