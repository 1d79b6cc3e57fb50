"""Casting computed numbers back: rounded and clipped, never wrapped."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.arrays.dtypes import cast


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_values_beyond_the_range_become_its_ends(dtype, real):
    limits = np.iinfo(dtype)
    out = cast(np.array([-1e30, 1e30], real), np.dtype(dtype))
    assert out[0] == limits.min
    # The largest of a wide type has no float of its own: the float below it is the end.
    assert limits.max * (1 - 1e-6) < int(out[1]) <= limits.max


def test_halves_go_up():
    values = np.array([-1.5, -0.5, 0.5, 1.49])
    assert cast(values, np.dtype(np.int16)).tolist() == [-1, 0, 1, 1]


def test_bool_and_float():
    assert cast(np.array([0.2, 0.7]), np.dtype(bool)).tolist() == [False, True]
    assert cast(np.array([0.25]), np.dtype(np.float32)).tolist() == [0.25]
