"""The weights under a deformation: interpolation that adds up to one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.arrays import resampling
from unetkit.arrays.resampling import Sampler, grid_weights, keys_weights


def test_keys_weights_follow_his_formula():
    # Keys (1981), equation 15 with a = -1/2, at the four distances from t = 0.25.
    def kernel(s):
        s = abs(s)
        if s < 1:
            return 1.5 * s**3 - 2.5 * s**2 + 1
        return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2

    wanted = [kernel(1.25), kernel(0.25), kernel(0.75), kernel(1.75)]
    assert keys_weights(np.array([0.25]))[0] == pytest.approx(wanted)


@given(st.integers(1, 60), st.integers(2, 8))
def test_grid_weights_add_up_to_one(size, points):
    weights = grid_weights(size, points)
    assert weights.shape == (size, points)
    assert weights.sum(axis=1) == pytest.approx(np.ones(size))


def test_a_single_pixel_lies_in_the_middle_of_the_grid():
    assert grid_weights(1, 3).tolist() == [[0, 1, 0]]


def test_each_kind_of_sampling_at_half_a_pixel():
    line = np.array([[0, 0, 8, 0, 0]], np.float32)
    half = Sampler(np.eye(2), np.array([0, 0.5]), grid=np.zeros((2, 2, 2)), shape=(1, 5))
    assert half([(line, "linear")])[0].tolist() == [[0, 4, 4, 0, 0]]
    assert half([(line, "cubic")])[0].tolist() == [[-0.5, 4.5, 4.5, -0.5, -0.5]]
    assert half([(line, "nearest")])[0].tolist() == [[0, 8, 0, 0, 0]]


def test_pixels_beyond_two_thousand_million_are_counted_in_longer_numbers(monkeypatch):
    assert resampling._numbers(2**31 - 1) is np.int32
    assert resampling._numbers(2**31) is np.int64
    rng = np.random.default_rng(0)
    image = rng.random((30, 33), np.float32)
    moved = Sampler(np.eye(2), np.zeros(2), grid=rng.normal(0, 4, (2, 3, 3)), shape=image.shape)
    pairs = [(image, kind) for kind in ("cubic", "linear", "nearest")]
    short = moved(pairs)
    monkeypatch.setattr(resampling, "_numbers", lambda pixels: np.int64)
    for one, other in zip(short, moved(pairs), strict=True):
        assert (one == other).all()
