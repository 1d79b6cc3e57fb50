"""A movement of an image in numbers: where each pixel of the result is taken from.

One movement is an elastic field on a coarse grid, a rotation, a scale, a shift, flips and quarter
turns. All of them live here, and not with the grey values in `appearance`, so that an image is
resampled once however many are drawn, and labels and weights move along with it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import resampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Points a side at which a field is tested for folds; it is smooth between them.
FOLD_POINTS = 65


@dataclasses.dataclass(frozen=True, eq=False)
class Deformation:
    """Where each pixel of the result is taken from.

    The pixel p of the result (before flips and quarter turns, which re-order whole pixels and come
    last) shows the input at ``c + M (p - shift - c) + u(p)``: c is the centre, M turns back by
    `angle` and shrinks by `scale`, u is the elastic field.

    Parameters
    ----------
    grid : ndarray of float64, shape (2, P, P)
        Displacements in pixels, y before x, at P by P points from corner to corner of the array.
    angle : float
        Degrees by which the content turns counter-clockwise about the centre.
    scale : float
        Factor by which the content grows.
    shift : tuple of float
        Pixels by which the content moves down and right.
    flip_y, flip_x : bool
        Reverse the rows, the columns.
    quarter_turns : int
        Counter-clockwise turns by 90 degrees, 0 to 3, after the flips. An odd number swaps height
        and width of the result.
    """

    grid: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros((2, 2, 2)))
    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip_y: bool = False
    flip_x: bool = False
    quarter_turns: int = 0

    @property
    def resamples(self) -> bool:
        """Whether pixels are mixed, beyond flips and quarter turns."""
        return bool(self.grid.any()) or (self.angle, self.scale, self.shift) != (0, 1, (0, 0))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "grid": self.grid.tolist(),
            "angle": self.angle,
            "scale": self.scale,
            "shift": list(self.shift),
            "flip_y": self.flip_y,
            "flip_x": self.flip_x,
            "quarter_turns": self.quarter_turns,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Deformation:
        """Make it again from what `to_dict` returned."""
        grid = np.array(values["grid"], np.float64)
        dy, dx = values["shift"]
        return cls(**{**values, "grid": grid, "shift": (dy, dx)})


def identity() -> Deformation:
    """Return the movement that leaves every bit as it is."""
    return Deformation()


def field(grid: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate the displacements of all pixels from those at the grid points.

    By Keys' cubic (a = -0.5) with the outermost points repeated beyond the edge::

        o-----o-----o      o: drawn, by default 3 x 3 of them, at corners,
        |     |     |      edge middles and centre; the field takes exactly
        o-----o-----o      these values there
        |     |     |
        o-----o-----o

    Parameters
    ----------
    grid : ndarray of float, shape (2, P, Q)
        Displacements in pixels.
    shape : tuple of int
        Height and width in pixels.

    Returns
    -------
    ndarray of float64, shape (2, Y, X)

    References
    ----------
    Keys (1981), Cubic convolution interpolation for digital image processing; the paper of 2015
    says "bicubic".
    """
    rows = resampling.grid_weights(shape[0], grid.shape[1])
    columns = resampling.grid_weights(shape[1], grid.shape[2])
    return np.asarray(rows @ grid @ columns.T)


def source_positions(deformation: Deformation, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return where in the input each pixel is taken from, before flips and quarter turns.

    Parameters
    ----------
    deformation : Deformation
        The movement.
    shape : tuple of int
        Height and width in pixels.

    Returns
    -------
    ndarray of float64, shape (2, Y, X)
        Positions y, x in pixels; they may lie outside the array.
    """
    matrix, offset = affine(deformation, shape)
    pixels = np.indices(shape, dtype=np.float64)
    moved = np.einsum("ij,jyx->iyx", matrix, pixels) + offset[:, None, None]
    return np.asarray(moved + field(deformation.grid, shape))


def affine(
    deformation: Deformation, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return M and the constant part of ``c + M (p - shift - c)`` for an array of this shape."""
    angle = math.radians(deformation.angle)
    cos, sin = math.cos(angle) / deformation.scale, math.sin(angle) / deformation.scale
    matrix = np.array([[cos, sin], [-sin, cos]])
    centre = (np.array(shape) - 1) / 2
    return matrix, centre - matrix @ (centre + np.array(deformation.shift))


def folds(deformation: Deformation, shape: tuple[int, int]) -> bool:
    """Tell whether the field folds an image over itself, so that some of it appears twice.

    It does where the determinant of the Jacobian of the source positions is not positive; that is
    looked at on 65 by 65 points.

    Parameters
    ----------
    deformation : Deformation
        The movement.
    shape : tuple of int
        Height and width of the image, in pixels.
    """
    grid = deformation.grid
    rows, row_slopes = _along(shape[0], grid.shape[1])
    columns, column_slopes = _along(shape[1], grid.shape[2])
    matrix, _ = affine(deformation, shape)
    # The derivatives of y and x of the source, along y and along x.
    down = matrix[:, 0, None, None] + row_slopes @ grid @ columns.T
    across = matrix[:, 1, None, None] + rows @ grid @ column_slopes.T
    return bool((down[0] * across[1] - down[1] * across[0]).min() <= 0)


def _along(size: int, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much each grid point counts along an axis, and how that changes in one pixel."""
    at = np.linspace(0, points - 1, FOLD_POINTS)
    weights = resampling.point_weights(at, points)
    step = 1e-4
    before, after = np.clip(at - step, 0, None), np.clip(at + step, None, points - 1)
    change = resampling.point_weights(after, points) - resampling.point_weights(before, points)
    return weights, change / (after - before)[:, None] * (points - 1) / max(size - 1, 1)


def sampler(deformation: Deformation, shape: tuple[int, int]) -> resampling.Sampler:
    """Make what samples arrays by a movement, whole or part by part.

    Flips and quarter turns are folded into the coordinates: they cost no pass of their own.

    Parameters
    ----------
    deformation : Deformation
        The movement.
    shape : tuple of int
        Height and width of the arrays, in pixels.
    """
    matrix, offset = affine(deformation, shape)
    turn, corner = _before_turns(deformation, shape)
    return resampling.Sampler(
        matrix @ turn,
        matrix @ corner + offset,
        grid=reorder(deformation.grid, deformation),
        shape=shape,
        result_shape=result_shape(deformation, shape),
    )


def result_shape(deformation: Deformation, shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of what a movement makes of an array of this shape."""
    height, width = shape
    return (width, height) if deformation.quarter_turns % 2 else (height, width)


def _before_turns(
    deformation: Deformation, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrix and the constant that lead from a pixel to where it was before `reorder`.

    One turn takes the pixel (y, x) from (x, width - 1 - y).
    """
    turn, corner = np.eye(2), np.zeros(2)
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    for number in reversed(range(deformation.quarter_turns)):
        turn = quarter @ turn
        corner = quarter @ corner + np.array([0.0, shape[1 - number % 2] - 1])
    for axis, flipped in enumerate((deformation.flip_y, deformation.flip_x)):
        if flipped:
            turn[axis] = -turn[axis]
            corner[axis] = shape[axis] - 1 - corner[axis]
    return turn, corner


def reorder(array: NDArray[Any], deformation: Deformation) -> NDArray[Any]:
    """Flip and turn whole pixels along the last two axes; always a copy."""
    rows = slice(None, None, -1 if deformation.flip_y else 1)
    columns = slice(None, None, -1 if deformation.flip_x else 1)
    turned = np.rot90(array[..., rows, columns], deformation.quarter_turns, axes=(-2, -1))
    return turned.copy(order="C")
