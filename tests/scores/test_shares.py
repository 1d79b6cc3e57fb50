"""Sums by unit give the scores of the whole, for images and for squares of one image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import contingency, sums
from unetkit.scores.table import score_classes, score_instances, value_of
from unetkit.scores.units import Squares

LABELS = arrays(np.uint8, (6, 6), elements=st.integers(0, 4))


def agree(found: sums.Shares, overall: dict[str, object]) -> None:
    for name, part in found.items():
        got = part.overall()
        wanted = value_of(name, overall)
        if wanted is None or (got is None and name == "adapted_rand_error"):
            # Where no side joins two pixels there is no share, and the score calls it agreement.
            assert got is None, name
            assert not wanted
        else:
            assert got == pytest.approx(wanted, abs=1e-9), name


@given(sides=st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_images_add_up_to_the_scores_of_all(sides):
    table = contingency.pool(contingency.from_labels(truth, found) for truth, found in sides)
    agree(sums.of_instances(table), score_instances(table).to_dict())


@given(truth=LABELS, found=LABELS)
@settings(max_examples=25, deadline=None)
def test_squares_add_up_to_the_scores_of_the_image(truth, found):
    parts = []
    for n, rows in enumerate((slice(0, 3), slice(3, 6))):
        part = contingency.from_labels(truth[rows], found[rows])
        parts.append(replace(part, image=part.image + n, images=2))
    table = contingency.merge(parts)
    agree(sums.of_instances(table, one_image=True), score_instances(table.joined()).to_dict())


@given(truth=LABELS, found=LABELS)
@settings(max_examples=15, deadline=None)
def test_classes_add_up(truth, found):
    table = contingency.from_labels(truth, found)
    agree(sums.of_classes(table), score_classes(table).to_dict())


def test_errors_count_where_they_lie():
    truth = np.repeat([[1, 1, 2, 2]], 4, axis=0)
    found = np.repeat([[7, 7, 0, 0]], 4, axis=0)
    table = Squares(2, 4, 4).tables(truth, found)
    misses = sums.of_instances(table, one_image=True)["misses"].by_unit[:, 0]
    assert misses.tolist() == [0, 1, 0, 0]
