"""Outlines against plain distance computations, and in blocks against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unetkit.scores import boundaries
from unetkit.scores.units import Squares


def blobs(seed: int, shape: tuple[int, int] = (60, 70)) -> np.ndarray:
    noise = np.random.default_rng(seed).random(shape)
    return ndimage.gaussian_filter(noise, 4) > 0.5


def whole(truth: np.ndarray, found: np.ndarray) -> boundaries.Surfaces:
    inside = tuple(slice(0, n) for n in truth.shape)
    return boundaries.measure(truth, found, inside=inside)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    edges = [side & ~ndimage.binary_erosion(side) for side in (one, other)]
    a, b = (np.argwhere(edge) for edge in edges)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_all_distances(seed):
    truth, found = blobs(seed), blobs(seed + 10)
    sides = distances(truth, found), distances(found, truth)
    result = whole(truth, found)
    expected = max(np.percentile(side, 95) for side in sides)
    assert boundaries.hausdorff95(result) == pytest.approx(expected, abs=1e-9)
    mean = np.concatenate(sides).mean()
    assert boundaries.surface_distance(result) == pytest.approx(mean, abs=1e-9)
    recall, precision = ((side <= 2).mean() for side in sides)
    f = 2 * precision * recall / (precision + recall)
    assert boundaries.boundary_f(result, tolerance=2) == pytest.approx(f, abs=1e-9)


def test_blocks_add_up_to_the_whole():
    truth, found = blobs(1), blobs(2)
    reach = boundaries.REACH
    padded = [np.pad(side, reach) for side in (truth, found)]
    total = boundaries.nothing()
    for y in range(0, 60, 20):
        for x in range(0, 70, 35):
            box = (slice(y, y + 20 + 2 * reach), slice(x, x + 35 + 2 * reach))
            inside = (slice(reach, reach + 20), slice(reach, reach + 35))
            total += boundaries.measure(*(side[box] for side in padded), inside=inside)
    expected = whole(truth, found)
    assert total.keys.tolist() == expected.keys.tolist()
    assert total.counts.tolist() == expected.counts.tolist()


def test_perfect_empty_and_far():
    truth = blobs(3)
    same = whole(truth, truth)
    scores = (
        boundaries.boundary_f(same),
        boundaries.hausdorff95(same),
        boundaries.surface_distance(same),
    )
    assert scores == (1, 0, 0)
    nothing = whole(0 * truth, 0 * truth)
    assert boundaries.boundary_f(nothing) is boundaries.hausdorff95(nothing) is None
    missed = whole(truth, 0 * truth)
    assert boundaries.boundary_f(missed) == 0
    assert boundaries.surface_distance(missed) is boundaries.hausdorff95(missed) is None
    far, near = np.zeros((2, 300), bool)[:, None]
    far[0, 0], near[0, 299] = True, True
    assert boundaries.hausdorff95(whole(far, near)) is None


def test_what_the_annotation_leaves_out_has_no_outline():
    truth, found = blobs(4), blobs(5)
    counted = np.zeros_like(truth)
    inside = tuple(slice(0, n) for n in truth.shape)
    result = boundaries.measure(truth, found, inside=inside, counted=counted)
    assert result.counts.sum() == 0 < whole(truth, found).counts.sum()


def test_each_class_has_an_outline_and_the_scores_are_their_mean():
    truth, found = (blobs(n) + 2 * (blobs(n + 20) & ~blobs(n)) for n in (6, 7))
    both = whole(truth, found)
    apart = [whole(truth == label, found == label) for label in (1, 2)]
    for score in (boundaries.boundary_f, boundaries.hausdorff95, boundaries.surface_distance):
        assert score(both) == pytest.approx(np.mean([score(one) for one in apart]), abs=1e-12)
    true, counts = apart[0].distances("true")
    assert counts.sum() == (distances(truth == 1, found == 1) >= 0).sum()
    assert true.max() == pytest.approx((distances(truth == 1, found == 1) ** 2).max())


def test_squares_and_images_add_up():
    truth, found = blobs(8), blobs(9)
    inside = (slice(10, 60), slice(20, 70))
    squares = Squares(16, 100, 100)
    parted = boundaries.measure(truth, found, inside=inside, squares=squares, origin=(30, 40))
    plain = boundaries.measure(truth, found, inside=inside)
    assert parted.in_unit(0).keys.tolist() == plain.keys.tolist()
    sums = boundaries.sums_of(parted, units=squares.count)
    for name, one in boundaries.sums_of(plain, units=1).items():
        assert sums[name].overall() == pytest.approx(one.overall(), abs=1e-12)
    assert (sums["boundary_f"].by_unit.sum(axis=1) > 0).sum() > 9
    twice = boundaries.merge([plain.in_unit(0), plain.in_unit(1)])
    assert boundaries.sums_of(twice, units=2)["hausdorff95"].by_unit.shape[0] == 2
    assert boundaries.boundary_f(twice) == boundaries.boundary_f(plain)
