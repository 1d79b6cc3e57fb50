"""Sums that scores are made of, unit by unit.

A unit is a sample: the table of its image or images, in a list. What this module does not know:
what scores are called and which are best. The score of any choice of units is the formula of the
sum over these units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.scores import contingency, matching

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unetkit.scores.contingency import Contingency, Segments
    from unetkit.scores.formulas import Formula

Array = np.ndarray[Any, Any]
# What each column sums up, from low to high, shape (M,), and the sums by unit, shape (U, M).
Columns = tuple[Array, Array]

# What the Cell Tracking Challenge charges to mend a detection: split, add, delete a node.
SPLIT_COST, MISS_COST, FALSE_COST = 5, 10, 1
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
    formula : callable
        Gives the score of keys and sums.
    """

    keys: Array
    by_unit: Array
    formula: Formula

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
        return np.asarray(self.formula(self.keys, sums), np.float64)

    def overall(self) -> float | None:
        """Give the score of all units as one; None where it does not apply."""
        found = float(self.of(self.by_unit.sum(axis=0)))
        return found if np.isfinite(found) else None

    def grouped(self, names: Sequence[str]) -> Sums:
        """Add up the units of one group.

        Parameters
        ----------
        names : sequence of str
            The group of each unit.

        Returns
        -------
        Sums
            Of the groups, by name.
        """
        known, group = np.unique(names, return_inverse=True)
        by_group = np.zeros((len(known), self.by_unit.shape[1]))
        np.add.at(by_group, group, self.by_unit)
        return replace(self, by_unit=by_group)


def aligned(first: Sums, second: Sums) -> tuple[Sums, Sums]:
    """Give the sums of two predictions the same columns.

    Parameters
    ----------
    first, second : Sums
        Of the same score.
    """
    keys = np.union1d(first.keys, second.keys)

    def spread(side: Sums) -> Sums:
        by_unit = np.zeros((len(side.by_unit), len(keys)))
        by_unit[:, np.searchsorted(keys, side.keys)] = side.by_unit
        return Sums(keys, by_unit, side.formula)

    return spread(first), spread(second)


def best_of(choices: Sequence[Sums], *, highest: bool) -> Sums:
    """Make the best of several scores, chosen anew for every choice of units.

    Parameters
    ----------
    choices : sequence of Sums
        Of the same units, one a threshold.
    highest : bool
        Whether the highest is best.
    """
    choose = np.fmax if highest else np.fmin

    def formula(keys: Array, sums: Array) -> Array:
        parts = []
        for n, choice in enumerate(choices):
            own = keys // _APART == n
            parts.append(choice.formula(keys[own] % _APART, sums[..., own]))
        found: Array = choose.reduce(np.stack(parts), axis=0)
        return found

    keys = np.concatenate([choice.keys + n * _APART for n, choice in enumerate(choices)])
    return Sums(keys, np.concatenate([c.by_unit for c in choices], axis=1), formula)


def columns(*sums: Array) -> Columns:
    """Set sums side by side, numbered from 0.

    Parameters
    ----------
    *sums : ndarray, shape (U,)
    """
    return np.arange(len(sums)), np.stack(sums, axis=-1).astype(float)


def _units_of_segments(units: Sequence[Contingency], side: Segments) -> Array:
    """Find the unit of each segment: that of its image."""
    unit, table = contingency.stack(units)
    of_image = np.zeros(table.images, np.int64)
    of_image[table.image] = unit
    return np.asarray(of_image[side.image])


def pixel_sums(units: Sequence[Contingency], labels: Iterable[int]) -> dict[str, Columns]:
    """Take the sums of every score of pixels.

    Parameters
    ----------
    units : sequence of Contingency
    labels : iterable of int
        Those whose overlap is averaged, from low to high.
    """
    unit, table = contingency.stack(units)

    def add(chosen: Array) -> Array:
        return _add(unit[chosen], table.counts[chosen], len(units))

    every, right = add(np.ones(len(table), bool)), add(table.true == table.pred)
    found = {"pixel_error": columns(every - right, every), "accuracy": columns(right, every)}
    terms: dict[str, list[Array]] = {"dice": [], "iou": [], "recall": []}
    keys, shares = [], []
    for label in labels:
        in_true, in_pred = table.true == label, table.pred == label
        both, true, pred = add(in_true & in_pred), add(in_true), add(in_pred)
        terms["dice"] += [2 * both, true + pred]
        terms["iou"] += [both, true + pred - both]
        shares += [both, pred, true]
        terms["recall"] += [both, true]
        keys += [2 * label, 2 * label + 1]
    if keys:
        found |= {name: (np.array(keys), columns(*sums)[1]) for name, sums in terms.items()}
        threes = 3 * np.repeat(keys[::2], 3) // 2 + np.tile(np.arange(3), len(keys) // 2)
        found["precision"] = threes, columns(*shares)[1]
    return found


