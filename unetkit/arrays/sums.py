"""Scores as functions of sums that add up over images, or over squares of one image.

What this module does not know: which score needs which sums. The score of any choice of units is
the function of the sum over these units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
