"""Changes of grey values: drawn once, applied alike."""

import math

import numpy as np
import pytest

from unetkit.arrays.appearance import Appearance, apply_appearance, draw_appearance
from unetkit.arrays.normalization import Normalization, fit
from unetkit.errors import UsageError


@pytest.fixture
def image():
    return np.random.default_rng(0).random((2, 30, 40), np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_no_change_keeps_every_bit_in_a_new_array(dtype):
    image = np.random.default_rng(0).integers(0, 250, (2, 9, 9)).astype(dtype)
    out = apply_appearance(image, Appearance())
    assert (out == image).all()
    assert out.dtype == dtype
    assert not np.shares_memory(out, image)


def test_bias_adds_and_gain_stretches_about_the_middle(image):
    assert apply_appearance(image, Appearance(bias=0.2)) == pytest.approx(image + 0.2, abs=1e-6)
    stretched = apply_appearance(image, Appearance(gain=2.0))
    assert stretched == pytest.approx((image - 0.5) * 2 + 0.5, abs=1e-6)


def test_gamma_bends_the_middle_and_keeps_0_and_1_and_what_lies_below():
    values = np.array([[[-0.5, 0.0, 0.25, 1.0]]], np.float32)
    found = apply_appearance(values, Appearance(gamma=2.0))
    assert found[0, 0] == pytest.approx([-0.5, 0, 0.0625, 1], abs=1e-6)


def test_noise_has_the_wanted_spread_and_comes_from_its_seed(image):
    noisy = Appearance(noise_sigma=0.05, noise_seed=7)
    found = apply_appearance(image, noisy)
    assert (found - image).std() == pytest.approx(0.05, rel=0.1)
    assert (found == apply_appearance(image, noisy)).all()
    assert (found != apply_appearance(image, noisy, stream=1)).any()
    assert (found != apply_appearance(image, Appearance(noise_sigma=0.05, noise_seed=8))).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_raw_image_changes_in_units_of_its_own_range(dtype):
    raw = np.linspace(100, 200, 400).reshape(1, 20, 20).astype(dtype)
    normalization = fit(lambda: [raw], method="range")
    found = apply_appearance(raw, Appearance(bias=0.1), normalization=normalization)
    assert found.dtype == dtype
    assert found == pytest.approx(raw + 10.0, abs=0.51)


def test_integers_are_clipped_not_wrapped():
    raw = np.array([[[0, 100, 255]]], np.uint8)
    normalization = Normalization("range", (0.0,), (1 / 255,))
    brighter = apply_appearance(raw, Appearance(bias=0.2), normalization=normalization)
    darker = apply_appearance(raw, Appearance(bias=-0.2), normalization=normalization)
    assert brighter.tolist() == [[[51, 151, 255]]]
    assert darker.tolist() == [[[0, 49, 204]]]


def test_a_constant_channel_stays_as_it_is():
    raw = np.full((2, 4, 4), 9, np.uint8)
    raw[1] = np.arange(16).reshape(4, 4)
    normalization = fit(lambda: [raw])
    found = apply_appearance(raw, Appearance(bias=0.5), normalization=normalization)
    assert (found[0] == 9).all()
    assert (found[1] != raw[1]).any()


def test_drawn_numbers_spread_by_the_strength():
    drawn = [draw_appearance(np.random.default_rng(seed), strength=0.1) for seed in range(400)]
    assert np.std([a.bias for a in drawn]) == pytest.approx(0.1, rel=0.15)
    assert np.std([math.log(a.gain) for a in drawn]) == pytest.approx(0.1, rel=0.15)
    assert np.std([math.log(a.gamma) for a in drawn]) == pytest.approx(0.2, rel=0.15)
    assert max(a.noise_sigma for a in drawn) <= 0.025
    assert len({a.noise_seed for a in drawn}) == 400


def test_strength_0_changes_nothing_and_what_is_drawn_goes_through_a_dict():
    assert not draw_appearance(np.random.default_rng(0), strength=0).changes
    drawn = draw_appearance(np.random.default_rng(1))
    assert Appearance.from_dict(drawn.to_dict()) == drawn


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
def test_strengths_that_can_not_be_used_are_refused(strength):
    with pytest.raises(UsageError, match="grey must be within 0 to 10, got"):
        draw_appearance(np.random.default_rng(0), strength=strength)


def test_a_part_of_an_image_gets_the_noise_of_the_whole():
    noisy = Appearance(noise_sigma=0.1, noise_seed=4)
    image = np.zeros((2, 300, 530), np.float32)
    whole = apply_appearance(image, noisy)
    part = apply_appearance(image[:, 200:290, 250:520], noisy, corner=(200, 250))
    assert (part == whole[:, 200:290, 250:520]).all()
    assert whole.std() == pytest.approx(0.1, rel=0.02)
    assert (apply_appearance(image, noisy, stream=1) != whole).all()
