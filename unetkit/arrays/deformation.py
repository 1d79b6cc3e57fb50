"""Draw a random movement of an image, and apply it to image, labels and weights alike.

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
from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


@dataclasses.dataclass(frozen=True, eq=False)
class Deformed:
    """What `deform` made of the arrays that it was given; None for the others."""

    image: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    weights: NDArray[np.float32] | None = None
    ignore: NDArray[Any] | None = None


def identity() -> Deformation:
    """Return the movement that leaves every bit as it is."""
    return Deformation()


def draw_deformation(
    rng: np.random.Generator,
    *,
    points: int = 3,
    sigma: float = 10.0,
    rotation: float = 15.0,
    shift: float = 10.0,
    scale: float = 1.0,
    flips: bool = True,
) -> Deformation:
    """Draw a movement.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    points : int
        Grid points a side; 3 as in the paper.
    sigma : float
        Standard deviation in pixels of the displacements at the grid points; 10 as in the paper.
    rotation : float
        Largest angle in degrees, drawn evenly to both sides. The paper asks for rotation
        invariance and gives no number; 15 is our own choice: quarter turns give the rest, and
        larger angles fill more of the corners with mirrored content.
    shift : float
        Largest shift in pixels along each axis, drawn evenly; the paper asks for shift invariance
        and gives no number; 10 is our own choice, as large as the displacements.
    scale : float
        Largest factor of growing or shrinking, drawn evenly on a logarithmic scale; 1 for none.
    flips : bool
        Draw flips and quarter turns; all eight orientations are equally likely.

    Returns
    -------
    Deformation

    Raises
    ------
    UsageError
        If a strength can't be used.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.1.
    """
    _check_strengths(points=points, sigma=sigma, rotation=rotation, shift=shift, scale=scale)
    turn, dy, dx, growth = rng.uniform(-1, 1, 4)
    orientation = int(rng.integers(8))
    grid = rng.standard_normal((2, points, points)) * sigma
    return Deformation(
        grid=grid,
        angle=float(turn * rotation),
        scale=math.exp(growth * math.log(scale)),
        shift=(float(dy * shift), float(dx * shift)),
        flip_x=flips and orientation >= 4,
        quarter_turns=orientation % 4 if flips else 0,
    )


def _check_strengths(*, points: int, scale: float, **strengths: float) -> None:
    if not 2 <= points <= 64:
        raise UsageError(f"grid must be 2 to 64 points a side, got {points}; the paper has 3")
    for name, value in strengths.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} must be 0 or more, got {value}; 0 switches it off")
    if not 1 <= scale < math.inf:
        raise UsageError(f"scale must be 1 or more, got {scale}; 1 switches it off")


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


def deform(
    image: NDArray[Any] | None,
    deformation: Deformation,
    *,
    labels: NDArray[Any] | None = None,
    weights: NDArray[np.float32] | None = None,
    ignore: NDArray[Any] | None = None,
) -> Deformed:
    """Move an image and what belongs to it, all by one set of coordinates.

    The image is sampled by 4 by 4 Keys taps, labels and ignore by the nearest pixel (no id is
    invented), weights bilinearly. Beyond the border everything is mirrored, the edge pixel not
    repeated, as ``numpy.pad(mode="reflect")`` does. Coordinates are rounded to 1/65536 pixel, so
    that whole shifts and quarter turns are exact.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X), or None
        Its dtype is kept; integers are rounded and clipped to their range.
    deformation : Deformation
        The movement.
    labels, ignore : ndarray of int, shape (Y, X), optional
        Their dtype is kept.
    weights : ndarray of float32, shape (Y, X), optional
        Weights of the labels before they move.

    Returns
    -------
    Deformed
        New arrays; heights and widths are swapped by an odd number of quarter turns.

    Raises
    ------
    InputError
        If the arrays differ in height or width.
    """
    shape = _common_shape(image, labels, weights, ignore)
    sampler = None
    if deformation.resamples:
        matrix, offset = affine(deformation, shape)
        sampler = resampling.Sampler(matrix, offset, grid=deformation.grid, shape=shape)

    def moved(array: NDArray[Any] | None, kind: str) -> NDArray[Any] | None:
        if array is None:
            return None
        return _reorder(array if sampler is None else sampler(array, kind), deformation)

    return Deformed(
        image=moved(image, "cubic"),
        labels=moved(labels, "nearest"),
        weights=moved(weights, "linear"),
        ignore=moved(ignore, "nearest"),
    )


def _common_shape(*arrays: NDArray[Any] | None) -> tuple[int, int]:
    shapes = {array.shape[-2:] for array in arrays if array is not None}
    if len(shapes) != 1:
        raise InputError(
            "image, labels, weights and ignore must have one height and width, got "
            f"{sorted(shapes) or 'no array'}"
        )
    height, width = shapes.pop()
    return height, width


def affine(
    deformation: Deformation, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return M and the constant part of ``c + M (p - shift - c)`` for an array of this shape."""
    angle = math.radians(deformation.angle)
    cos, sin = math.cos(angle) / deformation.scale, math.sin(angle) / deformation.scale
    matrix = np.array([[cos, sin], [-sin, cos]])
    centre = (np.array(shape) - 1) / 2
    return matrix, centre - matrix @ (centre + np.array(deformation.shift))


def _reorder(array: NDArray[Any], deformation: Deformation) -> NDArray[Any]:
    """Flip and turn; always a copy."""
    rows = slice(None, None, -1 if deformation.flip_y else 1)
    columns = slice(None, None, -1 if deformation.flip_x else 1)
    turned = np.rot90(array[..., rows, columns], deformation.quarter_turns, axes=(-2, -1))
    return turned.copy(order="C")
