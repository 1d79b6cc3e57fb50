"""Pixel sizes as people and files write them."""

import math

import pytest

from unetkit.errors import UsageError
from unetkit.storage.pixel_size import micrometres, parse_pixel_size


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
    ],
)
def test_what_a_user_types(text, expected):
    assert parse_pixel_size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1px", "1,2,3,4", "1,,2", "1.2.3"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"pixel size must be .*; for example 0.25"):
        parse_pixel_size(text)


def test_units_of_files():
    assert micrometres(2, "\\u00B5m") == 2
    assert micrometres(2, "inch") is None
    assert micrometres(math.nan, "um") is None
    assert micrometres(0, "um") is None
