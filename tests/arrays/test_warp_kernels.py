"""The loops of the warp, against the same kernel in plain Python and numpy's mirror."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays import warp_kernels
from unetkit.arrays.deformation import draw_deformation, sampler, source_positions
from unetkit.arrays.resampling import keys_weights
from unetkit.geometry.tiles import mirror


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
def test_the_image_is_that_of_a_plain_loop(seed, shape, dtype):
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
