"""The formulas that make scores of sums; they need numpy alone, so that scores are known at once.

A formula takes the keys of the columns, shape (M,), and sums, shape (..., M), and returns shape
(...), NaN where the score does not apply. What this module does not know: how sums come about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Formula = Callable[[Array, Array], Array]

# Distances of outlines are exact up to here; farther ones are only known to be farther.
FARTHEST = 256
# In a key of a count of outline pixels: the side and the label, above the squared distance.
SIDE = 2**17
LABEL = 2 * SIDE
TRUE, PRED = 0, 1


def count(keys: Array, sums: Array) -> Array:
    """Give a plain count."""
    return np.asarray(sums[..., 0])


def mean_ratio(keys: Array, sums: Array) -> Array:
    """Take the mean over terms of part / whole; columns 2k and 2k + 1 are a term.

    A term whose whole is 0 is left out; without any the score does not apply.
    """
    terms = sums.reshape(*sums.shape[:-1], -1, 2)
    there = terms[..., 1] != 0
    ratios = np.divide(terms[..., 0], terms[..., 1], out=np.zeros(there.shape), where=there)
    # One after the other, so that a score has the same bits however many are worked out at once.
    added = np.cumsum(ratios, axis=-1)[..., -1]
    return np.asarray(np.maximum(_divide(added, there.sum(axis=-1)), 0))


def precision(keys: Array, sums: Array) -> Array:
    """Take the mean of shared / predicted pixels over labels; 0 for one that is wholly missed."""
    shared, pred, true = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    shares = np.divide(shared, pred, out=np.zeros(np.shape(pred)), where=pred > 0)
    return mean_where(shares, pred + true > 0)


def detection(keys: Array, sums: Array) -> Array:
    """Take 1 - cost of mending / cost of adding every object; at worst all are added."""
    cost, nothing = np.moveaxis(sums, -1, 0)
    return 1 - _divide(np.minimum(cost, nothing), nothing)


def rand(keys: Array, sums: Array) -> Array:
    """Take the share of pixel pairs that agree; pairs are ordered, as each counts twice."""
    pixels, true, pred, joint = np.moveaxis(sums, -1, 0)
    pairs = pixels * (pixels - 1)
    return _divide(pairs - (true + pred - 2 * joint), pairs)


def adapted_rand_error(keys: Array, sums: Array) -> Array:
    """Take 1 - F of the pairs of two pixels, so that none is paired with itself."""
    both, true, pred, pixels = np.moveaxis(sums, -1, 0)
    joined = 0.5 * (true - pixels) + 0.5 * (pred - pixels)
    return np.asarray(np.clip(1 - _divide(both - pixels, joined), 0, None))


def information(keys: Array, sums: Array) -> Array:
    """Add up the conditional entropies in bits of one direction, or of both."""
    pixels, *bits = np.moveaxis(sums, -1, 0)
    # Sums of logarithms leave 1e-16 where segments agree, on either side of 0.
    each = [np.round(np.clip(_divide(part, pixels), 0, None), 12) for part in bits]
    return np.asarray(np.sum(each, axis=0))


def boundary_f(keys: Array, sums: Array) -> Array:
    """Take the harmonic mean of the shares of both outlines near the other, class by class."""
    near_true, near_pred, true, pred = _by_label(sums)
    recall, precision = (
        np.divide(near, every, out=np.zeros(np.shape(every)), where=every > 0)
        for near, every in ((near_true, true), (near_pred, pred))
    )
    whole = recall + precision
    means = np.divide(2 * recall * precision, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
    return mean_where(means, true + pred > 0)


def surface_distance(keys: Array, sums: Array) -> Array:
    """Take the mean distance of both outlines together, class by class.

    A class that one side lacks is infinitely far, not left out.
    """
    distance, far, true, pred = _by_label(sums)
    near = (far == 0) & (true > 0) & (pred > 0)
    every = true + pred
    means = np.divide(distance, every, out=np.full(np.shape(every), np.nan), where=near)
    return mean_where(means, every > 0)


def hausdorff95(keys: Array, sums: Array) -> Array:
    """Take the larger 95th percentile of the distances of either outline, class by class.

    A class that one side lacks is infinitely far, not left out.
    """
    found, there = [], []
    for label in np.unique(keys // LABEL):
        sides = [label * LABEL + n * SIDE for n in (TRUE, PRED)]
        chosen = [(keys >= first) & (keys < first + SIDE) for first in sides]
        ends = [_percentile95(keys[own] % SIDE, sums[..., own]) for own in chosen]
        found.append(np.maximum(*ends))
        there.append(sums[..., chosen[0] | chosen[1]].sum(axis=-1) > 0)
    if not found:
        return np.full(sums.shape[:-1], np.nan)
    return mean_where(np.stack(found, axis=-1), np.stack(there, axis=-1))


def v_info(keys: Array, sums: Array) -> Array:
    """Take the mean over planes of 2 I / (H + H).

    Each entropy is the logarithm of all less the mean of the own; two sides of one segment each
    agree.
    """
    planes = sums.reshape(*sums.shape[:-1], -1, 4)
    count, both, true, pred = np.moveaxis(planes, -1, 0)
    there = count > 0
    share = np.divide(1, count, out=np.zeros(np.shape(count)), where=there)
    logarithm = np.log2(np.maximum(count, 1))
    whole = 2 * logarithm - (true + pred) * share
    joint = logarithm - both * share
    agreed = np.ones(np.shape(whole))
    shares = np.divide(2 * (whole - joint), whole, out=agreed, where=there & (whole > 0))
    return mean_where(shares, there)


def warping_error(keys: Array, sums: Array) -> Array:
    """Take the share of pixels that part or join objects; without foreground there is none."""
    errors, pixels, found = np.moveaxis(sums, -1, 0)
    nothing = np.full(np.shape(errors), np.nan)
    return np.asarray(np.divide(errors, pixels, out=nothing, where=found > 0))


def warping_lines(keys: Array, sums: Array) -> Array:
    """Count the lines that part or join objects; without foreground there are none to count."""
    lines, found = np.moveaxis(sums, -1, 0)
    return np.where(found > 0, lines, np.nan)


def mean_where(values: Array, there: Array) -> Array:
    """Average what is there along the last axis; NaN where nothing is.

    Parameters
    ----------
    values : ndarray of float64, shape (..., K)
    there : ndarray of bool, shape (..., K)

    Returns
    -------
    ndarray of float64, shape (...)
    """
    return _divide(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def _percentile95(squared: Array, counts: Array) -> Array:
    """Find the distance below which 95 % of a histogram lie, between two linearly."""
    if not len(squared):
        return np.full(counts.shape[:-1], np.nan)
    running = np.cumsum(counts, axis=-1)
    count = running[..., -1]
    # In whole numbers: at 20 of 21 no share of the next is taken, which may be too far to be known.
    below, rest = np.divmod(95 * np.maximum(count - 1, 0), 100)
    distance = np.where(squared > FARTHEST**2, np.nan, np.sqrt(squared))

    def at(rank: Array) -> Array:
        passed = (running <= rank[..., None]).sum(axis=-1)
        return np.asarray(distance[np.minimum(passed, len(squared) - 1)])

    low = at(below)
    high = np.where(rest > 0, at(below + (rest > 0)), low)
    return np.where(count > 0, low + (high - low) * rest / 100, np.nan)


def _by_label(sums: Array) -> Array:
    """Put the four columns of each label first."""
    return np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)


def _divide(part: Array, whole: Array) -> Array:
    nothing = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))
