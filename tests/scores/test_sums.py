"""Functions of sums by hand: shares, counts, the best of several, and columns put in line."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.scores import sums
from unetkit.scores.sums import Sums


def test_a_share_is_a_share_of_sums():
    made = sums.share((np.array([1, 3]), np.array([2, 8])), (np.array([0, 0]), np.array([0, 0])))
    assert made.overall() == 0.4
    assert made.of(np.array([[1.0, 2.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]])).tolist()[0] == 0.375
    assert np.isnan(made.of(np.zeros(4)))
    assert sums.share((np.array([-1]), np.array([2]))).overall() == 0


def test_a_count_is_a_sum():
    assert sums.total(np.array([2, 0, 5])).overall() == 7


def test_a_score_that_applies_nowhere_is_none():
    assert sums.share((np.zeros(3), np.zeros(3))).overall() is None


@pytest.mark.parametrize(("highest", "wanted"), [(True, [0.75, 0.5]), (False, [0.25, 0.5])])
def test_the_best_is_chosen_anew(highest, wanted):
    one = sums.share((np.array([1, 0]), np.array([4, 0])))
    other = sums.share((np.array([3, 2]), np.array([4, 4])))
    made = sums.best([one, other], highest=highest)
    assert made.of(made.by_unit).tolist() == wanted


def test_columns_are_put_in_line():
    def first_less_rest(keys, values):
        return np.where(keys == 3, values, -values).sum(axis=-1)

    ours = Sums(np.array([1, 3]), np.array([[1.0, 10.0]]), first_less_rest)
    theirs = Sums(np.array([2, 3]), np.array([[2.0, 20.0]]), first_less_rest)
    a, b = sums.aligned(ours, theirs)
    assert a.keys.tolist() == b.keys.tolist() == [1, 2, 3]
    assert a.by_unit.tolist() == [[1, 0, 10]]
    assert b.by_unit.tolist() == [[0, 2, 20]]
    assert (a.overall(), b.overall()) == (ours.overall(), theirs.overall()) == (9, 18)
