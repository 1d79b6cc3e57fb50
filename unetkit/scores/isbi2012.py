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
from skimage.morphology import skeletonize

from unetkit.scores import contingency
from unetkit.scores.sums import unit_of_segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.scores.contingency import Contingency
    from unetkit.scores.units import SpatialBlocks

Array = np.ndarray[Any, Any]

# The largest image, in pixels, for scores that need all of it at once.
LARGEST = 4096 * 4096
# Those of the challenge for probability maps.
THRESHOLDS = tuple(n / 10 for n in range(10))
# How far lines are carried on outside the image before they are thinned; our own choice.
FARTHEST = 256


def thin(labels: Array) -> Array:
    """Thin the borders between objects to one pixel, and number what they part.

    Borders are what is 0 and what parts two touching objects; thinning keeps their topology.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)

    Returns
    -------
    ndarray of int32, shape (Y, X)
        Pieces numbered from 1; 0 on the borders.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142.
    """
    border = ~interior(labels)
    # Thinning shortens the ends of lines, so lines go on outside the image by their width.
    beyond = min(int(ndimage.distance_transform_edt(border).max(initial=0)), FARTHEST) + 2
    thinned = skeletonize(np.pad(border, beyond, mode="edge"))
    return pieces(~thinned[beyond:-beyond, beyond:-beyond])


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
# The eight neighbours in circular order, edge neighbours at even places.
_DY = np.array([-1, -1, 0, 1, 1, 1, 0, -1])
_DX = np.array([0, 1, 1, 1, 0, -1, -1, -1])


