"""What is asked of every reader here, and can't be had of any microscope's file.

A reader takes the path of a file; `axes`, which can only be those that the file has; `labels`,
which must be False; and `scene`, a name or number, else the first. It returns an `ImageFile`. It
raises a MissingError if there is no such file, an InputError if it can't be read, holds no image or
has other axes than time, channels, depth and the plane, and a UsageError if it has no such scene.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.errors import InputError, MissingError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_there(path: str, *, labels: bool) -> None:
    """Refuse a file that is absent, and labels, which microscopes don't write."""
    if labels:
        raise InputError(f"labels must be masks, got {path!r}; save them as PNG or TIFF")
    if not Path(path).is_file():
        raise MissingError(f"image file must exist, got {path!r}; correct the name")


def known_sizes(found: Mapping[str, float]) -> dict[str, float] | None:
    """Return micrometres along y, x and perhaps z; None where those of the plane are unknown."""
    sizes = {axis: found[axis] for axis in "yxz" if axis in found}
    return sizes if {"y", "x"} <= set(sizes) else None


def arranged(sizes: Mapping[str, int], path: str, *, axes: str | None) -> str:
    """Return the axes t, c, z, y, x that a file has, and refuse others.

    An axis of one step counts only where it is among the axes that are asked for.
    """
    wide = {axis for axis, size in sizes.items() if size > 1} | {"y", "x"}
    own = "".join(a for a in "tczyx" if a in wide or (axes is not None and a in axes))
    if wide - set("tczyx"):
        listed = ", ".join(f"{axis} ({size})" for axis, size in sizes.items())
        raise InputError(
            f"image must have the axes t, c, z, y and x alone, got {listed} in {path!r};"
            " save it as OME-TIFF, or choose another scene with --scene"
        )
    if axes is not None and set(axes) != set(own):
        raise InputError(f"axes must be those of {path!r}, {own}, got {axes!r}; leave them out")
    return own
