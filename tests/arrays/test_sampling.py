"""The weights under a deformation: interpolation that adds up to one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays import resampling, warp_kernels
from unetkit.arrays.deformation import draw_deformation, sampler
from unetkit.arrays.dtypes import cast
from unetkit.arrays.resampling import Sampler, grid_weights, keys_weights
from unetkit.geometry.tiles import mirror


def test_keys_weights_follow_his_formula():
    # At the four distances from t = 0.25.
    wanted = keys(np.array([1.25, 0.25, 0.75, 1.75]))
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
    assert half([(line, "cubic")])[0].tolist() == [[-0.5, 4.5, 4.5, -0.5, -0.5]]
    assert half([(line, "nearest")])[0].tolist() == [[0, 8, 0, 0, 0]]


def test_pixels_beyond_two_thousand_million_are_counted_in_longer_numbers(monkeypatch):
    assert resampling._numbers(2**31 - 1) is np.int32
    assert resampling._numbers(2**31) is np.int64
    rng = np.random.default_rng(0)
    image = rng.random((30, 33), np.float32)
    moved = Sampler(np.eye(2), np.zeros(2), grid=rng.normal(0, 4, (2, 3, 3)), shape=image.shape)
    pairs = [(image, kind) for kind in ("cubic", "nearest")]
    short = moved(pairs)
    monkeypatch.setattr(resampling, "_numbers", lambda pixels: np.int64)
    for one, other in zip(short, moved(pairs), strict=True):
        assert (one == other).all()


def located(motion, shape, frame, *, numbers=np.int32):
    rows, columns = shape
    start = np.empty((rows, 2, columns), np.int32)
    part = np.empty((rows, 2, columns), np.float32)
    place, inside = np.empty(shape, numbers), np.empty((rows, 2), np.int64)
    found = start, part, place, inside
    resampling.locate(motion, (0, 0), frame, found, np.empty(columns))
    return found


def shifted(dy, dx, shape):
    """Return the motion that takes each pixel from a fixed step away."""
    affine = np.array([[1, 0, dy], [0, 1, dx]])
    return affine, np.zeros((shape[0], 2, 2)), np.zeros((2, shape[1]))


def test_positions_are_exact_to_a_65536th_of_a_pixel():
    start, part, *_ = located(shifted(1e-9, 0.25, (4, 5)), (4, 5), (4, 5, 0, 0, 4, 5))
    assert (start[:, 0, 0] == [0, 1, 2, 3]).all()
    assert (part[:, 0] == 0).all()
    assert (part[:, 1] == 0.25).all()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_a_place_is_that_of_the_first_pixel_around_a_position(shape, shift, corner):
    height, width = (size + 4 for size in shape)
    window = np.arange(height * width).reshape(height, width)
    frame = (height, width, *corner, height + corner[0], width + corner[1])
    start, _, place, inside = located(shifted(*shift, shape), shape, frame)
    for y, x in np.ndindex(shape):
        top, left = start[y, :, x] - corner - 1
        whole = 0 <= top <= height - 4 and 0 <= left <= width - 4
        assert place[y, x] == (window[top, left] if whole else -1)
        assert (inside[y, 0] <= x < inside[y, 1]) == whole
    longer = located(shifted(*shift, shape), shape, frame, numbers=np.int64)
    assert (longer[2] == place).all()


def wavy(shape):
    """Draw a movement under which rows leave the image and come back."""
    drawn = draw_deformation(np.random.default_rng(1), points=6, sigma=8, flips=False)
    return drawn, sampler(drawn, shape)


@pytest.mark.parametrize("kind", ["cubic", "nearest"])
def test_rows_that_leave_the_image_and_come_back_are_sampled_right(source_positions, kind):
    shape = (40, 48)
    drawn, moved = wavy(shape)
    found = list(moved._strips((0, *shape[:1], 0, shape[1]), (*shape, 0, 0, *shape)))
    place, inside = found[0][3], found[0][4]
    # Without rows of several runs this would show nothing.
    assert ((inside[:, 1] - inside[:, 0]) < (place >= 0).sum(axis=1)).any()
    image = np.random.default_rng(2).random(shape, dtype=np.float32)
    at = source_positions(drawn, shape)
    if kind == "nearest":
        rounded = np.floor(np.floor(at * 65536 + 0.5) / 65536 + 0.5).astype(int)
        wanted = np.pad(image, 60, mode="reflect")[tuple(rounded + 60)]
    else:
        wanted = plain_loop(image[None], at)[0]
    np.testing.assert_allclose(moved([(image, kind)])[0], wanted, atol=1e-3)


def keys(s):
    """Keys (1981), equation 15 with a = -1/2."""
    s = np.abs(s)
    near = 1.5 * s**3 - 2.5 * s**2 + 1
    return np.where(s < 1, near, np.where(s < 2, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2, 0))


def plain_loop(image, positions):
    """Sample by 4 by 4 Keys taps, one pixel after the other, in double precision."""
    channels, height, width = image.shape
    out = np.empty((channels, *positions.shape[1:]))
    for y, x in np.ndindex(positions.shape[1:]):
        at = np.floor(positions[:, y, x] * 65536 + 0.5) / 65536
        start = np.floor(at).astype(int)
        down, right = keys_weights(at - start)
        rows = mirror(start[0] - 1, start[0] + 3, height)
        columns = mirror(start[1] - 1, start[1] + 3, width)
        for c in range(channels):
            out[c, y, x] = down @ image[c][np.ix_(rows, columns)] @ right
    return out


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64, np.int32]),
)
def test_the_image_is_that_of_a_plain_loop(source_positions, seed, shape, dtype):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (2, *shape)).astype(dtype)
    drawn = draw_deformation(rng, rotation=180, scale=1.5, sigma=4, flips=False)
    wanted = plain_loop(image.astype(float), source_positions(drawn, shape))
    found = sampler(drawn, shape)([(image, "cubic")])[0]
    assert found.dtype == dtype
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    else:
        limits = np.iinfo(dtype)
        rounded = np.clip(np.floor(wanted + 0.5), limits.min, limits.max)
        tie = np.abs(wanted % 1 - 0.5) < 2e-3
        assert ((found == rounded) | tie).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_border_is_mirrored_at_any_distance(n):
    far = 5 * n + 3
    wanted = np.pad(np.arange(n), far, mode="reflect") if n > 1 else np.zeros(2 * far + 1)
    found = [warp_kernels._mirror(i, n) for i in range(-far, n + far)]
    assert found == wanted.tolist()


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


def test_halves_go_up_also_to_bool_and_floats_stay():
    values = np.array([-1.5, -0.5, 0.5, 1.49])
    assert cast(values, np.dtype(np.int16)).tolist() == [-1, 0, 1, 1]
    assert cast(np.array([0.2, 0.7]), np.dtype(bool)).tolist() == [False, True]
    assert cast(np.array([0.25]), np.dtype(np.float32)).tolist() == [0.25]
