import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.segmentation import find_boundaries

from unetkit.views.drawing import (
    PALETTE,
    colours,
    contrast,
    edges,
    heat,
    outlined,
    to_grey8,
    to_rgb8,
)

LABELS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 5)
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_contrast_fills_black_to_white(dtype):
    image = np.arange(100, dtype=dtype).reshape(1, 10, 10)
    grey = to_grey8(image)
    assert grey.dtype == np.uint8
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.all(np.diff(grey.ravel().astype(int)) >= 0)


def test_a_constant_image_is_black_and_not_finite_pixels_count_as_0():
    assert not to_grey8(np.full((1, 4, 4), 7.0)).any()
    holes = np.array([[[np.nan, np.inf], [-np.inf, 5.0]]])
    assert to_grey8(holes).tolist() == [[0, 0], [0, 255]]


def test_one_speck_on_an_even_ground_is_seen():
    image = np.zeros((1, 100, 100), dtype=np.uint16)
    image[0, 50, 50] = 9
    assert to_grey8(image)[50, 50] == 255


def test_three_channels_are_red_green_blue_and_one_is_grey():
    image = np.zeros((3, 2, 2), dtype=np.uint8)
    image[0, 0, 0] = image[1, 0, 1] = image[2, 1, 0] = 9
    rgb = to_rgb8(image)
    assert rgb.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]]
    grey = to_rgb8(image[:1])
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize("channels", [2, 4, 6, 9])
def test_other_numbers_of_channels_are_mixed(channels):
    image = np.zeros((channels, 3, 3), dtype=np.uint8)
    for channel in range(min(channels, 6)):
        image[channel].flat[channel] = 1
    rgb = to_rgb8(image).reshape(9, 3)
    shown = rgb[: min(channels, 6)]
    assert len({tuple(colour) for colour in shown}) == len(shown)
    assert shown.max(axis=1).min() == 255


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_a_part_looks_as_in_the_whole_with_the_contrast_of_the_whole(channels):
    whole = np.random.default_rng(0).integers(0, 4000, (channels, 30, 30)).astype(np.uint16)
    whole[:, :10, :10] //= 50
    part = whole[:, :10, :10]
    np.testing.assert_array_equal(to_rgb8(part, ends=contrast(whole)), to_rgb8(whole)[:10, :10])
    # By itself it is as bright as anything.
    assert to_rgb8(part).max() == 255
    assert to_rgb8(part, ends=contrast(whole)).max() < 40


@given(LABELS)
def test_edges_are_the_inner_boundaries(labels):
    expected = find_boundaries(labels, mode="inner", connectivity=1) if labels.any() else labels > 0
    np.testing.assert_array_equal(edges(labels), expected)


@given(LABELS)
def test_each_object_has_one_colour_and_the_background_none(labels):
    painted = colours(labels)
    assert not painted[labels == 0].any()
    for label in np.unique(labels[labels > 0]):
        found = np.unique(painted[labels == label], axis=0)
        assert len(found) == 1
        assert found[0].tolist() in PALETTE.tolist()


@settings(deadline=None)
@given(LABELS)
def test_touching_objects_differ(labels):
    painted = colours(labels).astype(int)
    for a, b, x, y in (
        (labels[1:], labels[:-1], painted[1:], painted[:-1]),
        (labels[:, 1:], labels[:, :-1], painted[:, 1:], painted[:, :-1]),
    ):
        touching = (a != b) & (a > 0) & (b > 0)
        assert (np.abs(x - y).sum(axis=-1)[touching] > 0).all()


def test_objects_two_pixels_apart_differ_too():
    row = np.array([[1, 0, 2, 0, 0, 3]])
    painted = colours(row)
    assert len({tuple(painted[0, x]) for x in (0, 2, 5)}) == 3


def test_ids_may_be_large():
    assert colours(np.array([[0, 2**32 - 1]], dtype=np.uint32))[0, 1].any()


def test_an_outline_leaves_the_rest_of_the_picture_alone():
    picture = np.full((7, 7, 3), 50, dtype=np.uint8)
    labels = np.zeros((7, 7), dtype=np.uint16)
    labels[1:6, 1:6] = 4
    drawn = outlined(picture, labels)
    changed = (drawn != picture).any(axis=-1)
    np.testing.assert_array_equal(changed, edges(labels))
    assert changed.sum() == 16
    assert (picture == 50).all()
    filled = outlined(picture, labels, fill=0.5)
    np.testing.assert_array_equal((filled != picture).any(axis=-1), labels > 0)


def test_heat_grows_lighter_and_is_clipped():
    values = np.array([[-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0, np.nan]])
    shown = heat(values, low=0.0, high=1.0).astype(int)
    lightness = shown[0] @ np.array([299, 587, 114])
    assert np.all(np.diff(lightness[1:6]) > 0)
    assert lightness[0] == lightness[1] == lightness[7]
    assert lightness[5] == lightness[6]


def test_heat_of_an_empty_range_is_dark():
    assert (
        heat(np.zeros((2, 2)), low=0.0, high=0.0) == heat(np.zeros((1, 1)), low=0.0, high=1.0)
    ).all()
