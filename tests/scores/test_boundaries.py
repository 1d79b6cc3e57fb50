"""Outlines against plain distance computations, and in blocks against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unetkit.scores import boundaries
from unetkit.scores.units import SpatialBlocks


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
def test_scores_are_those_of_all_distances(scored, seed):
    truth, found = blobs(seed), blobs(seed + 10)
    sides = distances(truth, found), distances(found, truth)
    recall, precision = ((side <= 2).mean() for side in sides)
    assert scored.outlines(truth, found, tolerance=2) == {
        "boundary_f": pytest.approx(2 * precision * recall / (precision + recall), abs=1e-9),
        "hausdorff95": pytest.approx(max(np.percentile(side, 95) for side in sides), abs=1e-9),
        "surface_distance": pytest.approx(np.concatenate(sides).mean(), abs=1e-9),
    }


def test_blocks_add_up_to_the_whole():
    truth, found = blobs(1), blobs(2)
    reach = boundaries.REACH
    padded = [np.pad(side, reach) for side in (truth, found)]
    parts = []
    for y in range(0, 60, 20):
        for x in range(0, 70, 35):
            box = (slice(y, y + 20 + 2 * reach), slice(x, x + 35 + 2 * reach))
            inside = (slice(reach, reach + 20), slice(reach, reach + 35))
            parts.append(boundaries.measure(*(side[box] for side in padded), inside=inside))
    total, expected = boundaries.merge(parts), whole(truth, found)
    assert total.keys.tolist() == expected.keys.tolist()
    assert total.counts.tolist() == expected.counts.tolist()


def test_perfect_empty_and_far(scored):
    truth = blobs(3)
    assert list(scored.outlines(truth, truth).values()) == [1, 0, 0]
    assert list(scored.outlines(0 * truth, 0 * truth).values()) == [None] * 3
    assert list(scored.outlines(truth, 0 * truth).values()) == [0, None, None]
    far, near = np.zeros((2, 300), bool)[:, None]
    far[0, 0], near[0, 299] = True, True
    assert scored.outlines(far, near)["hausdorff95"] is None


def test_what_the_annotation_leaves_out_has_no_outline():
    truth, found = blobs(4), blobs(5)
    counted = np.zeros_like(truth)
    inside = tuple(slice(0, n) for n in truth.shape)
    result = boundaries.measure(truth, found, inside=inside, counted=counted)
    assert result.counts.sum() == 0 < whole(truth, found).counts.sum()


def test_each_class_has_an_outline_and_the_scores_are_their_mean(scored):
    truth, found = (blobs(n) + 2 * (blobs(n + 20) & ~blobs(n)) for n in (6, 7))
    apart = [scored.outlines(truth == label, found == label) for label in (1, 2)]
    for name, value in scored.outlines(truth, found).items():
        assert value == pytest.approx(np.mean([one[name] for one in apart]), abs=1e-12), name


def test_blocks_and_images_add_up(scored):
    truth, found = blobs(8), blobs(9)
    inside = (slice(10, 60), slice(20, 70))
    blocks = SpatialBlocks(16, 100, 100)
    parted = boundaries.measure(truth, found, inside=inside, blocks=blocks, origin=(30, 40))
    plain = boundaries.measure(truth, found, inside=inside)
    assert parted.in_unit(0).keys.tolist() == plain.keys.tolist()
    expected = scored.surfaces(plain)
    assert scored.surfaces(parted, units=blocks.count) == pytest.approx(expected, abs=1e-12)
    by_unit = boundaries.outline_sums(parted, units=blocks.count, tolerance=2)["boundary_f"][1]
    assert (by_unit.sum(axis=1) > 0).sum() > 9
    twice = boundaries.merge([plain.in_unit(0), plain.in_unit(1)])
    assert scored.surfaces(twice, units=2) == pytest.approx(expected, abs=1e-12)
