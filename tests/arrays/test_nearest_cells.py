"""The two distance terms, each alone, against one distance transform a cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from unetkit.arrays.nearest_cells import distance_terms


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(5)
    out = np.zeros((70, 90), np.uint32)
    for number in range(1, 15):
        y, x = rng.integers(0, 70), rng.integers(0, 90)
        out[y : y + 6, x : x + 9] = number
    return out


def test_the_term_of_the_nearest_cell_alone(labels):
    found = distance_terms(
        labels,
        pair=(0, 1),
        pair_reach=0,
        single=(0.9, 10),
        single_reach=100,
        tolerance=1e-6,
    )
    wanted = 0.9 * np.exp(-(distance_transform_edt(labels == 0) ** 2) / 200)
    np.testing.assert_allclose(found, np.where(labels > 0, 0, wanted), atol=1e-5)


def test_a_short_reach_cuts_the_term_off_without_touching_the_rest(labels):
    numbers = {"pair": (10.0, 5.0), "tolerance": 1e-6}
    full = distance_terms(labels, pair_reach=1000, **numbers)
    short = distance_terms(labels, pair_reach=28.4, **numbers)
    # Up to the reach the same bits; what is left out beyond it is below the tolerance anyway.
    assert (full == short).all()
    assert (distance_terms(labels, pair_reach=5, **numbers) != full).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_single_rows_and_columns(shape):
    labels = np.zeros(shape, np.int64)
    assert (distance_terms(labels, pair=(1, 5), pair_reach=30, tolerance=1e-6) == 0).all()
