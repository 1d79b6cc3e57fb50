"""Draw a random deformation of an image, and apply it to image, labels and weights alike."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import resampling
from unetkit.arrays.resampling import point_weights
from unetkit.errors import InputError, UsageError

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
    """Return the deformation that leaves every bit as it is."""
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
        Where pixels are taken from.
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
    """Make what samples arrays by a deformation, whole or part by part.

    Flips and quarter turns are folded into the coordinates: they cost no pass of their own.

    Parameters
    ----------
    deformation : Deformation
        Where pixels are taken from.
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
    """Return height and width of what a deformation makes of an array of this shape."""
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


# No id and no mask value may be invented, and the weight of a pixel is that of its label: moved
# between pixels, the gap between two cells would lose to the cells beside it what keeps them apart.
SAMPLING = {"image": "cubic", "labels": "nearest", "weights": "nearest", "ignore": "nearest"}
# Of deformations that fold more often than that, hardly one is as strong as was asked for.
MOST_DRAWS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Deformed:
    """What `deform` made of the arrays that it was given; None for the others."""

    image: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    weights: NDArray[np.float32] | None = None
    ignore: NDArray[Any] | None = None


def draw_deformation(
    rng: np.random.Generator,
    *,
    points: int = 3,
    sigma: float | tuple[float, float] = 10.0,
    rotation: float = 15.0,
    shift: float = 10.0,
    scale: float = 1.0,
    flips: bool = True,
    unfolded_in: tuple[int, int] | None = None,
) -> Deformation:
    """Draw a deformation.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    points : int
        Grid points a side; 3 as in the paper.
    sigma : float or tuple of float
        Standard deviation in pixels of the displacements at the grid points, for y and x apart
        where two are given; 10 as in the paper.
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
    unfolded_in : tuple of int, optional
        Height and width of an image that must not be folded over itself: another one is drawn
        until one does not.

    Returns
    -------
    Deformation

    Raises
    ------
    UsageError
        If a strength can't be used, or folds the image nearly always.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.1.
    """
    spread = np.broadcast_to(np.asarray(sigma, np.float64), 2)
    for one in spread.tolist():
        _check_strengths(points=points, sigma=one, rotation=rotation, shift=shift, scale=scale)
    for _ in range(MOST_DRAWS):
        turn, dy, dx, growth = rng.uniform(-1, 1, 4)
        orientation = int(rng.integers(8))
        drawn = Deformation(
            grid=rng.standard_normal((2, points, points)) * spread[:, None, None],
            angle=float(turn * rotation),
            scale=math.exp(growth * math.log(scale)),
            shift=(float(dy * shift), float(dx * shift)),
            flip_x=flips and orientation >= 4,
            quarter_turns=orientation % 4 if flips else 0,
        )
        if unfolded_in is None or not folds(drawn, unfolded_in):
            return drawn
    height, width = unfolded_in or (0, 0)
    raise UsageError(
        f"sigma must be small enough for images of {height} x {width} pixels not to be folded over "
        f"themselves, got {sigma} with {points} points a side; take less, or allow folds"
    )


def _check_strengths(*, points: int, scale: float, **strengths: float) -> None:
    if not 2 <= points <= 64:
        raise UsageError(f"grid must be 2 to 64 points a side, got {points}; the paper has 3")
    for name, value in strengths.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} must be 0 or more, got {value}; 0 switches it off")
    if not 1 <= scale < math.inf:
        raise UsageError(f"scale must be 1 or more, got {scale}; 1 switches it off")


def deform(
    image: NDArray[Any] | None,
    deformation: Deformation,
    *,
    labels: NDArray[Any] | None = None,
    weights: NDArray[np.float32] | None = None,
    ignore: NDArray[Any] | None = None,
) -> Deformed:
    """Move an image and what belongs to it, all by one set of coordinates.

    The image is sampled by 4 by 4 Keys taps; labels, weights and ignore by the nearest pixel, so
    that no id is invented and each label keeps its weight. Beyond the border everything is
    mirrored, the edge pixel not repeated, as ``numpy.pad(mode="reflect")`` does. Coordinates are
    rounded to 1/65536 pixel, so that whole shifts and quarter turns are exact.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X), or None
        Its dtype is kept; integers are rounded and clipped to their range.
    deformation : Deformation
        Where pixels are taken from.
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
    named = {"image": image, "labels": labels, "weights": weights, "ignore": ignore}
    there = {name: array for name, array in named.items() if array is not None}
    if deformation.resamples:
        pairs = [(array, SAMPLING[name]) for name, array in there.items()]
        moved = sampler(deformation, shape)(pairs)
    else:
        moved = [reorder(array, deformation) for array in there.values()]
    return Deformed(**dict(zip(there, moved, strict=True)))


def _common_shape(*arrays: NDArray[Any] | None) -> tuple[int, int]:
    shapes = {array.shape[-2:] for array in arrays if array is not None}
    if len(shapes) != 1:
        raise InputError(
            "image, labels, weights and ignore must have one height and width, got "
            f"{sorted(shapes) or 'no array'}"
        )
    height, width = shapes.pop()
    return height, width


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
        Where pixels are taken from.
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
