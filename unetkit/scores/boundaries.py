"""How far the outlines of truth and prediction lie apart, as counts that add up over blocks.

What this module does not know: how an image is cut. A block is read with `REACH` pixels around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from unetkit.scores.formulas import FARTHEST, LABEL, PRED, SIDE, TRUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unetkit.scores.sums import Columns

Array = np.ndarray[Any, Any]

# One more pixel, by which an outline is told from the inside.
REACH = FARTHEST + 1
# A key of a count is the unit, the label, the side and the squared distance, from high to low.
_UNIT = 2**38
# Where fewer pixels than one of so many are outline, a search tree of them is several times as fast
# as a distance transform of all.
_DENSE = 8
# What all outlines of instances together have for a label; that of their foreground is 1.
_INSTANCES = 0


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
    instances: bool = False,
    counted: Array | None = None,
) -> Surfaces:
    """Measure the outlines of a block.

    Parameters
    ----------
    truth, found : ndarray of bool or int, shape (Y, X)
        Instances or classes of the block and `REACH` pixels around it; 0 outside the image. Each
        class has an outline of its own.
    instances : bool
        Whether these are instances: all their outlines count as one, also where two touch, and
        beside it stands the outline of the foreground.
    inside : tuple of slice
        The block in these arrays.
    counted : ndarray of bool, shape (Y, X), optional
        Where outlines count, and what they may be between; left out, everywhere.
    """
    sides = [(_outline(truth, counted), _outline(found, counted))] if instances else []
    labels = [_INSTANCES] if instances else []
    if instances:
        truth, found = truth != 0, found != 0
    for label in np.union1d(truth[inside], found[inside]).tolist():
        if label:
            labels.append(int(label))
            sides.append((_outline(truth == label, counted), _outline(found == label, counted)))
    parts: list[tuple[int, Array]] = []
    for n, (label, pair) in enumerate(zip(labels, sides, strict=True)):
        if n and instances and all(map(np.array_equal, pair, sides[0])):
            # Nothing touches: both outlines are one.
            parts += [(label, rest) for _, rest in parts]
            continue
        for number, (edge, other) in enumerate((pair, pair[::-1])):
            parts.append((label, number * SIDE + _squared(edge, other, inside)))
    return merge(
        Surfaces(label * LABEL + rest, np.ones(len(rest), np.int64)) for label, rest in parts
    )


def _outline(labels: Array, counted: Array | None) -> Array:
    """Mark pixels of objects that meet another object, the background or the end by an edge.

    Between one that counts and one that doesn't nobody knows whether there is an edge.
    """
    around, edge = np.pad(labels, 1), np.zeros(labels.shape, bool)
    known = None if counted is None else np.pad(counted, 1, constant_values=True)
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
        beside = np.s_[y : y + labels.shape[0], x : x + labels.shape[1]]
        differs = around[beside] != labels
        edge |= differs if known is None else differs & known[beside]
    edge &= labels != 0
    return edge if counted is None else edge & counted


def outline_sums(
    surfaces: Surfaces, *, units: int, tolerance: float, instances: bool = False
) -> dict[str, Columns]:
    """Take the sums by unit that the scores of outlines are made of.

    Parameters
    ----------
    surfaces : Surfaces
    units : int
        How many there are.
    tolerance : float
        Of `boundary_f`, in pixels.
    instances : bool
        Whether these are of instances, see `measure`.

    Returns
    -------
    dict of str to Columns
        `boundary_f`, `hausdorff95`, `surface_distance`; of instances also those of their
        foreground, `foreground_boundary_f` and so on.
    """
    if instances:
        whole = surfaces.keys % _UNIT >= LABEL
        parts = [
            outline_sums(
                Surfaces(surfaces.keys[own], surfaces.counts[own]), units=units, tolerance=tolerance
            )
            for own in (~whole, whole)
        ]
        return parts[0] | {f"foreground_{name}": one for name, one in parts[1].items()}
    unit, rest = np.divmod(surfaces.keys, _UNIT)
    label, squared = rest // LABEL, rest % SIDE
    side = rest // SIDE % 2
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

    sides = [counts * (side == TRUE), counts * (side == PRED)]
    return {
        "boundary_f": add(4 * label, *(near * s for s in sides), *sides),
        "hausdorff95": add(rest, counts),
        "surface_distance": add(4 * label, np.sqrt(squared) * counts, far * counts, *sides),
    }


def _squared(edge: Array, other: Array, inside: tuple[slice, slice]) -> Array:
    """Give the squared distance to the other outline of each pixel of an outline."""
    own = edge[inside]
    y, x = np.nonzero(own)
    if not len(y) or not other.any():
        return np.full(len(y), FARTHEST**2 + 1)
    there = np.argwhere(other)
    if len(there) > other.size // _DENSE:
        distance = ndimage.distance_transform_edt(~other)[inside][own]
        return np.asarray(np.minimum(np.rint(distance**2).astype(np.int64), FARTHEST**2 + 1))
    places = np.stack([y + (inside[0].start or 0), x + (inside[1].start or 0)], axis=1)
    tree = cKDTree(there, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(places, distance_upper_bound=FARTHEST + 1)[1]
    # Those without any so near have the number after the last.
    found = nearest < len(there)
    squared = np.full(len(y), FARTHEST**2 + 1)
    squared[found] = ((there[nearest[found]] - places[found]) ** 2).sum(axis=1)
    return np.asarray(np.minimum(squared, FARTHEST**2 + 1))


def _reduce(keys: Array, counts: Array) -> Surfaces:
    """Sort the counts and add up those of one key."""
    names, places = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(names), np.int64)
    np.add.at(sums, places.ravel(), counts)
    return Surfaces(names, sums)
