"""Sums of segments give the scores of the whole, whatever squares an image is cut into."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import contingency, matching
from unetkit.scores import sums as segment_sums
from unetkit.scores.units import Squares

LABELS = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))
HALVES = Squares(4, 8, 8)


def expected(table: contingency.Contingency) -> dict[str, float | None]:
    split, merged = matching.variation_of_information(table) or (None, None)
    return {
        "rand": matching.rand(table),
        "adapted_rand_error": matching.adapted_rand_error(table),
        "voi": split + merged,
        "voi_split": split,
        "voi_merge": merged,
    }


@given(truth=LABELS, found=LABELS)
@settings(max_examples=40, deadline=None)
def test_squares_of_one_image_add_up_to_its_scores(truth, found):
    table = HALVES.tables(truth, found)
    sums = segment_sums.of_segments(table, one_image=True)
    for name, wanted in expected(table.joined()).items():
        got = sums[name].overall()
        if got is None:
            # No side joins two pixels: no share, which the score calls agreement.
            assert name == "adapted_rand_error"
            assert not wanted
        else:
            assert got == pytest.approx(wanted, abs=1e-9), name


def test_an_object_counts_whole_where_most_of_it_is():
    truth = np.zeros((8, 8), np.uint8)
    truth[1, 1:7] = 5  # three pixels on either side: the first square
    truth[5, 2:8] = 6  # two on the left, four on the right
    table = HALVES.tables(truth, truth)
    assert segment_sums.homes(table, "true", one_image=True).tolist()[1:] == [0, 3]
    pixels = segment_sums.of_segments(table, one_image=True)["voi"].by_unit[:, 0]
    assert pixels.tolist() == [13 + 6, 13, 14, 12 + 6]


def test_background_of_one_image_is_one_segment():
    # Nothing but background: were it parted by squares, pairs between squares would differ.
    empty = np.zeros((8, 8), np.uint8)
    sums = segment_sums.of_segments(HALVES.tables(empty, empty), one_image=True)
    assert sums["rand"].overall() == 1
    assert sums["voi"].overall() == 0
    apart = segment_sums.of_segments(HALVES.tables(empty, empty), one_image=False)
    assert apart["rand"].overall() == 1
