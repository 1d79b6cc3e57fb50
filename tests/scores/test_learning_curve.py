"""A power law through the scores of trainings: what it finds, and how sure it is."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from unetkit.errors import InputError
from unetkit.scores.learning_curve import LearningCurve, fit_power_law

SIZES = np.array([2, 4, 8, 16] * 3)


def law(size, top, drop, exponent):
    return top - drop * np.asarray(size, float) ** -exponent


@pytest.mark.parametrize(("top", "drop", "exponent"), [(0.9, 0.6, 0.7), (0.8, 1.0, 1.5)])
def test_the_curve_that_made_the_scores_is_found(top, drop, exponent):
    line = LearningCurve(SIZES.tolist(), law(SIZES, top, drop, exponent).tolist())
    for size in (2, 16, 32, 64):
        assert line.predict(size).score == pytest.approx(law(size, top, drop, exponent), abs=2e-3)
    assert line.gain(32).score == pytest.approx(
        law(32, top, drop, exponent) - law(16, top, drop, exponent), abs=2e-3
    )


def test_the_fit_is_that_of_scipy():
    rng = np.random.default_rng(3)
    scores = law(SIZES, 0.85, 0.7, 0.8) + rng.normal(0, 0.01, len(SIZES))
    weights = 1 / np.linspace(1, 2, len(SIZES)) ** 2
    found = fit_power_law(SIZES.astype(float), scores[None], weights)
    wanted, _ = curve_fit(law, SIZES, scores, p0=(0.9, 0.5, 0.7), sigma=weights**-0.5)
    for size in (3, 16, 32):
        assert found.at(size)[0] == pytest.approx(law(size, *wanted), abs=1e-3)


def test_a_curve_neither_falls_nor_passes_a_perfect_score():
    falling = fit_power_law(np.array([2.0, 4, 8]), np.array([[0.9, 0.8, 0.7]]), np.ones(3))
    assert falling.drop[0] == 0
    assert falling.at(99)[0] == pytest.approx(0.8)
    steep = fit_power_law(np.array([2.0, 4, 8]), np.array([[0.1, 0.5, 0.99]]), np.ones(3))
    assert steep.at(1e9)[0] <= 1


def test_the_interval_holds_the_score_of_one_training_more():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(60):
        scores = law(SIZES, 0.8, 0.6, 0.6) + rng.normal(0, 0.02, len(SIZES))
        found = LearningCurve(SIZES.tolist(), scores.tolist(), seed=seed).predict(32)
        truth = law(32, 0.8, 0.6, 0.6) + rng.normal(0, 0.02)
        held += found.low <= truth <= found.high
        assert found.high - found.low < 0.4, "an interval of everything says nothing"
    assert held >= 53


def test_the_interval_of_the_gain_holds_the_gain():
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(60):
        scores = law(SIZES, 0.8, 0.6, 0.6) + rng.normal(0, 0.02, len(SIZES))
        found = LearningCurve(SIZES.tolist(), scores.tolist(), seed=seed).gain(32)
        held += found.low <= law(32, 0.8, 0.6, 0.6) - law(16, 0.8, 0.6, 0.6) <= found.high
        assert found.low <= found.score <= found.high
    assert held >= 50


def test_one_draw_is_enough_and_says_less():
    rng = np.random.default_rng(4)
    scores = law(SIZES, 0.8, 0.6, 0.6) + rng.normal(0, 0.02, len(SIZES))
    one, all_of_them = (
        LearningCurve(SIZES[:n].tolist(), scores[:n].tolist()).predict(32) for n in (4, 12)
    )
    assert one.high - one.low > 0
    assert all_of_them.high - all_of_them.low > 0


def test_two_sizes_are_no_curve():
    with pytest.raises(InputError, match="at least 3 sizes, got 2; add more"):
        LearningCurve([2, 4, 4], [0.5, 0.6, 0.6])


def test_the_same_seed_gives_the_same_interval():
    scores = law(SIZES, 0.8, 0.6, 0.6) + np.random.default_rng(0).normal(0, 0.01, len(SIZES))
    first, second = (LearningCurve(SIZES.tolist(), scores.tolist()).predict(32) for _ in range(2))
    assert first == second
