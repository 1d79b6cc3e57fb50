"""Intervals and tests against scipy, and where there is nothing to be sure of."""

import numpy as np
import pytest
from scipy import stats

from unetkit.scores import bootstrap
from unetkit.scores.sums import Sums, mean_ratio


def scores(seed, units=30, gain=0.0):
    rng = np.random.default_rng(seed)
    wholes = rng.integers(50, 100, size=units)
    parts = wholes * np.clip(rng.normal(0.7 + gain, 0.1, size=units), 0, 1)
    return made(np.stack([parts, wholes], axis=-1))


def made(by_unit):
    return Sums(np.arange(by_unit.shape[1]), by_unit, mean_ratio)


def test_the_interval_is_that_of_scipy():
    shares = scores(0)

    def ratio(parts, wholes, axis):
        return parts.sum(axis=axis) / wholes.sum(axis=axis)

    expected = stats.bootstrap(
        (shares.by_unit[:, 0], shares.by_unit[:, 1]),
        ratio,
        paired=True,
        method="percentile",
        n_resamples=5000,
        vectorized=True,
    ).confidence_interval
    found = bootstrap.interval(shares, resamples=5000, seed=1)
    assert found == pytest.approx((expected.low, expected.high), abs=0.005)
    assert found[0] < shares.overall() < found[1]


def test_the_same_seed_gives_the_same_interval():
    one, two = (bootstrap.interval(scores(0), resamples=300, seed=4) for _ in range(2))
    assert one == two != bootstrap.interval(scores(0), resamples=300, seed=5)


def test_the_test_is_the_exact_permutation_test_of_scipy():
    ours, theirs = scores(1, units=8, gain=0.1), scores(2, units=8)
    for side in (ours, theirs):
        side.by_unit[:, 1] = 1.0  # equal wholes: the score is a mean, as scipy compares it
    expected = stats.permutation_test(
        (ours.by_unit[:, 0], theirs.by_unit[:, 0]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert bootstrap.permutation_test(ours, theirs, seed=0) == pytest.approx(expected.pvalue)


def test_equal_predictions_do_not_differ_and_unlike_ones_do():
    same = scores(3)
    assert bootstrap.permutation_test(same, same, seed=0) == 1
    assert bootstrap.difference_interval(same, same, resamples=100, seed=0) == (0, 0)
    better = scores(3, gain=0.2)
    assert bootstrap.permutation_test(better, same, seed=0) == 1 / (bootstrap.EXCHANGES + 1)


def test_a_score_that_never_applies_has_neither():
    nothing = made(np.zeros((6, 2)))
    assert bootstrap.interval(nothing, resamples=50, seed=0) is None
    assert bootstrap.permutation_test(nothing, nothing, seed=0) is None


def test_holm_by_hand():
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == [1.0, 1.0]
    assert bootstrap.holm([None]) == [None]
