"""Normalization, against numpy's own percentiles, means and deviations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unetkit.arrays.normalization import METHODS, Normalization, count, fit
from unetkit.errors import InputError, NonFiniteError, UsageError

DTYPES = (np.uint8, np.uint16, np.int16, np.float32)


def cut_up(image, at):
    return lambda: iter([image[:, :at], image[:, at:]])


@settings(max_examples=40, deadline=None)
@given(
    image=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            st.tuples(st.integers(1, 3), st.integers(2, 12), st.integers(1, 12)),
            elements=st.floats(-1000, 1000, width=32) if dtype is np.float32 else None,
        )
    ),
    at=st.integers(1, 11),
)
def test_percentiles_are_those_of_numpy_however_the_image_is_cut(image, at):
    fitted = fit(cut_up(image, at))
    for c, channel in enumerate(image.astype(np.float64)):
        low, high = np.percentile(channel, [1, 99.8])
        if low == high:
            low, high = channel.min(), channel.max()
        assert fitted.offset[c] == pytest.approx(low, rel=1e-6, abs=1e-6)
        if high > low:
            assert 1 / fitted.scale[c] == pytest.approx(high - low, rel=1e-5)
        else:
            assert fitted.scale[c] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_percentiles_become_0_and_1_without_clipping(dtype):
    image = np.random.default_rng(0).integers(0, 200, (2, 50, 40)).astype(dtype)
    out = fit(lambda: [image]).apply(image)
    assert out.dtype == np.float32
    low, high = np.percentile(out.reshape(2, -1), [1, 99.8], axis=1)
    assert low == pytest.approx([0, 0], abs=1e-5)
    assert high == pytest.approx([1, 1], abs=1e-5)
    assert out.min() < 0


def test_the_full_range_becomes_0_to_1_and_none_leaves_numbers_as_they_are():
    image = np.array([[[5, 15, 25]]], np.uint16)
    assert fit(lambda: [image], method="range").apply(image).tolist() == [[[0, 0.5, 1]]]
    assert (fit(lambda: [image], method="none").apply(image) == image).all()


def test_zscore_has_mean_0_and_deviation_1_over_blocks_of_unequal_size():
    image = np.random.default_rng(1).normal(1e4, 3, (2, 31, 17)).astype(np.float32)
    fitted = fit(cut_up(image, 4), method="zscore")
    flat = image.reshape(2, -1).astype(np.float64)
    assert fitted.offset == pytest.approx(flat.mean(axis=1), rel=1e-9)
    assert 1 / np.array(fitted.scale) == pytest.approx(flat.std(axis=1), rel=1e-9)


@pytest.mark.parametrize("method", ["percentile", "range", "zscore"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_channel_becomes_0_and_no_other_does(method, dtype):
    image = np.stack([np.full((4, 4), 9), np.arange(16).reshape(4, 4)]).astype(dtype)
    out = fit(lambda: [image], method=method).apply(image)
    assert (out[0] == 0).all()
    assert out[1].any()


def test_a_few_bright_spots_on_flat_ground_are_kept_apart():
    # Both percentiles are 0 here; without the fall-back the channel would count as constant.
    image = np.zeros((1, 100, 100), np.uint8)
    image[0, 5, 5:10] = 200
    assert fit(lambda: [image]).apply(image).max() == 1


def test_one_hot_pixel_does_not_squeeze_the_rest():
    image = np.random.default_rng(2).normal(0, 1, (1, 64, 64)).astype(np.float32)
    calm = fit(lambda: [image])
    image[0, 0, 0] = 1e30
    assert fit(lambda: [image]).scale == pytest.approx(calm.scale, rel=0.2)


def test_an_image_is_fitted_alike_whatever_its_channel_order():
    image = np.random.default_rng(3).normal(0, 1, (3, 20, 20)).astype(np.float32)
    forth, back = fit(lambda: [image]), fit(lambda: [image[::-1]])
    assert forth.offset == back.offset[::-1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_and_named(method, bad):
    image = np.ones((2, 4, 4), np.float32)
    assert fit(lambda: [image], method=method)
    image[1, 2, 2] = bad
    with pytest.raises(NonFiniteError, match=r"sample 'a' must hold finite .* got 1 .* channel 1"):
        fit(lambda: [image], method=method, where="sample 'a'")


def test_less_contrast_is_about_the_value_that_stays():
    image = np.random.default_rng(0).integers(0, 4000, (2, 30, 20), np.uint16)
    image[1] = 7  # a channel of one value
    whole = fit(lambda: [image])
    shares, toward = np.array([0.25, 1.0]), np.array([0.8, 0.3])
    expected = whole.apply(image) * shares[:, None, None]
    expected += ((1 - shares) * toward)[:, None, None]
    found = whole.damped(shares, toward)
    np.testing.assert_allclose(found.apply(image), expected, atol=1e-5)
    assert whole.damped([1.0, 1.0], toward) == whole


def test_the_place_of_a_pixel_that_is_no_number_is_named():
    blocks = [np.ones((2, 4, 6), np.float32) for _ in range(3)]
    blocks[2][1, 3, 5] = blocks[2][1, 3, 4] = np.nan
    boxes = [(0, 0, 4, 0, 6), (0, 0, 4, 6, 12), (1, 4, 8, 6, 12)]
    words = (
        r"got 2 NaN or Inf in rows 4:8, columns 6:12 of plane 1, the first in channel 1 at row 7, "
        "column 10;"
    )
    with pytest.raises(NonFiniteError, match=words):
        fit(lambda: blocks, boxes=boxes)
    with pytest.raises(NonFiniteError, match="in one block, the first in channel 1 at row 3, col"):
        fit(lambda: blocks)


def test_too_large_for_float32_is_refused():
    with pytest.raises(NonFiniteError, match="fit float32"):
        fit(lambda: [np.full((1, 2, 2), 1e300)])


@pytest.mark.parametrize("method", METHODS)
def test_fill_counts_nan_as_0(method):
    image = np.random.default_rng(4).normal(5, 1, (1, 8, 8)).astype(np.float32)
    image[0, 0] = np.nan
    filled = np.nan_to_num(image, nan=0.0)
    fitted = fit(lambda: [image], method=method, nonfinite="fill")
    assert fitted == fit(lambda: [filled], method=method)
    assert (fitted.apply(image, replace_nonfinite=True) == fitted.apply(filled)).all()


def test_unknown_words_and_another_number_of_channels_are_refused():
    with pytest.raises(UsageError, match="normalization must be one of percentile, zscore"):
        fit(lambda: [], method="minmax")
    with pytest.raises(UsageError, match="nonfinite must be one of error, fill"):
        fit(lambda: [], nonfinite="drop")
    fitted = Normalization("none", (0.0,), (1.0,))
    assert fitted.apply(np.ones((1, 2, 2))).any()
    with pytest.raises(InputError, match=r"1 channels .* got shape \(2, 2, 2\)"):
        fitted.apply(np.ones((2, 2, 2)))


def test_a_round_trip_through_a_dict_and_an_input_that_is_not_touched():
    image = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    fitted, before = fit(lambda: [image]), image.copy()
    assert Normalization.from_dict(fitted.to_dict()) == fitted
    fitted.apply(image)
    assert (image == before).all()


floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 6), st.just(3)), elements=floats)
)
def test_every_rank_of_floats_is_exact(image):
    ranks = list(range(image[0].size))
    found = count(lambda: [image]).resolve(lambda: [image], [ranks, ranks])
    assert found == np.sort(image.reshape(2, -1), axis=1).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_rank_of_integers_is_exact(dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (1, 9, 9)).astype(dtype)
    blocks = [image[:, :4], image[:, 4:]]
    counts = count(lambda: blocks)
    assert counts.totals == [81]
    assert counts.resolve(lambda: blocks, [list(range(81))]) == [np.sort(image.ravel()).tolist()]


def test_no_block_has_no_channel():
    assert count(lambda: []).resolve(lambda: [], []) == []
