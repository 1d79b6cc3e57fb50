"""Intervals and tests against scipy, and where there is nothing to be sure of."""

import numpy as np
import pytest
from scipy import stats

from unetkit.scores import bootstrap
from unetkit.scores.contingency import Contingency, apart
from unetkit.scores.formulas import count, mean_ratio
from unetkit.scores.sums import Sums
from unetkit.scores.table import instance_sums


def scores(seed, units=30, gain=0.0):
    rng = np.random.default_rng(seed)
    wholes = rng.integers(50, 100, size=units)
    parts = wholes * np.clip(rng.normal(0.7 + gain, 0.1, size=units), 0, 1)
    return made(np.stack([parts, wholes], axis=-1))


def made(by_unit):
    return Sums(np.arange(by_unit.shape[1]), by_unit, mean_ratio)


def test_the_interval_is_that_of_scipy_widened():
    shares = scores(0)
    level = 1 - 2 * stats.norm.cdf(np.sqrt(30 / 29) * stats.t.ppf(0.025, 29))

    def ratio(parts, wholes, axis):
        return parts.sum(axis=axis) / wholes.sum(axis=axis)

    expected = stats.bootstrap(
        (shares.by_unit[:, 0], shares.by_unit[:, 1]),
        ratio,
        paired=True,
        method="percentile",
        confidence_level=level,
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
    assert bootstrap.difference_interval(same, same, resamples=100, seed=0) is None
    better = scores(3, gain=0.2)
    assert bootstrap.permutation_test(better, same, seed=0) == 1 / (bootstrap.EXCHANGES + 1)


def test_a_score_that_never_applies_has_neither():
    nothing = made(np.zeros((6, 2)))
    assert bootstrap.interval(nothing, resamples=50, seed=0) is None
    assert bootstrap.permutation_test(nothing, nothing, seed=0) is None


def counts(*found):
    return Sums(np.arange(1), np.array(found, float)[:, None], count)


def test_rare_events_of_few_images_are_not_taken_for_never():
    low, high = bootstrap.interval(counts(0, 0, 0, 0, 0), resamples=50, seed=0)
    assert (low, high) == (0, pytest.approx(-np.log(0.025)))
    low, high = bootstrap.interval(counts(1, 1, 1, 1, 0), resamples=50, seed=0)
    assert low <= stats.chi2.ppf(0.025, 8) / 2
    assert high >= stats.chi2.ppf(0.975, 10) / 2
    # Images that differ more than chance has it are as uncertain as they differ.
    low, high = bootstrap.interval(counts(0, 0, 0, 0, 500), resamples=500, seed=0)
    assert low == 0
    assert high > 1000


def test_alike_images_do_not_say_how_far_others_differ():
    assert bootstrap.interval(made(np.ones((6, 2))), resamples=50, seed=0) is None


def image(rng):
    """Draw the table of an image: objects that are found by chance, some well, and false ones."""
    number = 1 + rng.poisson(rng.gamma(3, 8))
    good, sizes = rng.beta(8, 2), rng.integers(80, 400, number)
    iou = np.where(rng.random(number) < good, rng.beta(9, 2, number) / 2 + 0.5, 0)
    both = np.round(sizes * 2 * iou / (1 + iou)).astype(int)
    false = rng.integers(80, 400, rng.poisson(number * (1 - good) / 2))
    ids = np.arange(1, number + 1)
    more = number + 1 + np.arange(len(false))
    true = np.concatenate([ids, ids, 0 * ids, 0 * more, [0]])
    pred = np.concatenate([ids, 0 * ids, ids, more, [0]])
    pixels = np.concatenate([both, sizes - both, (sizes - both) * (both > 0), false, [60000]])
    there = pixels > 0
    true, pred = (part[there].astype(np.uint64) for part in (true, pred))
    return Contingency(np.zeros(len(true), int), true, pred, pixels[there])


@pytest.mark.slow
@pytest.mark.parametrize(("images", "least"), [(5, 0.90), (8, 0.92), (20, 0.92)])
def test_intervals_hold_the_score_of_the_population(images, least):
    rng = np.random.default_rng(0)
    sums = instance_sums(apart(image(rng) for _ in range(4000)))
    drawn = [rng.integers(0, 4000, images) for _ in range(2000)]
    for name in ("average_precision_50", "pq", "seg", "dice"):
        whole = sums[name]
        found = [
            bootstrap.interval(
                Sums(whole.keys, whole.by_unit[units], whole.formula), resamples=1000, seed=n
            )
            for n, units in enumerate(drawn)
        ]
        held = np.mean([i is not None and i[0] <= whole.overall() <= i[1] for i in found])
        assert least <= held <= 0.98, name


def test_holm_by_hand():
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == [1.0, 1.0]
    assert bootstrap.holm([None]) == [None]


@pytest.mark.parametrize(("total", "drawn"), [(12, 5), (60, 30), (200, 20), (41, 41), (30, 1)])
def test_a_share_lies_in_its_interval_in_95_of_100_samples_whatever_it_is(total, drawn):
    found = [bootstrap.share_interval(k, drawn=drawn, total=total) for k in range(drawn + 1)]
    for marked in range(total + 1):
        ways = stats.hypergeom(total, marked, drawn).pmf(np.arange(drawn + 1))
        held = [low <= marked / total <= high for low, high in found]
        assert ways[held].sum() >= 0.95
    for seen, (low, high) in enumerate(found):
        # One fewer than the least is seen too seldom, and likewise at the other end.
        for beyond, side in ((round(low * total) - 1, "sf"), (round(high * total) + 1, "cdf")):
            if seen <= beyond <= total - (drawn - seen):
                tail = getattr(stats.hypergeom(total, beyond, drawn), side)
                assert tail(seen - (side == "sf")) <= 0.025 + 1e-9


def test_of_very_many_the_interval_is_that_of_clopper_and_pearson():
    for seen, drawn in ((0, 40), (3, 40), (360, 400), (40, 40)):
        low = stats.beta.ppf(0.025, seen, drawn - seen + 1) if seen else 0.0
        high = stats.beta.ppf(0.975, seen + 1, drawn - seen) if seen < drawn else 1.0
        found = bootstrap.share_interval(seen, drawn=drawn, total=10**8)
        assert found == pytest.approx((low, high), abs=1e-6)
