"""Pixel sizes, as people write them and as image files do, in micrometres."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# One of each unit in micrometres, as people and image files write it.
MICROMETRES = {
    "pm": 1e-6,
    "\u00c5": 1e-4,  # the letter, as OME writes an ångström
    "\u212b": 1e-4,  # the sign
    "angstrom": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,  # the micro sign
    "μm": 1.0,  # the Greek letter
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
# The names in the OME-Zarr specification.
OME_UNITS = {
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
# The axes that one, two or three numbers stand for.
AXES = {1: ("y", "x"), 2: ("y", "x"), 3: ("z", "y", "x")}


def micrometres(value: float, unit: str) -> float | None:
    """Return a length in micrometres; None where the unit is unknown or the length is no length.

    >>> micrometres(250, "nm")
    0.25
    """
    # ImageJ escapes letters beyond ASCII.
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit.strip())
    factor = MICROMETRES.get(plain)
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return float(f"{value * factor:.12g}")


def parse_pixel_size(text: str) -> dict[str, float]:
    """Read a pixel size as a user types it: one number for y and x, or y,x, or z,y,x.

    Each may have a unit, micrometres where it has none.

    >>> parse_pixel_size("250nm")
    {'y': 0.25, 'x': 0.25}
    >>> parse_pixel_size("2,0.5,0.25")
    {'z': 2.0, 'y': 0.5, 'x': 0.25}
    """
    sizes = [_length(part) for part in text.split(",")]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or len(sizes) not in AXES:
        raise UsageError(
            "pixel size must be one to three lengths above 0 (y and x, or y,x, or z,y,x),"
            f" got {text!r}; for example 0.25 or 250nm or 0.5,0.25"
        )
    return dict(zip(AXES[len(known)], known * 2 if len(known) == 1 else known, strict=True))


def _length(text: str) -> float | None:
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-zµμ\u00c5\u212b]*)\s*", text)
    try:
        return micrometres(float(match[1]), match[2] or "um") if match else None
    except ValueError:
        return None


def split_length(value: float | str, *, name: str) -> tuple[float, bool]:
    """Return a length as a number, and whether it counts micrometres and not pixels.

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


def check_length(value: float | str, *, name: str) -> None:
    """Refuse what is no length, or less than none."""
    if not split_length(value, name=name)[0] >= 0:
        raise UsageError(f"{name} must be 0 or more, got {value}")


def recorded(value: float | str, *, name: str) -> float | str:
    """Return a length as it is written down: as a number where it counts pixels.

    >>> recorded("10", name="sigma"), recorded("0.5um", name="sigma")
    (10.0, '0.5um')
    """
    number, physical = split_length(value, name=name)
    return value if physical else number


def plane_pixel(pixel_size: Mapping[str, float] | None) -> tuple[float, float] | None:
    """Give the height and width of pixels in micrometres, where both are known."""
    size = pixel_size or {}
    return (size["y"], size["x"]) if "y" in size and "x" in size else None


def pixel_of(
    pixel_size: Mapping[str, float] | None, *, name: str, sample: str
) -> tuple[float, float]:
    """Return height and width of a sample's pixels in micrometres, which a length needs."""
    size = pixel_size or {}
    if not size.get("y") or not size.get("x"):
        raise InputError(
            f"sample {sample!r} must have a pixel size for a {name} in micrometres, got none; "
            f"import it with --pixel-size, or give {name} in pixels"
        )
    return size["y"], size["x"]


def in_pixels(
    value: float | str, pixel_size: Mapping[str, float] | None, *, name: str, sample: str
) -> tuple[float, float]:
    """Return a length along y and along x, in the pixels of a sample."""
    number, physical = split_length(value, name=name)
    if not physical:
        return number, number
    height, width = pixel_of(pixel_size, name=name, sample=sample)
    return number / height, number / width