def object_sums(units: Sequence[Contingency]) -> dict[str, Columns]:
    """Take the sums of every score of objects."""
    pairs = matching.overlaps(contingency.merge(units))
    true, pred = matching.errors(pairs)
    true_unit, pred_unit = (_units_of_segments(units, side) for side in (pairs.true, pairs.pred))

    def add(at: Array, weights: Array | None = None) -> Array:
        return _add(at, weights, len(units))

    n_true, n_pred = add(true_unit[pairs.true.ids != 0]), add(pred_unit[pairs.pred.ids != 0])
    objects, half = n_true + n_pred, (n_true + n_pred) / 2
    iou = pairs.shared / np.maximum(pairs.unions, 1)
    at = true_unit[pairs.rows]
    matched = {percent: add(at[pairs.matches(percent)]) for percent in matching.THRESHOLDS}
    precision = {percent: (tp, objects - tp) for percent, tp in matched.items()}
    above, covers = 2 * pairs.shared > pairs.unions, pairs.covers_true
    total, well = add(at[above], iou[above]), add(at[above])
    covered = pairs.columns[covers]
    detected = add(pred_unit[np.unique(covered)])
    cost = (
        SPLIT_COST * (add(pred_unit[covered]) - detected)
        + MISS_COST * (n_true - add(at[covers]))
        + FALSE_COST * (n_pred - detected)
    )
    return {
        "average_precision": columns(*(side for term in precision.values() for side in term)),
        **{f"average_precision_{percent}": columns(*term) for percent, term in precision.items()},
        "f1": columns(2 * matched[50], objects),
        "pq": columns(total, half),
        "sq": columns(total, well),
        "rq": columns(well, half),
        "seg": columns(add(at[covers], iou[covers]), n_true),
        "det": columns(cost, MISS_COST * n_true),
        "splits": columns(add(true_unit[true.parts > 1])),
        "merges": columns(add(pred_unit[pred.parts > 1])),
        "misses": columns(add(true_unit[true.kinds == "miss"])),
        "false_objects": columns(add(pred_unit[pred.kinds == "false"])),
        "objects_true": columns(n_true),
        "objects_predicted": columns(n_pred),
        "objects_matched": columns(matched[50]),
    }


def segment_sums(units: Sequence[Contingency]) -> dict[str, Columns]:
    """Take the sums of every score of segments, of which the background of an image is one."""
    whole = contingency.merge(units)
    true, pred = whole.segments("true"), whole.segments("pred")
    true_unit, pred_unit = (_units_of_segments(units, side) for side in (true, pred))
    counts, at = whole.counts.astype(float), true_unit[true.row]

    def add(at: Array, values: Array) -> Array:
        return _add(at, values, len(units))

    def bits(segments: Segments) -> Array:
        return add(at, counts * np.log2(segments.sizes[segments.row] / counts))

    pixels, inside = add(at, counts), whole.true != 0
    squares = [
        add(home, side.sizes.astype(float) ** 2)
        for home, side in ((true_unit, true), (pred_unit, pred))
    ]
    objects = true.ids != 0
    overlap = np.bincount(pred.row[inside], counts[inside], minlength=len(pred.ids))
    split, merge = bits(true), bits(pred)
    return {
        "rand": columns(pixels, *squares, add(at, counts**2)),
        "adapted_rand_error": columns(
            add(at[inside], counts[inside] ** 2),
            add(true_unit[objects], true.sizes[objects].astype(float) ** 2),
            add(pred_unit, overlap**2),
            add(at[inside], counts[inside]),
        ),
        "voi": columns(pixels, split, merge),
        "voi_split": columns(pixels, split),
        "voi_merge": columns(pixels, merge),
    }


def _add(at: Array, weights: Array | None, units: int) -> Array:
    """Sum up by unit; for a single one pairwise, which rounds least."""
    if units > 1:
        return np.bincount(at, weights, minlength=units)
    return np.array([len(at) if weights is None else weights.sum()])
