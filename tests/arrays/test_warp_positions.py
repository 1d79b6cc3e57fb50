"""Where the pixels of a warp come from, and around which of them nothing is mirrored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays import resampling
from unetkit.arrays.deformation import draw_deformation, sampler, source_positions
from unetkit.geometry.tiles import mirror


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


@pytest.mark.parametrize("kind", ["cubic", "linear", "nearest"])
def test_rows_that_leave_the_image_and_come_back_are_sampled_right(kind):
    shape = (40, 48)
    drawn, moved = wavy(shape)
    found = list(moved._strips((0, *shape[:1], 0, shape[1]), (*shape, 0, 0, *shape)))
    place, inside = found[0][3], found[0][4]
    # Without rows of several runs this would show nothing.
    assert ((inside[:, 1] - inside[:, 0]) < (place >= 0).sum(axis=1)).any()
    image = np.random.default_rng(2).random(shape, dtype=np.float32)
    at = source_positions(drawn, shape)
    size = 60
    rows, columns = (mirror(-size, n + size, n) for n in shape)
    padded = image[np.ix_(rows, columns)]
    # The same positions in a padded image, in which nothing is mirrored.
    wanted = sample_padded(padded, at + size, kind)
    np.testing.assert_allclose(moved([(image, kind)])[0], wanted, atol=1e-3)


def sample_padded(padded, at, kind):
    from scipy.ndimage import map_coordinates

    if kind == "nearest":
        rounded = np.floor(np.floor(at * 65536 + 0.5) / 65536 + 0.5).astype(int)
        return padded[tuple(rounded)]
    if kind == "linear":
        return map_coordinates(padded, at, order=1)
    start = np.floor(at).astype(int)
    part = at - start
    total = np.zeros(at.shape[1:])
    for j in range(4):
        for i in range(4):
            weight = keys(part[0] - j + 1) * keys(part[1] - i + 1)
            total += weight * padded[start[0] + j - 1, start[1] + i - 1]
    return total


def keys(s):
    """Keys (1981), equation 15 with a = -1/2."""
    s = np.abs(s)
    near = 1.5 * s**3 - 2.5 * s**2 + 1
    return np.where(s < 1, near, np.where(s < 2, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2, 0))
