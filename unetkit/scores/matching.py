"""Which objects of truth and prediction meet, and what is wrong with those that do not.

What this module does not know: where a table comes from, and how scores are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

if TYPE_CHECKING:
    from unetkit.scores.contingency import Contingency, Segments

Array = np.ndarray[Any, Any]

# The IoU at and above which two objects match, in percent: whole numbers compare exactly.
THRESHOLDS = tuple(range(50, 100, 5))


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of a true and a predicted object that share pixels.

    Attributes
    ----------
    true, pred : Segments
        The objects of either side, background too.
    rows, columns : ndarray of int64, shape (P,)
        The true and the predicted segment of each pair.
    shared : ndarray of int64, shape (P,)
        Pixels that both have.
    """

    true: Segments
    pred: Segments
    rows: Array
    columns: Array
    shared: Array

    @cached_property
    def unions(self) -> Array:
        """Pixels that either of a pair has."""
        return self.true.sizes[self.rows] + self.pred.sizes[self.columns] - self.shared

    @cached_property
    def covers_true(self) -> Array:
        """Whether the predicted object has more than half of the true one."""
        return 2 * self.shared > self.true.sizes[self.rows]

    @cached_property
    def covers_pred(self) -> Array:
        """Whether the true object has more than half of the predicted one."""
        return 2 * self.shared > self.pred.sizes[self.columns]

    def matches(self, percent: int) -> Array:
        """Choose the largest set of one-to-one pairs with an IoU of `percent` / 100 or more.

        Parameters
        ----------
        percent : int
            From 50 to 100; whole numbers compare exactly.

        Returns
        -------
        ndarray of int64
            Numbers of the chosen pairs.
        """
        close = np.flatnonzero(100 * self.shared >= percent * self.unions)
        # Above one half two objects can have only each other.
        if percent > 50 or len(close) == 0:
            return close
        rows, columns = self.rows[close], self.columns[close]
        graph = csr_array((np.ones(len(close)), (rows, columns)))
        partner = maximum_bipartite_matching(graph, perm_type="column")
        chosen: Array = close[partner[rows] == columns]
        return chosen


def overlaps(table: Contingency) -> Overlaps:
    """Find the pairs of objects that share pixels.

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    Overlaps
    """
    true, pred = table.segments("true"), table.segments("pred")
    both = (table.true != 0) & (table.pred != 0)
    return Overlaps(true, pred, true.row[both], pred.row[both], table.counts[both])


@dataclass(frozen=True, eq=False)
class Errors:
    """What became of each object.

    Attributes
    ----------
    true, pred : ndarray of str, shape (S,)
        For each segment of either side `match`, `split`, `merge`, `miss` or `false`, `inexact`, and
        empty for background.
    true_partner, pred_partner : ndarray of int64, shape (S,)
        The segment of the other side with which it shares most of its pixels; -1 for none.
    true_iou, pred_iou : ndarray of float64, shape (S,)
        IoU with that segment.
    true_parts, pred_parts : ndarray of int64, shape (S,)
        Of how many objects of the other side it covers more than half.
    splits, merges, misses, false_objects : int
        True objects that cover more than half of several predicted ones; predicted objects that
        cover more than half of several true ones; objects of either side that share more than
        half, of themselves or of the other, with none.
    """

    true: Array
    pred: Array
    true_partner: Array
    pred_partner: Array
    true_iou: Array
    pred_iou: Array
    true_parts: Array
    pred_parts: Array
    splits: int
    merges: int
    misses: int
    false_objects: int


def errors(pairs: Overlaps) -> Errors:
    """Find splits, merges, misses and false objects.

    An object that matches at an IoU of 0.5 is a `match` whatever else it touches.

    Parameters
    ----------
    pairs : Overlaps

    Returns
    -------
    Errors
    """
    parts = np.bincount(pairs.rows[pairs.covers_pred], minlength=len(pairs.true.ids))
    wholes = np.bincount(pairs.columns[pairs.covers_true], minlength=len(pairs.pred.ids))
    linked = pairs.covers_true | pairs.covers_pred
    in_split = _any(pairs.columns, pairs.covers_pred & (parts[pairs.rows] > 1), len(wholes))
    in_merge = _any(pairs.rows, pairs.covers_true & (wholes[pairs.columns] > 1), len(parts))
    matched = pairs.matches(50)
    true = _kinds(
        pairs.true,
        match=np.isin(np.arange(len(parts)), pairs.rows[matched]),
        split=parts > 1,
        merge=in_merge,
        alone=~_any(pairs.rows, linked, len(parts)),
        word="miss",
    )
    pred = _kinds(
        pairs.pred,
        match=np.isin(np.arange(len(wholes)), pairs.columns[matched]),
        split=in_split,
        merge=wholes > 1,
        alone=~_any(pairs.columns, linked, len(wholes)),
        word="false",
    )
    iou = pairs.shared / np.maximum(pairs.unions, 1)
    true_partner, true_iou = _nearest(pairs.rows, pairs.columns, pairs.shared, iou, len(parts))
    pred_partner, pred_iou = _nearest(pairs.columns, pairs.rows, pairs.shared, iou, len(wholes))
    return Errors(
        true=true,
        pred=pred,
        true_partner=true_partner,
        pred_partner=pred_partner,
        true_iou=true_iou,
        pred_iou=pred_iou,
        true_parts=parts,
        pred_parts=wholes,
        splits=int((parts > 1).sum()),
        merges=int((wholes > 1).sum()),
        misses=int((true == "miss").sum()),
        false_objects=int((pred == "false").sum()),
    )


def _any(places: Array, chosen: Array, size: int) -> Array:
    """Mark the segments that any chosen pair has."""
    marks = np.zeros(size, bool)
    marks[places[chosen]] = True
    return marks


def _kinds(
    side: Segments, *, match: Array, split: Array, merge: Array, alone: Array, word: str
) -> Array:
    """Give each object the first kind that fits."""
    kinds = np.select(
        [side.ids == 0, match, split, merge, alone],
        ["", "match", "split", "merge", word],
        default="inexact",
    )
    return np.asarray(kinds)


def _nearest(own: Array, other: Array, shared: Array, iou: Array, size: int) -> tuple[Array, Array]:
    """Find for each segment the one it shares most with; the lower number where two share alike."""
    order = np.lexsort((-other, shared, own))  # the last of a segment is the one
    partner, best = np.full(size, -1), np.zeros(size)
    partner[own[order]], best[own[order]] = other[order], iou[order]
    return partner, best
