"""Which objects of truth and prediction meet, and what is wrong with those that do not.

What this module does not know: where a table comes from, and how scores are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

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
        # Loaded once pairs are there: the names of scores are asked for before any data.
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching

        rows, columns = self.rows[close], self.columns[close]
        graph = csr_array((np.ones(len(close)), (rows, columns)))
        partner = maximum_bipartite_matching(graph, perm_type="column")
        chosen: Array = close[partner[rows] == columns]
        return chosen


def overlaps(table: Contingency) -> Overlaps:
    """Find the pairs of objects that share pixels."""
    true, pred = table.segments("true"), table.segments("pred")
    both = (table.true != 0) & (table.pred != 0)
    return Overlaps(true, pred, true.row[both], pred.row[both], table.counts[both])


@dataclass(frozen=True, eq=False)
class Errors:
    """What became of each object of one side.

    Attributes
    ----------
    kinds : ndarray of str, shape (S,)
        For each segment `match`, `split`, `merge`, `miss` of the truth or `false` of a prediction,
        `inexact`, and empty for background. A `miss` or `false` object shares more than half, of
        itself or of the other, with none.
    partner : ndarray of int64, shape (S,)
        The segment of the other side with which it shares most of its pixels; -1 for none.
    iou : ndarray of float64, shape (S,)
        With that segment.
    parts : ndarray of int64, shape (S,)
        Of how many objects of the other side it covers more than half: a true object of several
        is split, a predicted one merges them.
    """

    kinds: Array
    partner: Array
    iou: Array
    parts: Array


def errors(pairs: Overlaps) -> tuple[Errors, Errors]:
    """Find splits, merges, misses and false objects, of the truth and of the prediction.

    An object that matches at an IoU of 0.5 is a `match` whatever else it touches.
    """
    rows, columns = pairs.rows, pairs.columns
    parts = np.bincount(rows[pairs.covers_pred], minlength=len(pairs.true.ids))
    wholes = np.bincount(columns[pairs.covers_true], minlength=len(pairs.pred.ids))
    # Of the pairs in which one side covers several, those that a segment belongs to.
    split = pairs.covers_pred & (parts[rows] > 1)
    merged = pairs.covers_true & (wholes[columns] > 1)
    linked, matched = pairs.covers_true | pairs.covers_pred, pairs.matches(50)
    iou = pairs.shared / np.maximum(pairs.unions, 1)

    def of(side: Segments, own: Array, other: Array, counts: Array, alone: str) -> Errors:
        def any_of(chosen: Array) -> Array:
            marks = np.zeros(len(counts), bool)
            marks[own[chosen]] = True
            return marks

        kinds = np.select(
            [side.ids == 0, any_of(matched), any_of(split), any_of(merged), ~any_of(linked)],
            ["", "match", "split", "merge", alone],
            default="inexact",
        )
        # The last of a segment shares most with it; the lower number where two share alike.
        order = np.lexsort((-other, pairs.shared, own))
        partner, best = np.full(len(counts), -1), np.zeros(len(counts))
        partner[own[order]], best[own[order]] = other[order], iou[order]
        return Errors(np.asarray(kinds), partner, best, counts)

    return (
        of(pairs.true, rows, columns, parts, "miss"),
        of(pairs.pred, columns, rows, wholes, "false"),
    )
