"""The two distance terms, each alone, against one distance transform a cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from unetkit.arrays.weight_map import border_weight, distance_terms


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


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25), (3.0, 1.0)])
def test_distances_follow_the_height_and_width_of_a_pixel(labels, spacing):
    found = distance_terms(
        labels,
        pair=(0, 1),
        pair_reach=0,
        single=(0.9, 8),
        single_reach=60,
        tolerance=1e-6,
        spacing=spacing,
    )
    near = distance_transform_edt(labels == 0, sampling=spacing)
    wanted = np.where((labels > 0) | (near > 60), 0, 0.9 * np.exp(-(near**2) / 128))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_large_distances_are_as_exact_as_small_ones():
    # Beyond 2048 pixels single precision would round the squares.
    labels = np.zeros((3, 4200), np.uint8)
    labels[0, 0], labels[2, -1] = 1, 2
    found = distance_terms(labels, pair=(1, 3000), pair_reach=9000, tolerance=1e-9)
    d = np.hypot(2000, 1) + np.hypot(2199, 1)
    assert found[1, 2000] == pytest.approx(np.exp(-(d**2) / (2 * 3000**2)), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">i4"])
def test_cells_are_told_apart_whatever_their_ids(dtype):
    high = np.iinfo(dtype).max
    labels = np.array([[high, 0, 0, 1, 0, high - 1]], dtype)
    found = border_weight(labels)
    wanted = border_weight(np.array([[1, 0, 0, 2, 0, 3]], np.uint32))
    assert (found == wanted).all()
    assert (found > 0).sum() == 3


def test_the_cost_does_not_depend_on_the_number_of_cells_in_reach():
    # One cell a pixel in every second column: each pixel between sees hundreds within reach.
    labels = np.zeros((40, 60), np.uint32)
    labels[:, ::2] = np.arange(40 * 30).reshape(40, 30) + 1
    found = border_weight(labels)
    assert found[:, 1:-1:2] == pytest.approx(np.full((40, 29), 9.2312), rel=1e-4)
