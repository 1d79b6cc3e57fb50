"""Sums of borders give the scores of a plane, whatever squares it is cut into."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import contingency, isbi2012
from unetkit.scores.isbi2012 import Topology
from unetkit.scores.units import Squares

LABELS = arrays(np.uint8, (8, 8), elements=st.integers(0, 3))
SQUARES = Squares(4, 8, 8)
TOPOLOGY = Topology(2, 1, 64, ((0, 0), (0, 5), (7, 7)))


def wanted(plain, thinned):
    return {
        "v_rand": isbi2012.v_rand(thinned),
        "v_info": isbi2012.v_info(thinned),
        "warping_error": 3 / 64,
        "isbi_rand": isbi2012.isbi_rand(plain),
        "isbi_pixel": isbi2012.isbi_pixel(plain),
    }


@given(sides=st.tuples(LABELS, LABELS, LABELS, LABELS), parted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_units_add_up_to_the_scores_of_the_plane(sides, parted):
    whole = [contingency.from_labels(*sides[:2]), contingency.from_labels(*sides[2:])]
    tables = [SQUARES.tables(*sides[:2]), SQUARES.tables(*sides[2:])] if parted else whole
    found = isbi2012.of_plane(*tables, TOPOLOGY, squares=SQUARES if parted else None)
    for name, score in wanted(*whole).items():
        got = isbi2012.sums_of(name, found[name]).overall()
        if name == "v_rand" and score is not None:
            score = max(score, 0)
        assert got == (None if score is None else pytest.approx(score, abs=1e-9)), name


def test_errors_count_where_they_begin():
    nothing = np.zeros((8, 8), np.uint8)
    tables = [SQUARES.tables(nothing, nothing)] * 2
    found = isbi2012.of_plane(*tables, TOPOLOGY, squares=SQUARES)["warping_error"]
    assert found.tolist() == [[1, 16], [1, 16], [0, 16], [1, 16]]
