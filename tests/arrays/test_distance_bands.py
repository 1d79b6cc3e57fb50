"""How deep inside of a cell each pixel is, against SciPy's distances of each cell by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unetkit.arrays.distance_bands import ObjectDepths, distance_bands, squared_depths
from unetkit.arrays.instances import elevation, foreground_of, instances, separate
from unetkit.arrays.meanings import REACH
from unetkit.arrays.targets import cut_gaps, make_target
from unetkit.errors import LabelError
from unetkit.models.inference import stored, stored_and_classes, to_classes
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_instances

TARGET = "foreground+distance"


def touching(seed, shape=(60, 75), count=14):
    """Cells of every form that touch, and some background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    places = rng.uniform(0, 1, (count, 2)) * shape
    away = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1])
    return np.where(away.min(axis=-1) < rng.uniform(8, 14), away.argmin(axis=-1) + 1, 0)


def each_by_itself(cells, unjudged=None):
    """Measure one cell after the other."""
    found = np.zeros(cells.shape, np.int64)
    judged = np.ones(cells.shape, bool) if unjudged is None else ~unjudged
    for number in np.unique(cells[cells > 0]):
        own = cells == number
        around = ~own & judged
        away = np.full(cells.shape, float(REACH))
        if around.any():
            away = ndimage.distance_transform_edt(~around)
        found[own] = np.rint(np.minimum(away, REACH) ** 2)[own]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_each_cell_by_itself(seed):
    cells = cut_gaps(touching(seed))
    np.testing.assert_array_equal(squared_depths(cells), each_by_itself(cells))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24), st.integers(1, 24), st.integers(2, 6))
def test_bands_are_of_one_width_in_each_cell(seed, height, width, bands):
    rng = np.random.default_rng(seed)
    cells = cut_gaps(
        rng.integers(0, 3, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1)
    )
    found, depths = distance_bands(cells, bands), each_by_itself(cells)
    assert ((found > 0) == (cells > 0)).all()
    for number in np.unique(cells[cells > 0]):
        own = cells == number
        share = np.sqrt(depths[own] / depths[own].max())
        np.testing.assert_array_equal(found[own], np.ceil(share * bands - 1e-9))


def test_the_edge_of_the_image_and_what_nobody_judged_are_no_rim():
    labels = np.ones((9, 9), int)
    assert (make_target(labels, TARGET) == 3).all()
    labels[:, 6:] = 0
    across = make_target(labels, TARGET)
    # A cell that is six deep, as far as the image shows it.
    assert (across == [3, 3, 2, 2, 1, 1, 0, 0, 0]).all()
    unjudged = np.zeros(labels.shape, bool)
    unjudged[:, 6:8] = True
    further = make_target(labels, TARGET, unjudged=unjudged)
    np.testing.assert_array_equal(
        squared_depths(labels, unjudged=unjudged)[0, :6], np.arange(8, 2, -1) ** 2
    )
    assert (further[:, :6] == [3, 3, 3, 2, 2, 2]).all()


@pytest.mark.parametrize("seed", range(3))
def test_unjudged_pixels_count_as_scipy_leaves_them_out(seed):
    rng = np.random.default_rng(seed)
    labels = touching(seed)
    unjudged = ndimage.gaussian_filter(rng.normal(size=labels.shape), 4) > 0.05
    # One cell, so that what is no rim is not another one either.
    cells = np.where(unjudged | (labels != labels[labels > 0][0]), 0, labels)
    np.testing.assert_array_equal(
        squared_depths(cells, unjudged=unjudged), each_by_itself(cells, unjudged)
    )


def test_a_cell_beyond_the_reach_is_core_inside():
    y, x = np.mgrid[:420, :420]
    cells = (np.hypot(y - 210, x - 210) < 200).astype(np.int32)
    depths = squared_depths(cells)
    assert depths.max() == REACH**2
    away = ndimage.distance_transform_edt(cells)
    np.testing.assert_array_equal(depths, np.rint(np.minimum(away, REACH) ** 2))
    found = distance_bands(cells, 4)
    np.testing.assert_array_equal(found[cells > 0] == 4, away[cells > 0] > REACH * 3 / 4)


def test_labels_that_do_not_say_how_deep_cells_are_are_refused():
    cells = np.ones((5, 5), np.int64)
    cells[0] = 0
    with pytest.raises(LabelError, match="must say how deep each cell is, 1 to 128 pixels"):
        make_target(cells, TARGET, measured=True)
    right = ObjectDepths.of([[(np.array([1]), np.array([16]))]]).above(0, cells)
    np.testing.assert_array_equal(
        make_target(right, TARGET, measured=True), make_target(cells, TARGET)
    )


def test_the_expected_distance_is_the_sum_over_bands():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), (40, 30)).transpose(2, 0, 1).astype(np.float32)
    tails = [probabilities[band:].sum(axis=0) for band in (1, 2, 3)]
    expected = np.mean(tails, axis=0)
    np.testing.assert_allclose(elevation(probabilities, TARGET), expected, atol=1e-6)
    kept = stored(probabilities, np.dtype("uint8"))
    # Each of three is rounded by half at most, and so is the result.
    np.testing.assert_allclose(elevation(kept, TARGET) / 255, expected, atol=1.51 / 255)
    ends = np.eye(4, dtype=np.float32)[:, :, None]
    np.testing.assert_array_equal(
        elevation(stored(ends, np.dtype("uint8")), TARGET)[:, 0], [0, 85, 170, 255]
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_the_threshold_is_about_all_that_is_not_background(threshold, kind):
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), (50, 40)).transpose(2, 0, 1).astype(np.float32)
    kept, classes = stored_and_classes(
        probabilities, np.dtype(kind), threshold=threshold, target=TARGET
    )
    inside = foreground_of(classes, TARGET)
    sure = np.abs(1 - probabilities[0] - threshold) > 0.51 / 255
    np.testing.assert_array_equal(inside[sure], (1 - probabilities[0] >= threshold)[sure])
    np.testing.assert_array_equal(classes[inside], kept[1:].argmax(axis=0)[inside] + 1)
    # It can be decided again by what is stored.
    np.testing.assert_array_equal(to_classes(kept, threshold=threshold, target=TARGET), classes)


@pytest.mark.parametrize("seed", range(4))
def test_probabilities_that_are_the_truth_give_every_cell_back(seed):
    labels = touching(seed, shape=(150, 160), count=40)
    labels[np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) < 30))] = 0
    target = make_target(labels, TARGET)
    probabilities = np.eye(4, dtype=np.float32)[:, target]
    # As a network sees them: gaps of one pixel are lost.
    soft = np.stack([ndimage.gaussian_filter(one, 1.2) for one in probabilities])
    classes = to_classes(soft, target=TARGET)
    fused = instances(classes, TARGET)
    parted = separate(
        elevation(soft, TARGET), foreground_of(classes, TARGET), seed_level=0.6, seed_size=5
    )
    found = instances(classes, TARGET, parted=parted)
    scores = {
        name: score_instances(from_labels(labels, one))
        for name, one in (("fused", fused), ("parted", found))
    }
    assert scores["parted"].average_precision_at["0.50"] > 0.93
    assert scores["fused"].average_precision_at["0.50"] < 0.5
