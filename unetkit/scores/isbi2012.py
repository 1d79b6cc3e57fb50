"""The scores of the ISBI 2012 challenge and of its successor, for cells parted by thin borders.

What this module does not know: files, thresholds' origin, and how an image was cut. Objects are the
4-connected pieces of what is not border; a border is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from scipy import ndimage

from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from unetkit.scores.contingency import Contingency

Array = np.ndarray[Any, Any]

# The largest image, in pixels, for scores that need all of it at once.
LARGEST = 4096 * 4096
# Those of the challenge for probability maps.
THRESHOLDS = tuple(n / 10 for n in range(10))
# Scores that are averaged over planes.
BY_PLANE = ("v_rand", "v_info")


def watershed(mask: Array) -> Array:
    """Thin the borders of a proposal to lines by flooding them from the pieces that they part.

    Vincent and Soille's flooding of the binary border map in the order that the challenge's
    program takes: column by column, each pixel once, by edges. Without foreground the whole image
    is one basin.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        What is not border.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        Basins numbered from 1; 0 on the lines, which need not be one pixel wide everywhere.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142; Trainable Segmentation,
    `getMaximalVRandAfterThinning`.
    """
    if not mask.any():
        return np.ones(mask.shape, np.int32)
    basins = np.pad(np.where(mask, pieces(mask), _DRY), 1, constant_values=_OUTSIDE)
    rows, columns = np.nonzero(basins.T == _DRY)[::-1]
    _flood(basins, rows, columns)
    return basins[1:-1, 1:-1].copy()


def interior(labels: Array) -> Array:
    """Mark the pixels of objects that do not touch another object to the left or above.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)

    Returns
    -------
    ndarray of bool, shape (Y, X)
    """
    inside: Array = labels != 0
    inside[1:] &= (labels[1:] == labels[:-1]) | (labels[:-1] == 0)
    inside[:, 1:] &= (labels[:, 1:] == labels[:, :-1]) | (labels[:, :-1] == 0)
    return inside


def pieces(mask: Array) -> Array:
    """Give each 4-connected piece of a mask a number, from 1.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)

    Returns
    -------
    ndarray of int32, shape (Y, X)
    """
    return np.asarray(ndimage.label(mask)[0], np.int32)


_EIGHT = np.ones((3, 3), bool)
# Of pixels that no basin has reached: not yet seen, waiting for their turn, and beyond the image.
_DRY, _WAITING, _OUTSIDE = -1, -2, -3
# The eight neighbours in circular order, edge neighbours at even places.
_DY = np.array([-1, -1, 0, 1, 1, 1, 0, -1])
_DX = np.array([0, 1, 1, 1, 0, -1, -1, -1])
# The edge neighbours in the order in which the challenge's program looks at them.
_NEAR_Y, _NEAR_X = np.array([0, -1, 0, 1]), np.array([-1, 0, 1, 0])
_MERGER, _SPLIT = 1, 2


@dataclass(frozen=True, eq=False)
class Topology:
    """Pixels that part one true object or join several, which no motion of borders mends.

    Attributes
    ----------
    y, x : ndarray of int, shape (N,)
        Row and column of each.
    split : ndarray of bool, shape (N,)
        Whether it parts one object; the others join several.
    first : ndarray of bool, shape (N,)
        Whether it is the first of its connected line: 4-connected where it parts, else 8-connected.
    """

    y: Array
    x: Array
    split: Array
    first: Array

    @property
    def splits(self) -> int:
        """How many lines part an object."""
        return int((self.first & self.split).sum())

    @property
    def mergers(self) -> int:
        """How many lines join objects."""
        return int((self.first & ~self.split).sum())


def warp(truth: Array, found: Array, *, certainty: Array | None = None) -> Array:
    """Move the borders of the truth towards a proposal without changing its topology.

    Simple points, whose flip neither joins, parts, adds nor removes an object (4-connected) or a
    hole (8-connected), are flipped where the two differ, the most certain first, until none is
    left.

    Parameters
    ----------
    truth, found : ndarray of bool, shape (Y, X)
        Foreground, and the proposal for it.
    certainty : ndarray of float, shape (Y, X), optional
        How far the proposal's probability is from its threshold; left out, all are alike.

    Returns
    -------
    ndarray of bool, shape (Y, X)
        The warped truth; where it still differs from `found` lies an error of topology.

    References
    ----------
    Jain et al. (2010), CVPR, Boundary learning by optimization with topological constraints.
    """
    warped = np.pad(truth.astype(bool), 1)
    target = np.pad(found.astype(bool), 1)
    while True:
        y, x = np.nonzero(warped != target)
        sure = np.zeros(len(y)) if certainty is None else certainty[y - 1, x - 1]
        # Column by column where certainty ties, as in the challenge's own code.
        order = np.lexsort((y, x, -sure))
        if _flip_simple(warped, y[order], x[order]) == 0:
            return warped[1:-1, 1:-1].copy()


def warping_errors(truth: Array, found: Array, *, certainty: Array | None = None) -> Topology:
    """Find the splits and mergers that are left after warping the truth to a proposal.

    A mismatch joins objects where it is background with several objects around it; it parts one
    where it is foreground whose removal leaves several pieces around it.

    Parameters
    ----------
    truth, found, certainty
        As for `warp`.

    References
    ----------
    Jain et al. (2010), CVPR; ISBI 2012 segmentation challenge, warping error.
    """
    warped = warp(truth, found, certainty=certainty)
    objects = np.pad(ndimage.label(warped)[0], 1)
    y, x = np.nonzero(warped != found.astype(bool))
    kinds = _classify(objects, y + 1, x + 1)
    y, x, kinds = y[kinds > 0], x[kinds > 0], kinds[kinds > 0]
    first = np.zeros(len(kinds), bool)
    for kind, structure in ((_MERGER, _EIGHT), (_SPLIT, None)):
        (own,) = np.nonzero(kinds == kind)
        marks = np.zeros(warped.shape, bool)
        marks[y[own], x[own]] = True
        lines = ndimage.label(marks, structure)[0][y[own], x[own]]
        first[own[np.unique(lines, return_index=True)[1]]] = True
    return Topology(y, x, kinds == _SPLIT, first)


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _flood(basins: Array, ys: Array, xs: Array) -> None:
    """Give the dry pixels, in order, to basins or to the lines (0) between them.

    A pixel that is wetted by a line alone belongs to a basin that it meets thereafter, as long as
    no two basins have met since.
    """
    queue = np.empty((len(ys), 2), np.int32)
    tail = 0
    for n in range(len(ys)):
        for k in range(4):
            if basins[ys[n] + _NEAR_Y[k], xs[n] + _NEAR_X[k]] > 0:
                queue[tail, 0], queue[tail, 1] = ys[n], xs[n]
                tail += 1
                break
    for n in range(tail):
        basins[queue[n, 0], queue[n, 1]] = _WAITING
    by_line, head = False, 0
    while head < tail:
        y, x = queue[head, 0], queue[head, 1]
        head += 1
        for k in range(4):
            to_y, to_x = y + _NEAR_Y[k], x + _NEAR_X[k]
            own, near = basins[y, x], basins[to_y, to_x]
            if near > 0:
                if own == _WAITING or (own == 0 and by_line):
                    basins[y, x] = near
                elif own > 0 and own != near:
                    basins[y, x] = 0
                    by_line = False
            elif near == 0 and own == _WAITING:
                basins[y, x] = 0
                by_line = True
            elif near == _DRY:
                basins[to_y, to_x] = _WAITING
                queue[tail, 0], queue[tail, 1] = to_y, to_x
                tail += 1


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _runs(image: Array, y: int, x: int) -> int:
    """Count the 4-connected runs of foreground around a pixel that touch it by an edge.

    As many 8-connected runs of background part them, so that 1 makes a simple point (Bertrand).
    """
    runs = 0
    for k in range(0, 8, 2):
        if not image[y + _DY[k], x + _DX[k]]:
            continue
        # The run goes on through the corner to the next edge neighbour, or ends here.
        corner = image[y + _DY[k + 1], x + _DX[k + 1]]
        after = (k + 2) % 8
        if not (corner and image[y + _DY[after], x + _DX[after]]):
            runs += 1
    return runs


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _flip_simple(image: Array, ys: Array, xs: Array) -> int:
    """Flip, in order, the given pixels that are simple by then."""
    flipped = 0
    for n in range(len(ys)):
        y, x = ys[n], xs[n]
        if _runs(image, y, x) == 1:
            image[y, x] = not image[y, x]
            flipped += 1
    return flipped


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _classify(objects: Array, ys: Array, xs: Array) -> Array:
    """Say of each mismatch whether it joins objects (1), parts one (2) or neither (0)."""
    kinds = np.zeros(len(ys), np.uint8)
    # What walks have met, and where they go next; both made once.
    seen, queue = np.zeros(objects.shape, np.int64), np.empty((objects.size, 2), np.int32)
    for n in range(len(ys)):
        y, x = ys[n], xs[n]
        several, first = False, 0
        for k in range(8):
            near = objects[y + _DY[k], x + _DX[k]]
            if near and first and near != first:
                several = True
            first = first or near
        if objects[y, x] == 0:
            kinds[n] = _MERGER if several else 0
        elif several or _parts(objects, seen, queue, y, x, 4 * n + 4):
            kinds[n] = _SPLIT
    return kinds


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _parts(objects: Array, seen: Array, queue: Array, y: int, x: int, mark: int) -> bool:
    """Whether an object falls apart without one of its pixels.

    Up to four walks start at its edge neighbours and go on in turn until all have met, or one that
    met none has nowhere to go. Pixels carry `mark` and the number of the walk, so that none needs
    to be cleared for the next mismatch.
    """
    own = objects[y, x]
    group = np.arange(4)
    waiting = np.zeros(4, np.int64)
    groups, head, tail = 0, 0, 0
    for k in range(4):
        to_y, to_x = y + _DY[2 * k], x + _DX[2 * k]
        if objects[to_y, to_x] == own:
            seen[to_y, to_x] = mark + k
            queue[tail, 0], queue[tail, 1] = to_y, to_x
            tail, groups = tail + 1, groups + 1
            waiting[k] = 1
    while groups > 1:
        at_y, at_x = queue[head, 0], queue[head, 1]
        head += 1
        walk = group[seen[at_y, at_x] - mark]
        waiting[walk] -= 1
        for k in range(0, 8, 2):
            to_y, to_x = at_y + _DY[k], at_x + _DX[k]
            if objects[to_y, to_x] != own or (to_y == y and to_x == x):
                continue
            if seen[to_y, to_x] < mark:
                seen[to_y, to_x] = mark + walk
                queue[tail, 0], queue[tail, 1] = to_y, to_x
                tail += 1
                waiting[walk] += 1
                continue
            other = group[seen[to_y, to_x] - mark]
            if other != walk:
                for n in range(4):
                    if group[n] == other:
                        group[n] = walk
                waiting[walk] += waiting[other]
                groups -= 1
        if groups > 1 and waiting[walk] == 0:
            return True
    return False


def plane_sums(plain: Contingency, thinned: Contingency, topology: Topology) -> dict[str, Array]:
    """Take the sums of one plane.

    Parameters
    ----------
    plain, thinned : Contingency
        Of the truth's pieces and those of the proposal, as they are and thinned.
    topology : Topology

    Returns
    -------
    dict of str to ndarray of float64, shape (M,)
        By score; but for those of `BY_PLANE`, planes add up.
    """
    joined, single = _pieces(plain), _pieces(thinned)
    true, pred = plain.true != 0, plain.pred != 0
    in_both, in_true, in_pred = (plain.counts[chosen].sum() for chosen in (true & pred, true, pred))
    shared = single["both2"] + single["border"]
    pairs = [joined[f"{name}2"] - joined[name] for name in ("both", "true", "pred")]
    found = {
        "v_rand": (2 * shared, single["true2"] + single["pred2"] + single["border"]),
        "v_info": tuple(single[n] for n in ("true", "both_bits", "true_bits", "pred_bits")),
        "warping_error": (len(topology.y), plain.pixels, in_pred),
        "warping_lines": (topology.first.sum(), in_pred),
        "isbi_rand": (pairs[1] + pairs[2] - 2 * pairs[0], pairs[1] + pairs[2]),
        "isbi_pixel": (in_true + in_pred - 2 * in_both, in_true + in_pred),
    }
    return {name: np.array(sums, float) for name, sums in found.items()}


def _pieces(table: Contingency) -> dict[str, Any]:
    """Measure the pieces on the pixels of true objects; predicted border is single pixels."""
    counts = table.counts.astype(float)
    hit = (table.true != 0) & (table.pred != 0)
    true, pred = table.segments("true"), table.segments("pred")
    parts = {
        "both": counts[hit],
        "true": true.sizes[true.ids != 0].astype(float),
        "pred": np.bincount(pred.row[hit], counts[hit], minlength=len(pred.ids)),
    }
    found = {"border": counts[(table.true != 0) & (table.pred == 0)].sum()}
    for name, sizes in parts.items():
        found[name] = sizes.sum()
        found[f"{name}2"] = (sizes**2).sum()
        found[f"{name}_bits"] = (sizes * np.log2(np.maximum(sizes, 1))).sum()
    return found
