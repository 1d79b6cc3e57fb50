"""Scores as functions of sums that add up over images, or over squares of one image.

What this module does not know: which score needs which sums. The score of any choice of units is
the function of the sum over these units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.scores import matching
from unetkit.scores.matching import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.scores.contingency import Contingency, Segments

Array = np.ndarray[Any, Any]
# Takes the keys of the columns, shape (M,), and sums, shape (..., M); returns shape (...), NaN
# where the score does not apply.
Score = "Callable[[Array, Array], Array]"

# Sums of different thresholds stand side by side, this far apart.
_APART = 2**32


@dataclass(frozen=True, eq=False)
class Sums:
    """What one score is made of, unit by unit.

    Attributes
    ----------
    keys : ndarray of int64, shape (M,)
        What each column sums up, from low to high; a column that is not there is 0 everywhere.
    by_unit : ndarray of float64, shape (U, M)
    score : callable
        Gives the score of keys and sums.
    """

    keys: Array
    by_unit: Array
    score: Callable[[Array, Array], Array]

    def of(self, sums: Array) -> Array:
        """Work out the score of sums.

        Parameters
        ----------
        sums : ndarray of float64, shape (..., M)

        Returns
        -------
        ndarray of float64, shape (...)
            NaN where it does not apply.
        """
        return np.asarray(self.score(self.keys, sums), np.float64)

    def overall(self) -> float | None:
        """Give the score of all units as one; None where it does not apply."""
        found = float(self.of(self.by_unit.sum(axis=0)))
        return found if np.isfinite(found) else None


def aligned(ours: Sums, theirs: Sums) -> tuple[Sums, Sums]:
    """Give two sides the same columns.

    Parameters
    ----------
    ours, theirs : Sums
        Of the same score.

    Returns
    -------
    tuple of Sums
    """
    keys = np.union1d(ours.keys, theirs.keys)

    def spread(side: Sums) -> Sums:
        by_unit = np.zeros((len(side.by_unit), len(keys)))
        by_unit[:, np.searchsorted(keys, side.keys)] = side.by_unit
        return Sums(keys, by_unit, side.score)

    return spread(ours), spread(theirs)


def share(*terms: tuple[Array, Array]) -> Sums:
    """Make the mean over terms of (sum of parts) / (sum of wholes).

    Parameters
    ----------
    *terms : tuple of ndarray, shape (U,)
        Parts and wholes by unit; a term whose wholes are 0 is left out.

    Returns
    -------
    Sums
    """
    columns = [np.asarray(side, float) for term in terms for side in term]
    return Sums(np.arange(len(columns)), np.stack(columns, axis=-1), mean_share)


def total(counts: Array) -> Sums:
    """Make a plain count.

    Parameters
    ----------
    counts : ndarray, shape (U,)

    Returns
    -------
    Sums
    """
    return Sums(np.arange(1), np.asarray(counts, float)[:, None], _only)


def best(choices: Sequence[Sums], *, highest: bool) -> Sums:
    """Make the best of several scores, chosen anew for every choice of units.

    Parameters
    ----------
    choices : sequence of Sums
        Of the same units, one a threshold.
    highest : bool
        Whether the highest is best.

    Returns
    -------
    Sums
    """
    choose = np.fmax if highest else np.fmin

    def score(keys: Array, sums: Array) -> Array:
        parts = []
        for n, choice in enumerate(choices):
            own = keys // _APART == n
            parts.append(choice.score(keys[own] % _APART, sums[..., own]))
        found: Array = choose.reduce(np.stack(parts), axis=0)
        return found

    keys = np.concatenate([choice.keys + n * _APART for n, choice in enumerate(choices)])
    return Sums(keys, np.concatenate([c.by_unit for c in choices], axis=1), score)


def mean_share(keys: Array, sums: Array) -> Array:
    """Take the mean over terms of part / whole; columns 2k and 2k + 1 are a term.

    Parameters
    ----------
    keys : ndarray of int64, shape (2 K,)
    sums : ndarray of float64, shape (..., 2 K)

    Returns
    -------
    ndarray of float64, shape (...)
        NaN where every whole is 0. What costs more to mend than to begin anew is worth nothing, as
        `matching.det` has it.
    """
    terms = sums.reshape(*sums.shape[:-1], -1, 2)
    there = terms[..., 1] != 0
    found = np.divide(terms[..., 0], terms[..., 1], out=np.zeros(there.shape), where=there)
    return np.maximum(mean_where(found, there), 0)


def mean_where(values: Array, there: Array) -> Array:
    """Average what is there along the last axis; NaN where nothing is.

    Parameters
    ----------
    values : ndarray of float64, shape (..., K)
    there : ndarray of bool, shape (..., K)
    """
    count = there.sum(axis=-1)
    added = np.where(there, values, 0).sum(axis=-1)
    found: Array = np.divide(added, count, out=np.full(count.shape, np.nan), where=count > 0)
    return found


def _only(keys: Array, sums: Array) -> Array:
    return sums[..., 0]


def homes(table: Contingency, side: str, *, one_image: bool) -> Array:
    """Find the unit of each segment: its image, or the part of the image that has most of it.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    side : {"true", "pred"}
    one_image : bool
        The units are parts of one image.

    Returns
    -------
    ndarray of int64, shape (S,)
        By segment of the table, or for one image of the joined table; the first part where two
        have as much.
    """
    parts = table.segments(side)
    image = np.empty(len(parts.ids), np.int64)
    image[parts.row] = table.image
    if not one_image:
        return image
    order = np.lexsort((-image, parts.sizes, parts.ids))  # the last of an id is its home
    last = np.append(np.diff(parts.ids[order].astype(np.int64)) != 0, [True] * (len(order) > 0))
    own: Array = image[order][last]
    return own


def of_segments(table: Contingency, *, one_image: bool) -> dict[str, Sums]:
    """Take the sums of every score of segments.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    one_image : bool
        The units are parts of one image.

    Returns
    -------
    dict of str to Sums
    """
    whole = table.joined() if one_image else table
    true, pred = whole.segments("true"), whole.segments("pred")
    home_true, home_pred = (homes(table, side, one_image=one_image) for side in ("true", "pred"))
    # Only of a single image is background a segment that no unit has for itself.
    ground_true, ground_pred = ((ids == 0) & one_image for ids in (whole.true, whole.pred))
    void = ground_true & ground_pred
    at_true = np.where(ground_true, home_pred[pred.row], home_true[true.row])
    at_pred = np.where(ground_pred, home_true[true.row], home_pred[pred.row])
    counts = whole.counts.astype(float)

    def add(at: Array, values: Array, chosen: Array) -> Array:
        return np.bincount(at[chosen], values[chosen], minlength=table.images)

    both = (table.true == 0) & (table.pred == 0) & one_image
    empty = add(table.image, table.counts, both)
    sides = []
    for at, ground, segments, home in (
        (at_true, ground_true, true, home_true),
        (at_pred, ground_pred, pred, home_pred),
    ):
        kept = (segments.ids != 0) | (not one_image)
        sides.append(
            {
                "pixels": add(at, counts, ~void) + empty,
                "ground": add(at, counts, ground & ~void) + empty,
                "squares": add(home, segments.sizes.astype(float) ** 2, kept),
                "surprise": add(home, _surprise(segments.sizes), kept),
                "shared": add(at, _surprise(counts), ~void),
            }
        )
    joint = add(at_true, counts**2, ~void)
    names = ("pixels", "surprise", "shared", "ground")
    split, merged = ([*(side[name] for name in names), empty] for side in sides)
    squares, grounds = ([side[name] for side in sides] for name in ("squares", "ground"))
    return {
        "rand": _sums(_rand, sides[0]["pixels"], *squares, joint, *grounds, empty),
        "adapted_rand_error": _adapted_sums(
            table, (true, pred), (home_true, home_pred), one_image=one_image
        ),
        "voi": _sums(_information, *split, *merged),
        "voi_split": _sums(_information, *split),
        "voi_merge": _sums(_information, *merged),
    }


def _adapted_sums(
    table: Contingency,
    sides: tuple[Segments, Segments],
    own: tuple[Array, Array],
    *,
    one_image: bool,
) -> Sums:
    """Take the sums of the pairs of pixels inside true objects."""
    whole = table.joined() if one_image else table
    (true, pred), (home_true, home_pred) = sides, own
    counts = whole.counts.astype(float)
    inside = whole.true != 0
    missed = inside & (whole.pred == 0) & one_image
    sizes = np.bincount(pred.row[inside], counts[inside], minlength=len(pred.ids))
    kept = (pred.ids != 0) | (not one_image)
    objects = true.ids != 0

    def at_home(chosen: Array, values: Array) -> Array:
        return np.bincount(home_true[true.row[chosen]], values[chosen], minlength=table.images)

    return _sums(
        _adapted,
        at_home(inside, counts**2),
        np.bincount(
            home_true[objects], true.sizes[objects].astype(float) ** 2, minlength=table.images
        ),
        np.bincount(home_pred[kept], sizes[kept] ** 2, minlength=table.images),
        at_home(missed, counts),
        at_home(inside, counts),
    )


def _sums(score: Callable[[Array, Array], Array], *columns: Array) -> Sums:
    return Sums(np.arange(len(columns)), np.stack(columns, axis=-1).astype(float), score)


def _columns(sums: Array) -> Array:
    """Put the columns first."""
    return np.moveaxis(sums, -1, 0)


def _rand(keys: Array, sums: Array) -> Array:
    pixels, true, pred, joint, ground_true, ground_pred, empty = _columns(sums)
    pairs = pixels * (pixels - 1)
    differing = true + ground_true**2 + pred + ground_pred**2 - 2 * (joint + empty**2)
    return 1 - _divide(differing, pairs)


def _adapted(keys: Array, sums: Array) -> Array:
    both, true, pred, missed, pixels = _columns(sums)
    # Pairs of two pixels, so that none is paired with itself.
    whole = true + pred + missed**2 - 2 * pixels
    return np.clip(_divide(whole - 2 * (both - pixels), whole), 0, None)


def _information(keys: Array, sums: Array) -> Array:
    """Add up the conditional entropies of one direction or of both."""
    terms = sums.reshape(*sums.shape[:-1], -1, 5)
    pixels, sizes, shared, ground, empty = _columns(terms)
    bits = _divide(sizes + _surprise(ground) - shared - _surprise(empty), pixels)
    return np.asarray(np.clip(bits, 0, None).sum(axis=-1))


def _surprise(counts: Array) -> Array:
    return np.asarray(counts * np.log2(np.maximum(counts, 1)))


def _divide(part: Array, whole: Array) -> Array:
    nothing = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))


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
    units_of = [homes(table, side, one_image=one_image) for side in ("true", "pred")]
    true, pred = zip(sides, units_of, strict=True)
    shares |= _of_objects(matching.overlaps(whole), true, pred, units=table.images)
    return shares | of_segments(table, one_image=one_image)


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
