"""Where the lines of a regular grid come to lie when an image is deformed; for looking at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unetkit.arrays.movement import affine
from unetkit.arrays.resampling import point_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.movement import Deformation

# The step shrinks by the slope of the field, about a tenth a round for usual fields.
ROUNDS = 20


def grid_lines(
    deformation: Deformation, shape: tuple[int, int], *, lines: int = 13
) -> NDArray[np.float64]:
    """Follow the crossings of a regular grid on the input into the deformed image.

    The deformation says where each pixel of the result comes from; here that is inverted, by
    fixed-point iteration. Where a field folds the image over itself the result is one of several.

    Parameters
    ----------
    deformation : Deformation
        The movement.
    shape : tuple of int
        Height and width of the input, in pixels.
    lines : int
        Lines each way, the outermost on the edge of the input.

    Returns
    -------
    ndarray of float64, shape (2, P, P)
        y and x of each crossing in the result, in pixels; some may lie outside it.
    """
    axes = [np.linspace(0, size - 1, lines) for size in shape]
    wanted = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(2, -1)
    matrix, offset = affine(deformation, shape)
    back = np.linalg.inv(matrix)
    found = back @ (wanted - offset[:, None])
    for _ in range(ROUNDS):
        found = back @ (wanted - offset[:, None] - _displacements(deformation, shape, found))
    return _reordered(found, deformation, shape).reshape(2, lines, lines)


def _displacements(
    deformation: Deformation, shape: tuple[int, int], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Evaluate the field at any points, shape (2, N); beyond the edge it goes on as on the edge."""
    grid = deformation.grid
    weights = []
    for position, size, points in zip(at, shape, grid.shape[1:], strict=True):
        scaled = position * (points - 1) / max(size - 1, 1)
        weights.append(point_weights(np.clip(scaled, 0, points - 1), points))
    return np.asarray(np.einsum("np,apq,nq->an", weights[0], grid, weights[1]))


def _reordered(
    at: NDArray[np.float64], deformation: Deformation, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Flip and turn positions as `deform` does with pixels."""
    y, x = at
    height, width = shape
    if deformation.flip_y:
        y = height - 1 - y
    if deformation.flip_x:
        x = width - 1 - x
    for _ in range(deformation.quarter_turns):
        y, x = width - 1 - x, y
        height, width = width, height
    return np.stack([y, x])
