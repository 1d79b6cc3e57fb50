"""Weight maps, against one distance transform a cell and the paper's numbers."""

from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from unetkit.arrays.targets import cut_gaps, make_target
from unetkit.arrays.weight_map import (
    PRESETS,
    TOLERANCE,
    Preset,
    border_weight,
    choose_preset,
    class_weights,
    distance_terms,
    reach,
    weight_map,
)
from unetkit.errors import LabelError, UsageError


def distances(labels):
    """Return d1 and d2 at every pixel, inf where there is no such cell."""
    ids = [i for i in np.unique(labels) if i]
    each = [distance_transform_edt(labels != i) for i in ids]
    stack = np.stack([*each, *[np.full(labels.shape, np.inf)] * 2])
    return np.sort(stack, axis=0)[:2]


def naive_border(labels, *, w0, sigma):
    near, second = distances(labels)
    term = w0 * np.exp(-((near + second) ** 2) / (2 * sigma**2))
    term[(term < TOLERANCE) | (labels != 0)] = 0
    return term


def by_tiles(compute, labels, *, size, halo):
    """Compute a map tile by tile, each with what lies within its halo."""
    rows = []
    for y in range(0, labels.shape[0], size):
        top, row = max(y - halo, 0), []
        for x in range(0, labels.shape[1], size):
            left = max(x - halo, 0)
            part = compute(labels[top : y + size + halo, left : x + size + halo])
            row.append(part[y - top : y - top + size, x - left : x - left + size])
        rows.append(row)
    return np.block(rows)


