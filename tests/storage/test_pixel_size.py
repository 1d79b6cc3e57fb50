"""Pixel sizes and lengths as people and files write them."""

import math

import pytest

from unetkit.errors import InputError, UsageError
from unetkit.storage.pixel_size import in_pixels, micrometres, parse_pixel_size, split_length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25", {"y": 0.25, "x": 0.25}),
        ("0.25um", {"y": 0.25, "x": 0.25}),
        ("0.25 µm", {"y": 0.25, "x": 0.25}),
        ("0.25 μm", {"y": 0.25, "x": 0.25}),
        ("250nm", {"y": 0.25, "x": 0.25}),
        ("2.5e-1", {"y": 0.25, "x": 0.25}),
        ("0.5,0.25", {"y": 0.5, "x": 0.25}),
        ("50nm, 4nm, 4nm", {"z": 0.05, "y": 0.004, "x": 0.004}),
        ("0.001mm", {"y": 1.0, "x": 1.0}),
        ("4Å", {"y": 0.0004, "x": 0.0004}),
    ],
)
def test_what_a_user_types(text, expected):
    assert parse_pixel_size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1px", "1,2,3,4", "1,,2", "1.2.3"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"pixel size must be .*; for example 0.25"):
        parse_pixel_size(text)


def test_units_of_files():
    assert micrometres(2, "\\u00B5m") == micrometres(20000, "\u00c5") == 2
    assert micrometres(20000, "\u212b") == micrometres(20000, "\\u00C5") == 2
    assert micrometres(2, "inch") is None
    assert micrometres(math.nan, "um") is None
    assert micrometres(0, "um") is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (10.0, (10.0, False)),
        ("10", (10.0, False)),
        (" 2.5px", (2.5, False)),
        ("0.5um", (0.5, True)),
        ("500 nm", (0.5, True)),
        ("0.5µm", (0.5, True)),
        ("1e-3mm", (1.0, True)),
    ],
)
def test_a_number_counts_pixels_and_a_unit_micrometres(typed, meant):
    assert split_length(typed, name="sigma") == meant


@pytest.mark.parametrize("typed", ["", "um", "wide", "5 miles", "-1um", "1.2.3", "e"])
def test_what_is_no_length_is_refused(typed):
    with pytest.raises(UsageError, match="sigma must be a number of pixels or a length, got"):
        split_length(typed, name="sigma")


def test_oblong_pixels_are_counted_along_y_and_x_and_a_unit_needs_a_pixel_size():
    found = in_pixels("2um", {"y": 0.5, "x": 0.25}, name="sigma", sample="a")
    assert found == (4.0, 8.0)
    assert in_pixels(2.0, None, name="sigma", sample="a") == (2.0, 2.0)
    for size in (None, {}, {"y": 1.0}):
        with pytest.raises(InputError, match="sample 'a' must have a pixel size for a sigma"):
            in_pixels("2um", size, name="sigma", sample="a")
