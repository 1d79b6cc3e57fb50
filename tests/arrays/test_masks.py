"""Mask pixels to labels: one whole number a pixel, the ignored apart, classes in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unetkit.arrays.masks import (
    one_channel,
    smallest_dtype,
    split_ignore,
    to_classes,
    whole_numbers,
)
from unetkit.errors import LabelError


def test_equal_channels_are_one() -> None:
    grey = np.arange(6).reshape(2, 3)
    assert np.array_equal(one_channel(np.stack([grey] * 3), name="a.png"), grey)


def test_colours_are_refused() -> None:
    mask = np.zeros((3, 2, 3), np.uint8)
    mask[1, 0, 0] = 9
    with pytest.raises(LabelError, match=r"one number a pixel, got different colours in 'a\.png'"):
        one_channel(mask, name="a.png")


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
def test_numbers_are_kept(values: list[int], dtype: type, expected: str) -> None:
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
def test_other_numbers_are_refused(mask: np.ndarray, words: str) -> None:
    with pytest.raises(LabelError, match=words.replace("+", r"\+")):
        whole_numbers(mask, name="a")


def test_the_smallest_type_holds_the_largest_number() -> None:
    for largest in (0, 255, 256, 65535, 65536, 2**32 - 1):
        assert np.iinfo(smallest_dtype(largest)).max >= largest
    assert smallest_dtype(255) == "uint8"
    assert smallest_dtype(65535) == "uint16"


def test_ignored_pixels_become_background_and_a_mask() -> None:
    labels = np.array([[0, 7, 255]], np.uint8)
    kept, ignore = split_ignore(labels, 255)
    assert np.array_equal(kept, [[0, 7, 0]])
    assert kept.dtype == np.uint8
    assert ignore is not None
    assert np.array_equal(ignore, [[0, 0, 1]])
    assert split_ignore(labels, None)[1] is None


@given(hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 3, 200, 255])))
def test_classes_follow_the_mapping(mask: np.ndarray) -> None:
    mapping = {0: 0, 3: 1, 200: 2, 255: 3}
    oracle = np.vectorize(mapping.get)(mask)
    assert np.array_equal(to_classes(mask, mapping), oracle)


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(LabelError, match="at most 256 classes, got 257"):
        to_classes(np.zeros((2, 2), int), {n: n for n in range(257)})
