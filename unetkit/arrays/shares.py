"""Scores as shares of sums that add up over images or squares of an image.

What this module does not know: what is drawn from them. A score is the mean over its terms of
(sum of parts) / (sum of wholes), so that the score of any choice of units is a sum away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import matching
from unetkit.arrays.metrics import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.arrays.contingency import Contingency, Segments

Array = np.ndarray[Any, Any]
# By score: ndarray of float64, shape (units, terms, 2), parts and wholes.
Shares = dict[str, Array]


def of_instances(table: Contingency, *, one_image: bool = False) -> Shares:
    """Take the sums of every score of instances, unit by unit.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    one_image : bool
        The units are parts of one image: an object belongs to the part that has most of it, and
        scores of segments, which are no sums over parts, are left out.

    Returns
    -------
    dict of str to ndarray of float64, shape (U, K, 2)
    """
    shares = _of_pixels(table.foreground(), labels=[1])
    pairs = matching.overlaps(table.joined() if one_image else table)
    homes = [_homes(table, side, one_image=one_image) for side in ("true", "pred")]
    shares |= _of_objects(pairs, homes[0], homes[1], units=table.images)
    return shares if one_image else shares | _of_segments(table)


def of_classes(table: Contingency) -> Shares:
    """Take the sums of every score of a class map, unit by unit.

    Parameters
    ----------
    table : Contingency
        Its images are the units.

    Returns
    -------
    dict of str to ndarray of float64, shape (U, K, 2)
        A term for each class from 1 to the largest that occurs.
    """
    most = int(max(table.true.max(initial=0), table.pred.max(initial=0)))
    return _of_pixels(table, labels=range(1, most + 1))


def value(shares: Array) -> Array:
    """Work out a score from sums.

    Parameters
    ----------
    shares : ndarray of float64, shape (..., K, 2)
        Parts and wholes; the mean is over the terms whose whole is not 0.

    Returns
    -------
    ndarray of float64, shape (...)
        NaN where every whole is 0.
    """
    there = shares[..., 1] != 0
    terms = np.divide(shares[..., 0], shares[..., 1], out=np.zeros(there.shape), where=there)
    count = there.sum(axis=-1)
    nothing = np.full(count.shape, np.nan)
    means: Array = np.divide(terms.sum(axis=-1), count, out=nothing, where=count > 0)
    # What costs more to mend than to begin anew is worth nothing, as `det` has it.
    return np.asarray(np.maximum(means, 0))


def _stack(*terms: tuple[Array, Array]) -> Array:
    """Lay parts and wholes of several terms side by side."""
    return np.stack([np.stack(term, axis=-1) for term in terms], axis=1).astype(float)


def _of_pixels(table: Contingency, *, labels: Sequence[int]) -> Shares:
    def count(chosen: Array) -> Array:
        return np.bincount(table.image[chosen], table.counts[chosen], minlength=table.images)

    every = count(np.ones(len(table), bool))
    right = count(table.true == table.pred)
    both = [count((table.true == n) & (table.pred == n)) for n in labels]
    true, pred = ([count(side == n) for n in labels] for side in (table.true, table.pred))
    shares = {"pixel_error": _stack((every - right, every)), "accuracy": _stack((right, every))}
    if labels:
        rows = list(zip(both, true, pred, strict=True))
        shares["dice"] = _stack(*((2 * b, t + p) for b, t, p in rows))
        shares["iou"] = _stack(*((b, t + p - b) for b, t, p in rows))
        shares["precision"] = _stack(*((b, p) for b, _, p in rows))
        shares["recall"] = _stack(*((b, t) for b, t, _ in rows))
    return shares


def _homes(table: Contingency, side: str, *, one_image: bool) -> tuple[Segments, Array]:
    """Find the unit of each segment: its image, or the part of the image that has most of it."""
    parts = table.segments(side)
    image = np.empty(len(parts.ids), np.int64)
    image[parts.row] = table.image
    if not one_image:
        return parts, image
    order = np.lexsort((-image, parts.sizes, parts.ids))  # the last of an id is its home
    last = np.append(np.diff(parts.ids[order].astype(np.int64)) != 0, [True] * (len(order) > 0))
    return table.joined().segments(side), image[order][last]


def _of_objects(
    pairs: matching.Overlaps,
    true: tuple[Segments, Array],
    pred: tuple[Segments, Array],
    *,
    units: int,
) -> Shares:
    def count(places: Array, weights: Array | None = None) -> Array:
        return np.bincount(places, weights, minlength=units)

    n_true, n_pred = (count(homes[side.ids != 0]) for side, homes in (true, pred))
    iou = pairs.shared / np.maximum(pairs.unions, 1)
    home = true[1][pairs.rows]
    found = {percent: count(home[pairs.matches(percent)]) for percent in THRESHOLDS}
    above = 2 * pairs.shared > pairs.unions
    covered, detecting = pairs.columns[pairs.covers_true], pred[1]
    hits = count(home[pairs.covers_true])
    detected = count(detecting[np.unique(covered)])
    # Further objects that a predicted one covers count where that one lies.
    further = count(detecting[covered]) - detected
    cost = (
        matching.SPLIT_COST * further
        + matching.MISS_COST * (n_true - hits)
        + matching.FALSE_COST * (n_pred - detected)
    )
    objects, half = n_true + n_pred, (n_true + n_pred) / 2
    total, well = count(home[above], iou[above]), count(home[above])
    at = {percent: (tp, objects - tp) for percent, tp in found.items()}
    nothing = matching.MISS_COST * n_true
    covers = pairs.covers_true
    return {
        "average_precision": _stack(*at.values()),
        **{f"average_precision_{percent}": _stack(term) for percent, term in at.items()},
        "f1": _stack((2 * found[50], objects)),
        "pq": _stack((total, half)),
        "sq": _stack((total, well)),
        "rq": _stack((well, half)),
        "seg": _stack((count(home[covers], iou[covers]), n_true)),
        "det": _stack((nothing - cost, nothing)),
    }


def _of_segments(table: Contingency) -> Shares:
    """Take the sums of the scores of pixel pairs and of information, image by image."""
    images = np.arange(table.images)
    inside = table.true != 0

    def squares(sizes: Array, image: Array) -> Array:
        return np.bincount(image, sizes.astype(float) ** 2, minlength=len(images))

    def surprise(sizes: Array, image: Array) -> Array:
        terms = sizes * np.log2(np.maximum(sizes, 1))
        return np.bincount(image, terms, minlength=len(images))

    sides = {side: _homes(table, side, one_image=False) for side in ("true", "pred")}
    (true, true_image), (pred, pred_image) = sides["true"], sides["pred"]
    in_pred = np.bincount(pred.row[inside], table.counts[inside], minlength=len(pred.ids))
    true_sizes = np.where(true.ids != 0, true.sizes, 0)
    # Pairs of two pixels, so that none is paired with itself.
    selves = np.bincount(table.image[inside], table.counts[inside], minlength=len(images))
    both = squares(table.counts[inside], table.image[inside]) - selves
    wholes = squares(true_sizes, true_image) + squares(in_pred, pred_image) - 2 * selves
    pixels = np.bincount(table.image, table.counts, minlength=len(images))
    joint = surprise(table.counts, table.image)
    split = surprise(true.sizes, true_image) - joint
    merged = surprise(pred.sizes, pred_image) - joint
    return {
        "adapted_rand_error": _stack((wholes - 2 * both, wholes)),
        "voi": _stack((split + merged, pixels)),
        "voi_split": _stack((split, pixels)),
        "voi_merge": _stack((merged, pixels)),
    }
