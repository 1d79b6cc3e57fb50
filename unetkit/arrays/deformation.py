"""Draw a random movement of an image, and apply it to image, labels and weights alike.

What a movement is, and where it takes each pixel from, is `movement`'s affair.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.movement import (
    Deformation,
    field,
    folds,
    identity,
    reorder,
    sampler,
    source_positions,
)
from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SAMPLING",
    "Deformation",
    "Deformed",
    "deform",
    "draw_deformation",
    "field",
    "identity",
    "source_positions",
]

# No id and no mask value may be invented; weights stay within the range that they had.
SAMPLING = {"image": "cubic", "labels": "nearest", "weights": "linear", "ignore": "nearest"}
# Of movements that fold more often than that, hardly one is as strong as was asked for.
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
    """Draw a movement.

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
        Height and width of an image that must not be folded over itself: another movement is drawn
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
