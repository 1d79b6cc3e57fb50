"""Where pixels come from, pixel by pixel, as an oracle for what samples them row by row."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.arrays.deformation import affine, field


@pytest.fixture(scope="session")
def source_positions():
    """Return what gives y and x in the input (2, Y, X), before flips and quarter turns."""

    def positions(deformation, shape):
        matrix, offset = affine(deformation, shape)
        pixels = np.indices(shape, dtype=np.float64)
        moved = np.einsum("ij,jyx->iyx", matrix, pixels) + offset[:, None, None]
        return moved + field(deformation.grid, shape)

    return positions