@st.composite
def label_maps(draw):
    """Boxes of random size and id, over one another: touching, nested, thin, on the border."""
    height, width = draw(st.integers(1, 48)), draw(st.integers(1, 48))
    labels = np.zeros((height, width), draw(st.sampled_from([np.uint32, np.int64, np.uint64])))
    for _ in range(draw(st.integers(0, 7))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        high, wide = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        labels[y : y + high, x : x + wide] = draw(st.integers(0, 2**32 - 1))
    return labels


def ring():
    labels = np.zeros((21, 21), np.int64)
    labels[2:19, 2:19] = 2**32
    labels[5:16, 5:16] = 0
    labels[9:12, 9:12] = 7
    return labels


@settings(max_examples=120, deadline=None)
@given(label_maps(), st.sampled_from([(10.0, 5.0), (50.0, 6.0), (1.0, 1.0), (10.0, 0.5)]))
@example(np.zeros((3, 3), np.int64), (10.0, 5.0))
@example(np.eye(30, dtype=np.int64) * np.arange(1, 31), (10.0, 5.0))
@example(ring(), (10.0, 5.0))
def test_the_border_term_is_that_of_one_transform_a_cell(labels, numbers):
    w0, sigma = numbers
    found = border_weight(labels, w0=w0, sigma=sigma)
    wanted = naive_border(labels, w0=w0, sigma=sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert ((found == 0) == (wanted == 0)).all()


@settings(max_examples=12, deadline=None)
@given(
    cells=st.sampled_from([0, 1, 2, 40, 300]),
    longest=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    tile=st.integers(7, 60),
)
def test_any_number_of_cells_in_any_tiles_gives_the_naive_map(boxes, cells, longest, seed, tile):
    ids = np.random.default_rng(seed).integers(1, 2**32, cells, endpoint=True)
    labels = boxes(seed, (50, 70), ids, longest=longest, dtype=np.int64)
    found = by_tiles(border_weight, labels, size=tile, halo=29)
    np.testing.assert_allclose(found, naive_border(labels, w0=10, sigma=5), atol=1e-6, rtol=1e-6)
    assert (found == border_weight(labels)).all()


@pytest.mark.parametrize(
    ("gap", "golden"), [(1, 9.2312), (2, 8.3527), (9, 1.3534), (19, 0.0033546)]
)
def test_golden_values_of_the_paper(gap, golden):
    labels = np.zeros((3, 10 + gap), np.int32)
    labels[:, :5] = 1
    labels[:, 5 + gap :] = 2
    across = border_weight(labels)[1, 5 : 5 + gap]
    # d1 + d2 is the same all the way across a straight gap.
    assert across == pytest.approx([golden] * gap, rel=1e-4)
    assert border_weight(labels.T.copy())[5, 1] == pytest.approx(golden, rel=1e-4)
    # A cut between touching cells gets the highest weight.
    labels = cut_gaps(np.repeat([[1, 2]], 6, axis=0).repeat(6, axis=1))
    assert border_weight(labels).max() == pytest.approx(9.2312, rel=1e-4)


def test_fewer_than_two_cells_have_no_border():
    labels = np.zeros((40, 40), np.uint16)
    for cell in (0, 1):
        labels[10:20, 10:20] = cell
        assert not border_weight(labels).any()


def test_it_is_0_on_cells_and_beyond_the_reach():
    labels = np.zeros((1, 80), np.int64)
    labels[0, 0], labels[0, 40] = 1, 2
    assert reach() == pytest.approx(28.4, abs=0.05)
    assert (border_weight(labels) == 0).all()
    labels[0, 20] = 3
    assert (border_weight(labels) > 0)[0, :40].sum() == 38
    assert (border_weight(labels)[labels > 0] == 0).all()
    # The reach is where the term meets the tolerance.
    assert 10 * np.exp(-(reach(w0=10, sigma=5) ** 2) / 50) == pytest.approx(TOLERANCE)
    assert reach(w0=TOLERANCE / 2, sigma=5) == 0


def mapped(labels, **more):
    """Weigh labels, cut apart, with 0.5 for background and 2 for foreground."""
    cut = cut_gaps(labels)
    return weight_map(
        cut, target=make_target(cut, "foreground"), **{"class_weight": (0.5, 2.0), **more}
    )


def test_a_tile_with_its_halo_gives_the_bits_of_the_whole(boxes):
    labels = boxes(0, (150, 160), range(1, 60), size=(12, 12))
    for preset in PRESETS.values():
        compute = partial(mapped, preset=preset)
        assert (by_tiles(compute, labels, size=40, halo=preset.halo) == compute(labels)).all()
    # With a smaller halo it would not: the second cell lies just outside.
    labels = np.zeros((1, 60), np.int64)
    labels[0, 5], labels[0, 30] = 1, 2
    assert border_weight(labels)[0, 6] > 0
    assert border_weight(labels[:, :29])[0, 6] == 0


def test_class_weights_are_inverse_frequencies_of_mean_1():
    assert class_weights([300, 100]) == pytest.approx((2 / 3, 2))
    counts = np.array([5, 1000, 30])
    found = np.array(class_weights(counts.tolist()))
    assert (counts * found).sum() / counts.sum() == pytest.approx(1)
    assert found[0] > found[2] > found[1]
    # An absent class weighs 1, and nothing is NaN.
    assert class_weights([0, 10]) == (1, 1)
    assert class_weights([0, 0]) == (1, 1)


def test_paper_weights_are_class_balance_plus_border():
    labels = ring()
    wanted = np.where(labels > 0, 2.0, 0.5) + naive_border(labels, w0=10, sigma=5)
    np.testing.assert_allclose(mapped(labels), wanted, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(label_maps())
def test_freiburg_weights_are_those_of_their_release(labels):
    target = make_target(labels, "foreground")
    found = weight_map(labels, target=target, class_weight=(9.0, 9.0), preset="freiburg2019")
    near, second = distances(labels)
    pair = 50 * np.exp(-((near + second) ** 2) / (2 * 6**2))
    background = 0.1 + pair + 0.9 * np.exp(-(near**2) / (2 * 10**2))
    np.testing.assert_allclose(found, np.where(labels > 0, 1, background), atol=1e-5)


def test_class_maps_weigh_by_class_alone():
    target = np.array([[0, 1, 2]], np.uint8)
    found = weight_map(None, target=target, class_weight=(1, 2, 3), preset="freiburg2019")
    assert found.tolist() == [[1, 2, 3]]


def test_ignored_pixels_weigh_0():
    labels = ring()
    ignore = labels == 7
    kept, found = mapped(labels), mapped(labels, ignore=ignore)
    assert (found[ignore] == 0).all()
    assert (found[~ignore] == kept[~ignore]).all()
    assert (kept > 0).all()


def test_presets_can_be_changed_in_part():
    assert choose_preset("freiburg2019", sigma=3.0).w0 == 50
    found = mapped(np.array([[1, 0, 2]]), class_weight=(0, 0), w0=20.0)
    assert found[0, 1] == pytest.approx(2 * 9.2312, rel=1e-4)


def test_numbers_that_can_not_be_used_are_refused():
    with pytest.raises(UsageError, match="preset must be one of paper2015, freiburg2019, got 'x'"):
        choose_preset("x")
    with pytest.raises(UsageError, match="w0 must be 0 or more, got -1"):
        choose_preset("paper2015", w0=-1)
    for sigma in (0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="sigma must be more than 0 pixels, got"):
            choose_preset("paper2015", sigma=sigma)
    with pytest.raises(LabelError, match="labels must be integers"):
        border_weight(np.zeros((3, 3)))
    preset, labels = Preset(source="", w0=1, sigma=1), np.zeros((1, 1), int)
    with pytest.raises(UsageError, match="w0 and sigma must come with the name"):
        weight_map(labels, target=labels, class_weight=(1, 1), preset=preset, w0=2)


def test_a_short_reach_cuts_the_term_off_without_touching_the_rest(boxes):
    labels = boxes(5, (70, 90), range(1, 15), size=(6, 9))
    numbers = {"pair": (10.0, 5.0), "tolerance": 1e-6}
    full = distance_terms(labels, pair_reach=1000, **numbers)
    short = distance_terms(labels, pair_reach=28.4, **numbers)
    # Up to the reach the same bits; what is left out beyond it is below the tolerance anyway.
    assert (full == short).all()
    assert (distance_terms(labels, pair_reach=5, **numbers) != full).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_single_rows_and_columns(shape):
    labels = np.zeros(shape, np.int64)
    assert not distance_terms(labels, pair=(1, 5), pair_reach=30, tolerance=1e-6).any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25), (3.0, 1.0)])
def test_distances_follow_the_height_and_width_of_a_pixel(boxes, spacing):
    labels = boxes(5, (70, 90), range(1, 15), size=(6, 9))
    numbers = {"pair": (0, 1), "pair_reach": 0, "single": (0.9, 8), "single_reach": 60}
    found = distance_terms(labels, **numbers, tolerance=1e-6, spacing=spacing)
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
