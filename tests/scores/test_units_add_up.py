"""Formulas by hand; sums by image give the scores of all images as one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import contingency, formulas, sums
from unetkit.scores.sums import Sums
from unetkit.scores.table import (
    class_sums,
    instance_sums,
    score_classes,
    score_instances,
    value_of,
)

LABELS = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))


def agree(found, overall):
    for name, part in found.items():
        wanted = value_of(name, overall)
        wanted = None if wanted is None else pytest.approx(wanted, abs=1e-9)
        assert part.overall() == wanted, name


PLANES = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=2)


@given(samples=st.lists(PLANES, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_images_and_stacks_add_up_to_the_scores_of_all(samples):
    tables = [
        contingency.pool(contingency.from_labels(*pair) for pair in planes) for planes in samples
    ]
    pooled = contingency.pool(tables)
    agree(instance_sums(contingency.apart(tables)), score_instances(pooled).to_dict())
    agree(class_sums(contingency.apart(tables)), score_classes(pooled).to_dict())


def ratio(*columns):
    return Sums(*sums.columns(*map(np.array, columns)), formulas.mean_ratio)


def test_a_ratio_is_one_of_sums():
    made = ratio([1, 3], [2, 8], [0, 0], [0, 0])
    assert made.overall() == 0.4
    assert made.of(np.array([[1.0, 2.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]])).tolist()[0] == 0.375
    assert np.isnan(made.of(np.zeros(4)))
    assert ratio([-1], [2]).overall() == 0


def test_a_count_is_a_sum():
    assert Sums(*sums.columns(np.array([2, 0, 5])), formulas.count).overall() == 7


def test_a_score_that_applies_nowhere_is_none():
    assert ratio([0, 0, 0], [0, 0, 0]).overall() is None


@pytest.mark.parametrize(("highest", "wanted"), [(True, [0.75, 0.5]), (False, [0.25, 0.5])])
def test_the_best_is_chosen_anew(highest, wanted):
    made = sums.best_of([ratio([1, 0], [4, 0]), ratio([3, 2], [4, 4])], highest=highest)
    assert made.of(made.by_unit).tolist() == wanted


def test_columns_are_put_in_line():
    def first_less_rest(keys, values):
        return np.where(keys == 3, values, -values).sum(axis=-1)

    first = Sums(np.array([1, 3]), np.array([[1.0, 10.0]]), first_less_rest)
    second = Sums(np.array([2, 3]), np.array([[2.0, 20.0]]), first_less_rest)
    a, b = sums.aligned(first, second)
    assert a.keys.tolist() == b.keys.tolist() == [1, 2, 3]
    assert a.by_unit.tolist() == [[1, 0, 10]]
    assert b.by_unit.tolist() == [[0, 2, 20]]
    assert (a.overall(), b.overall()) == (first.overall(), second.overall()) == (9, 18)
