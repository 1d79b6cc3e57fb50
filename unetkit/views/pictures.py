"""The pictures that the commands write: images with outlines, weight maps, augmentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from unetkit.views.drawing import heat, outlined, to_rgb8
from unetkit.views.sheet import ColourBar, Panel, contact_sheet, png_bytes, side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from unetkit.views.drawing import Rgb

_GRID = (255, 255, 255)
# Own choices: large enough to see one pixel of a gap, small enough for a screen.
_SMALLEST, _LARGEST = 320, 640  # pixels along a panel's longer side
_MOST_ROWS = 24


def image_panel(
    image: npt.NDArray[np.generic],
    caption: str = "",
    *,
    labels: npt.NDArray[np.integer] | None = None,
    fill: float = 0.0,
    grid_lines: npt.NDArray[np.floating] | None = None,
    scale: float | None = None,
) -> Panel:
    """Show an image at a size that can be looked at, with what belongs over it.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X)
        Any real dtype; the contrast is stretched.
    caption : str
        What stands under it.
    labels : ndarray of int, shape (Y, X), optional
        Outlined, each object in a colour that its neighbours do not have.
    fill : float
        How strongly the objects are tinted, 0 to 1.
    grid_lines : ndarray of float, shape (2, P, Q), optional
        y and x of the crossings of a grid, in pixels of the image.
    scale : float, optional
        Pixels of the picture for one of the image; left out, what suits a screen.
    """
    shape = image.shape[1:]
    size = _panel_size(shape, scale=scale)
    picture = _resized(to_rgb8(image), size)
    if labels is not None:
        # Outlines are drawn after the change of size, so that they are one fine line everywhere.
        picture = outlined(picture, _nearest(labels, size), fill=fill)
    if grid_lines is not None:
        picture = _with_grid(picture, grid_lines, scale=size[0] / shape[0])
    return Panel(picture, caption)


def small_picture(
    image: npt.NDArray[np.generic], labels: npt.NDArray[np.integer] | None = None
) -> bytes:
    """Draw an image, with its objects outlined where there are any, as a PNG file.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X)
        Any real dtype; the contrast is stretched.
    labels : ndarray of int, shape (Y, X), optional
        Objects or classes.

    Returns
    -------
    bytes
    """
    return png_bytes(image_panel(image, labels=labels, fill=0.25).picture)


def weight_panel(weights: npt.NDArray[np.floating], caption: str = "") -> Panel:
    """Show a weight map as colours, with the scale beside it.

    Parameters
    ----------
    weights : ndarray of float, shape (Y, X)
        The weights.
    caption : str
        What stands under it.
    """
    finite = weights[np.isfinite(weights)]
    # An all-zero map still needs a scale.
    high = float(finite.max(initial=0.0)) or 1.0
    picture = heat(_nearest(weights, _panel_size(weights.shape)), low=0.0, high=high)
    return Panel(picture, caption, ColourBar(0.0, high))


def augmentation_sheet(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what augmentation makes: each original beside its deformed copy.

    Parameters
    ----------
    path : str
        The PNG file to write.
    rows : sequence of mappings
        Each with `original` and `deformed`, ndarrays of shape (C, Y, X); `labels` and
        `deformed_labels`, ndarrays of int, shape (Y, X), or None; `grid_lines`, an ndarray of
        shape (2, P, Q) with y and x where the lines of a regular grid came to lie, or None; and
        `title`. Beyond the first 24 rows a sheet would be too long to look at.
    """
    panels: list[Panel] = []
    for row in rows[:_MOST_ROWS]:
        grid = row.get("grid_lines")
        panels += [
            image_panel(row["original"], row.get("title", ""), labels=row.get("labels")),
            image_panel(
                row["deformed"],
                "deformed" if grid is None else "deformed, with its grid",
                labels=row.get("deformed_labels"),
                grid_lines=grid,
            ),
        ]
    contact_sheet(path, panels, columns=2)


def weight_picture(
    path: str,
    image: npt.NDArray[np.generic],
    labels: npt.NDArray[np.integer],
    *,
    weights: npt.NDArray[np.floating],
    title: str = "",
) -> None:
    """Write an image with its outlined labels beside the weights that they lead to.

    Parameters
    ----------
    path : str
        The PNG file to write.
    image : ndarray, shape (C, Y, X)
        The image.
    labels : ndarray of int, shape (Y, X)
        Its labels.
    weights : ndarray of float, shape (Y, X)
        Its weights.
    title : str
        What stands above.
    """
    panels = [image_panel(image, "labels", labels=labels), weight_panel(weights, "weights")]
    side_by_side(path, panels, title=title)


def _panel_size(shape: tuple[int, ...], *, scale: float | None = None) -> tuple[int, int]:
    """Choose height and width: small images enlarged by a whole number, large ones reduced."""
    height, width = int(shape[0]), int(shape[1])
    longest = max(height, width)
    if scale is None and longest > _LARGEST:
        scale = _LARGEST / longest
    elif scale is None:
        scale = max(1, math.ceil(_SMALLEST / longest))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(picture: Rgb, size: tuple[int, int]) -> Rgb:
    filtering = Image.Resampling.BOX if size[0] < picture.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), filtering))


def _nearest(plane: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Take the pixel whose area holds the centre of the new one."""
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new)
        for new, old in zip(size, plane.shape, strict=True)
    )
    return plane[np.ix_(rows, columns)]


def _with_grid(picture: Rgb, lines: npt.NDArray[np.floating], *, scale: float) -> Rgb:
    """Draw the lines of a deformed grid, half transparent so that the image stays visible."""
    base = Image.fromarray(picture)
    over = base.copy()
    draw = ImageDraw.Draw(over)
    # A pixel's centre lies half a pixel from its corner.
    points = (np.asarray(lines, dtype=np.float64) + 0.5) * scale - 0.5
    for along in (points, points.swapaxes(1, 2)):
        for ys, xs in zip(along[0], along[1], strict=True):
            draw.line([(float(x), float(y)) for y, x in zip(ys, xs, strict=True)], fill=_GRID)
    return np.asarray(Image.blend(base, over, 0.6))
