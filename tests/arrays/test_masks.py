"""Mask pixels to labels: one whole number a pixel, the ignored apart, classes in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unetkit.arrays.masks import (
    MaskSurvey,
    one_channel,
    smallest_dtype,
    split_ignore,
    to_classes,
    whole_numbers,
)
from unetkit.errors import LabelError, UsageError


def test_equal_channels_are_one_and_colours_are_refused():
    mask = np.stack([np.arange(6).reshape(2, 3)] * 3)
    assert np.array_equal(one_channel(mask, name="a.png"), mask[0])
    mask[1, 0, 0] = 9
    with pytest.raises(LabelError, match=r"one number a pixel, got different colours in 'a\.png'"):
        one_channel(mask, name="a.png")


DRAWN = np.array([[0, 0, 7], [3, 7, 7]])
OPAQUE = (DRAWN > 0) * 255


@pytest.mark.parametrize(
    ("grey", "alpha", "expected"),
    [
        (DRAWN, np.full_like(DRAWN, 255), DRAWN),
        (DRAWN, np.zeros_like(DRAWN), DRAWN),
        (DRAWN, OPAQUE, DRAWN),
        (np.full_like(DRAWN, 255), OPAQUE, OPAQUE),
        (np.zeros_like(DRAWN), OPAQUE, OPAQUE),
        (np.where(DRAWN, 9, 200), OPAQUE, OPAQUE),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_the_mask_where_it_alone_differs(grey, alpha, expected, channels):
    mask = np.stack([*[grey] * channels, alpha])
    assert np.array_equal(one_channel(mask, name="a.png", alpha=True), expected)


def test_greys_and_alpha_that_say_different_things_are_refused():
    for alpha in (OPAQUE[::-1], OPAQUE // np.arange(1, 4)):
        with pytest.raises(LabelError, match="in greys or in alpha, got both in 'a'"):
            one_channel(np.stack([DRAWN, alpha]), name="a", alpha=True)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 255], np.int64, "uint8"),
        ([0, 256], np.float32, "uint16"),
        ([0, 65536], np.int32, "uint32"),
        ([0, 2**32 - 1], np.float64, "uint32"),
        ([False, True], np.bool_, "uint8"),
    ],
)
def test_numbers_are_kept(values, dtype, expected):
    mask = np.array([values], dtype=dtype)
    numbers = whole_numbers(mask, name="a")
    assert numbers.dtype == expected
    assert np.array_equal(numbers, mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.array([[0.0, 1.5]]), "got 1 other values in 'a', such as 1.5"),
        (np.array([[np.nan, 1.0]]), "such as nan"),
        (np.array([[np.inf, 1.0]]), "such as inf"),
        (np.array([[-1, 1]]), "numbers from 0 to 4294967295, got -1 to 1"),
        (np.array([[0, 2**32]]), "got 0 to 4.29497e"),
        (np.array([[0j]]), "whole numbers, got complex128"),
    ],
)
def test_other_numbers_are_refused(mask, words):
    with pytest.raises(LabelError, match=words.replace("+", r"\+")):
        whole_numbers(mask, name="a")


def test_the_smallest_type_holds_the_largest_number():
    for largest in (0, 255, 256, 65535, 65536, 2**32 - 1):
        assert np.iinfo(smallest_dtype(largest)).max >= largest
    assert smallest_dtype(255) == "uint8"
    assert smallest_dtype(65535) == "uint16"


def test_ignored_pixels_become_background_and_a_mask():
    labels = np.array([[0, 7, 255]], np.uint8)
    kept, ignore = split_ignore(labels, 255)
    assert (kept.tolist(), kept.dtype) == ([[0, 7, 0]], np.uint8)
    assert np.array_equal(ignore, [[0, 0, 1]])
    assert split_ignore(labels, None)[1] is None


@given(hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 3, 200, 255])))
def test_classes_follow_the_mapping(mask):
    mapping = {0: 0, 3: 1, 200: 2, 255: 3}
    assert np.array_equal(to_classes(mask, mapping), np.vectorize(mapping.get)(mask))
    with pytest.raises(LabelError, match="at most 256 classes, got 257"):
        to_classes(np.zeros((2, 2), int), {n: n for n in range(257)})


def survey(*masks, ignore=None):
    seen = MaskSurvey(ignore=ignore)
    for number, mask in enumerate(masks):
        seen.add(f"{number}.png", np.asarray(mask), pieces=True)
    return seen


def dots(*values):
    """One separate pixel for each value."""
    mask = np.zeros((3, 2 * len(values) + 1), np.uint16)
    mask[1, 1::2] = values
    return mask


@pytest.mark.parametrize(
    "masks",
    [
        pytest.param([dots(1, 2, 3), dots(1), dots()], id="own numbers"),
        pytest.param([dots(1), dots(1), dots()], id="one object a mask"),
        pytest.param([dots(1, 1, 2, 3), dots(4, 5)], id="a cell in two pieces among others"),
        pytest.param([np.eye(4, dtype=np.uint8)], id="diagonal contact is one piece"),
        pytest.param([dots(1, 2, 255), dots(254, 255, 256)], id="a cell has the number 255"),
        # One cell that goes through three planes is one piece in each.
        pytest.param([np.stack([dots(1), dots(1), dots(1)])], id="planes are looked at one by one"),
    ],
)
def test_each_object_with_a_number_of_its_own_is_an_instance(masks):
    survey(*masks).check_instances()


@pytest.mark.parametrize("value", [1, 255])
def test_one_number_for_two_pieces_is_refused(value):
    with pytest.raises(LabelError, match=f"the one number {value} for 3.*touch would merge"):
        survey(dots(value), dots(value, value)).check_instances()


def test_a_class_map_is_no_instances():
    with pytest.raises(LabelError, match=r"20 separate pieces for 2 numbers.*--kind classes"):
        survey(dots(*[1, 2] * 10)).check_instances()


def test_a_smoothed_mask_is_no_instances():
    y, x = np.mgrid[:100, :100]
    distance = np.hypot(y - 40.3, x - 50.6)
    binary = distance < 30
    # The edge fades over two pixels, as after smoothing or resizing.
    blurred = np.clip((31 - distance) / 2, 0, 1) * 255
    survey(binary.astype(np.uint8)).check_instances()
    with pytest.raises(LabelError, match="without JPEG, smoothing"):
        survey(blurred.astype(np.uint8)).check_instances()


def test_white_that_nobody_judged_is_no_object():
    labels = np.full((9, 9), 255, np.uint8)
    labels[2, 2], labels[5, 5], labels[:, :2] = 1, 2, 0
    survey(labels, ignore=255).check_instances()
    with pytest.raises(LabelError, match="--ignore"):
        survey(labels).check_instances()


def test_ignored_pixels_are_no_pieces():
    seen = survey(dots(1, 255, 255, 255), ignore=255)
    seen.check_instances()
    assert seen.ignored == 3
    with pytest.raises(LabelError):
        survey(dots(255, 255, 255)).check_instances()


def test_components_need_a_binary_mask():
    survey(dots(255, 255), dots(255), dots()).check_binary()
    with pytest.raises(LabelError, match=r"values 0, 3, 255 in '1\.png'"):
        survey(dots(255), dots(3, 255)).check_binary()
    with pytest.raises(LabelError, match="the same in all, got 1, 255"):
        survey(dots(255), dots(1)).check_binary()


@pytest.mark.parametrize(
    "values",
    [(0, 255), (0, 1, 2), (0, 127, 255), (0, 128, 255), (0, 85, 170, 255), (1, 3, 7), (0,), (200,)],
)
def test_class_values(values):
    mapping = survey(np.array([values])).classes()
    assert mapping == {value: number for number, value in enumerate(sorted(values))}


GREYS = (0, 128, 130, 233, 255)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([GREYS], r"got the 5 values 0, .*in '0\.png'"),
        ([(0, 1, 254, 255)], r"got the 4 values 0, .*in '0\.png'"),
        ([(0, 1, 2, 255)], r"got the 4 values 0, .*in '0\.png'"),
        ([range(256)], r"got the 256 values 0, .*in '0\.png'"),
        # The mask with the odd values is named; some are odd only together.
        ([(0, 127, 255), GREYS], r"5 values 0, 128, 130, 233, 255 in '1\.png' \(in all"),
        ([(0, 127, 255), (0, 128, 255)], "0, 127, 128, 255"),
    ],
)
def test_greys_are_no_classes(masks, words):
    with pytest.raises(LabelError, match=words):
        survey(*(np.array([values]) for values in masks)).classes()


def test_names_let_any_values_in():
    seen = survey(np.array([GREYS]))
    assert seen.classes(list("abcde")) == {0: 0, 128: 1, 130: 2, 233: 3, 255: 4}
    with pytest.raises(UsageError, match=r"one name for each of the 5 values .*, got 2: a, b"):
        seen.classes(["a", "b"])


def test_the_mapping_is_that_of_all_masks_without_the_ignored_value():
    seen = survey(np.array([[0, 255]]), np.array([[0, 127]]))
    assert seen.classes() == {0: 0, 127: 1, 255: 2}
    assert survey(np.array([[0, 1, 2, 255]]), ignore=255).classes() == {0: 0, 1: 1, 2: 2}
