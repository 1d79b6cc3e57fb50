"""The sums by unit that scores of pixels and of objects are made of.

What this module does not know: what is drawn from them. A unit is an image, or a square of one; an
object of a single image belongs to the square that has most of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import matching, segment_sums
from unetkit.arrays.metrics import THRESHOLDS
from unetkit.arrays.sums import share, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.arrays.contingency import Contingency, Segments
    from unetkit.arrays.sums import Sums

Array = np.ndarray[Any, Any]
# By score.
Shares = dict[str, "Sums"]


def of_instances(table: Contingency, *, one_image: bool = False) -> Shares:
    """Take the sums of every score of instances, unit by unit.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    one_image : bool
        The units are parts of one image: an object belongs to the part that has most of it.

    Returns
    -------
    dict of str to Sums
    """
    shares = _of_pixels(table.foreground(), labels=[1])
    whole = table.joined() if one_image else table
    sides = [whole.segments(side) for side in ("true", "pred")]
    homes = [segment_sums.homes(table, side, one_image=one_image) for side in ("true", "pred")]
    true, pred = zip(sides, homes, strict=True)
    shares |= _of_objects(matching.overlaps(whole), true, pred, units=table.images)
    return shares | segment_sums.of_segments(table, one_image=one_image)


def of_classes(table: Contingency) -> Shares:
    """Take the sums of every score of a class map, unit by unit.

    Parameters
    ----------
    table : Contingency
        Its images are the units.

    Returns
    -------
    dict of str to Sums
        A term for each class from 1 to the largest that occurs.
    """
    most = int(max(table.true.max(initial=0), table.pred.max(initial=0)))
    return _of_pixels(table, labels=range(1, most + 1))


def _of_pixels(table: Contingency, *, labels: Sequence[int]) -> Shares:
    def count(chosen: Array) -> Array:
        return np.bincount(table.image[chosen], table.counts[chosen], minlength=table.images)

    every = count(np.ones(len(table), bool))
    right = count(table.true == table.pred)
    both = [count((table.true == n) & (table.pred == n)) for n in labels]
    true, pred = ([count(side == n) for n in labels] for side in (table.true, table.pred))
    shares = {"pixel_error": share((every - right, every)), "accuracy": share((right, every))}
    if labels:
        rows = list(zip(both, true, pred, strict=True))
        shares["dice"] = share(*((2 * b, t + p) for b, t, p in rows))
        shares["iou"] = share(*((b, t + p - b) for b, t, p in rows))
        shares["precision"] = share(*((b, p) for b, _, p in rows))
        shares["recall"] = share(*((b, t) for b, t, _ in rows))
    return shares


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
        "average_precision": share(*at.values()),
        **{f"average_precision_{percent}": share(term) for percent, term in at.items()},
        "f1": share((2 * found[50], objects)),
        "pq": share((total, half)),
        "sq": share((total, well)),
        "rq": share((well, half)),
        "seg": share((count(home[covers], iou[covers]), n_true)),
        "det": share((nothing - cost, nothing)),
        **_errors(pairs, true[1], pred[1], units=units),
    }


def _errors(pairs: matching.Overlaps, true: Array, pred: Array, *, units: int) -> Shares:
    """Count what went wrong where the object lies that it went wrong with."""
    found = matching.errors(pairs)
    rows = {
        "splits": true[found.true_parts > 1],
        "merges": pred[found.pred_parts > 1],
        "misses": true[found.true == "miss"],
        "false_objects": pred[found.pred == "false"],
    }
    return {name: total(np.bincount(at, minlength=units)) for name, at in rows.items()}
