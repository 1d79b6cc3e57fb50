"""Lengths that a user gives in pixels or in a unit, and what they are in a sample's pixels."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from unetkit.errors import InputError, UsageError
from unetkit.storage.pixel_size import micrometres

if TYPE_CHECKING:
    from unetkit.storage.datasets import Sample


def split_length(value: float | str, *, name: str) -> tuple[float, bool]:
    """Return a length as a number, and whether it counts micrometres and not pixels.

    Parameters
    ----------
    value : float or str
        A number of pixels, or a number with a unit of length.
    name : str
        What it is the length of.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> split_length("0.5um", name="sigma"), split_length("10", name="sigma")
    ((0.5, True), (10.0, False))
    """
    match = re.fullmatch(r"\s*([-+0-9.eE]+|nan|inf)\s*([a-z\u00b5\u03bc]*)\s*", str(value))
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        match = None
    if match and match[2] in ("", "px"):
        return number, False
    length = micrometres(number, match[2]) if match else None
    if length is None:
        raise UsageError(f"{name} must be a number of pixels or a length, got {value!r}; try 0.5um")
    return length, True


def recorded(value: float | str, *, name: str) -> float | str:
    """Return a length as it is written down: as a number where it counts pixels.

    Raises
    ------
    UsageError
        If it is no length.

    Examples
    --------
    >>> recorded("10", name="sigma"), recorded("0.5um", name="sigma")
    (10.0, '0.5um')
    """
    number, physical = split_length(value, name=name)
    return value if physical else number


def pixel_of(sample: Sample, *, name: str) -> tuple[float, float]:
    """Return height and width of a sample's pixels in micrometres.

    Raises
    ------
    InputError
        If they are not known.
    """
    size = sample.image.pixel_size or {}
    if not size.get("y") or not size.get("x"):
        raise InputError(
            f"sample {sample.name!r} must have a pixel size for a {name} in micrometres, got none; "
            f"import it with --pixel-size, or give {name} in pixels"
        )
    return size["y"], size["x"]


def in_pixels(value: float | str, sample: Sample, *, name: str) -> tuple[float, float]:
    """Return a length along y and along x, in a sample's pixels.

    Raises
    ------
    UsageError
        If it is no length.
    InputError
        If it needs a pixel size that is not known.
    """
    number, physical = split_length(value, name=name)
    if not physical:
        return number, number
    height, width = pixel_of(sample, name=name)
    return number / height, number / width