@dataclass(frozen=True)
class Topology:
    """Errors that no motion of borders mends, each connected line of pixels counted once.

    Attributes
    ----------
    splits, mergers : int
        Lines of pixels that part one true object, or join several.
    pixels : int
        Of the image.
    places : tuple of (int, int)
        Row and column of the first pixel of each line.
    """

    splits: int
    mergers: int
    pixels: int
    places: tuple[tuple[int, int], ...] = ()

    def by_block(self, blocks: SpatialBlocks | None) -> tuple[Array, Array]:
        """Count errors where they begin, and pixels.

        Parameters
        ----------
        blocks : SpatialBlocks or None
            None is the image as one.

        Returns
        -------
        tuple of ndarray, shape (U,)
        """
        if blocks is None:
            return np.array([self.splits + self.mergers]), np.array([self.pixels])
        y, x = np.array(self.places, int).reshape(-1, 2).T
        return np.bincount(blocks.at(y, x), minlength=blocks.count), blocks.areas


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
    """Count the splits and mergers that are left after warping the truth to a proposal.

    A line of pixels that share an error counts once. A mismatch joins objects where it is
    background with several objects around it; it parts one where it is foreground whose removal
    leaves several pieces around it.

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
    marks = np.zeros(warped.shape, np.uint8)
    marks[y, x] = kinds
    mergers, splits = (_first_pixels(ndimage.label(marks == kind, _EIGHT)[0]) for kind in (1, 2))
    return Topology(len(splits), len(mergers), warped.size, (*splits, *mergers))


def _first_pixels(lines: Array) -> list[tuple[int, int]]:
    """Find row and column of the first pixel of each numbered line."""
    y, x = np.nonzero(lines)
    _, first = np.unique(lines[y, x], return_index=True)
    return list(zip(y[first].tolist(), x[first].tolist(), strict=True))


@njit(cache=True)  # type: ignore[untyped-decorator]
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


@njit(cache=True)  # type: ignore[untyped-decorator]
def _flip_simple(image: Array, ys: Array, xs: Array) -> int:
    """Flip, in order, the given pixels that are simple by then."""
    flipped = 0
    for n in range(len(ys)):
        y, x = ys[n], xs[n]
        if _runs(image, y, x) == 1:
            image[y, x] = not image[y, x]
            flipped += 1
    return flipped


@njit(cache=True)  # type: ignore[untyped-decorator]
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
            kinds[n] = 1 if several else 0
        elif several or _parts(objects, seen, queue, y, x, 4 * n + 4):
            kinds[n] = 2
    return kinds


@njit(cache=True)  # type: ignore[untyped-decorator]
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


def plane_sums(
    plain: Sequence[Contingency],
    thinned: Sequence[Contingency],
    errors: tuple[Array, Array],
) -> dict[str, Array]:
    """Take the sums of one plane.

    Parameters
    ----------
    plain, thinned : sequence of Contingency
        Of its pieces as they are and thinned, one table a unit.
    errors : tuple of ndarray, shape (U,)
        Errors of topology and pixels, as `Topology.by_block` has them.

    Returns
    -------
    dict of str to ndarray of float64, shape (U, M)
        By score; planes of one image add up.
    """
    joined, single = _pieces(plain), _pieces(thinned)
    unit, table = contingency.stack(plain)
    true, pred = table.true != 0, table.pred != 0
    in_both, in_true, in_pred = (
        np.bincount(unit[chosen], table.counts[chosen], minlength=len(plain))
        for chosen in (true & pred, true, pred)
    )
    shared = single["both2"] + single["border"]
    pairs = [joined[f"{name}2"] - joined[name] for name in ("both", "true", "pred")]
    return {
        "v_rand": _stack(2 * shared, single["true2"] + single["pred2"] + single["border"]),
        "v_info": _stack(*(single[n] for n in ("count", "both_bits", "true_bits", "pred_bits"))),
        "warping_error": _stack(*errors),
        "isbi_rand": _stack(pairs[1] + pairs[2] - 2 * pairs[0], pairs[1] + pairs[2]),
        "isbi_pixel": _stack(in_true + in_pred - 2 * in_both, in_true + in_pred),
    }


def _stack(*columns: Array) -> Array:
    return np.stack(columns, axis=-1).astype(float)


def _pieces(units: Sequence[Contingency]) -> dict[str, Array]:
    """Measure the pieces on the pixels of true objects; predicted border is single pixels."""
    whole = contingency.merge(units)
    counts = whole.counts.astype(float)
    hit = (whole.true != 0) & (whole.pred != 0)
    true, pred = whole.segments("true"), whole.segments("pred")
    true_unit, pred_unit = (unit_of_segment(units, side) for side in ("true", "pred"))
    sizes = np.bincount(pred.row[hit], counts[hit], minlength=len(pred.ids))
    unit, table = contingency.stack(units)
    border = (table.true != 0) & (table.pred == 0)
    objects = true.ids != 0
    parts = {
        "both": (true_unit[true.row[hit]], counts[hit]),
        "true": (true_unit[objects], true.sizes[objects].astype(float)),
        "pred": (pred_unit, sizes),
    }

    def add(at: Array, values: Array) -> Array:
        return np.bincount(at, values, minlength=len(units))

    found = {"border": add(unit[border], table.counts[border].astype(float))}
    for name, (at, values) in parts.items():
        found[name] = add(at, values)
        found[f"{name}2"] = add(at, values**2)
        found[f"{name}_bits"] = add(at, values * np.log2(np.maximum(values, 1)))
    return found | {"count": found["true"]}


def v_info(keys: Array, sums: Array) -> Array:
    """Take 2 I / (H + H) of entropies, each the logarithm of all less the mean of the own."""
    count, both, true, pred = np.moveaxis(sums, -1, 0)
    there = count > 0
    share = np.divide(1, count, out=np.zeros(np.shape(count)), where=there)
    logarithm = np.log2(np.maximum(count, 1))
    whole = 2 * logarithm - (true + pred) * share
    joint = logarithm - both * share
    nothing = np.where(there, 1.0, np.nan)
    known = there & (whole > 0)
    return np.asarray(np.divide(2 * (whole - joint), whole, out=nothing, where=known))
