"""Where pixels come from, pixel by pixel, as an oracle for what samples them row by row."""

import numpy as np
import pytest

from unetkit.arrays.deformation import affine, field


@pytest.fixture(scope="session")
def boxes():
    """Return what draws labels: boxes of random size or one size, over one another."""

    def draw(seed, shape, numbers, *, size=None, longest=None, dtype=np.uint32):
        rng, labels = np.random.default_rng(seed), np.zeros(shape, dtype)
        for number in numbers:
            (y, x), (high, wide) = rng.integers(0, shape), size or rng.integers(1, longest + 1, 2)
            labels[y : y + high, x : x + wide] = number
        return labels

    return draw


@pytest.fixture(scope="session")
def source_positions():
    """Return what gives y and x in the input (2, Y, X), before flips and quarter turns."""

    def positions(deformation, shape):
        matrix, offset = affine(deformation, shape)
        pixels = np.indices(shape, dtype=np.float64)
        moved = np.einsum("ij,jyx->iyx", matrix, pixels) + offset[:, None, None]
        return moved + field(deformation.grid, shape)

    return positions
