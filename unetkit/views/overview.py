"""A picture of whole images with what was found in them, however large they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unetkit.views.pictures import image_panel
from unetkit.views.sheet import contact_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

# Our choice: enough to see the tissue, and what lies where, on one screen.
SIDE = 1024
TINT = 0.25


def side_for(count: int) -> int:
    """Return the side in pixels of each of several images on one sheet.

    >>> side_for(1), side_for(2), side_for(24)
    (1024, 512, 204)
    """
    return SIDE // columns_for(count)


def columns_for(count: int) -> int:
    """Return how many images stand in a row, so that the sheet is about square."""
    return math.ceil(math.sqrt(count))


def overview_picture(
    path: str,
    shown: Sequence[tuple[str, npt.NDArray[np.generic], npt.NDArray[np.integer]]],
    *,
    title: str,
) -> None:
    """Write small copies of images with outlines around what was found.

    Parameters
    ----------
    path : str
        The PNG file to write.
    shown : sequence of tuple
        A caption; an image of shape (C, Y, X); its labels of shape (Y, X), of any size.
    title : str
        What stands above.
    """
    side = side_for(len(shown))
    panels = []
    for caption, image, labels in shown:
        # A small image is enlarged by a whole number, never blurred.
        scale = max(1, side // max(image.shape[1:]))
        panels.append(image_panel(image, caption, labels=labels, fill=TINT, scale=scale))
    contact_sheet(path, panels, columns=columns_for(len(shown)), title=title)
