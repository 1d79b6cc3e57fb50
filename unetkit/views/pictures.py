"""The pictures that the commands write: images with outlines, weight maps, augmentation."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from unetkit.storage.atomic import write_bytes
from unetkit.views.drawing import dimmed, heat, outlined, to_rgb8

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from unetkit.views.drawing import Rgb

# Own choices: a sheet that reads well on a screen and in a README.
_PAPER, _INK, _FAINT = (255, 255, 255), (28, 30, 36), (110, 114, 124)
_GAP = 14
_CAPTION_SIZE, _TITLE_SIZE, _SCALE_SIZE = 15, 20, 13


@dataclass(frozen=True)
class ColourBar:
    """The scale beside a panel: `heat` from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet."""

    picture: Rgb
    caption: str = ""  # stands under it
    bar: ColourBar | None = None  # at its right


def png_bytes(array: npt.NDArray[np.generic]) -> bytes:
    """Encode pixels as a PNG: (Y, X) of uint8 or uint16, or (Y, X, 3) of uint8."""
    buffer = io.BytesIO()
    # By this mark a later run knows that the file is its own and may be replaced.
    mark = PngInfo()
    mark.add_text("Software", "unetkit")
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", pnginfo=mark)
    return buffer.getvalue()


def side_by_side(path: str, panels: Sequence[Panel], *, title: str = "") -> None:
    """Write panels beside each other as a PNG, with a title above them."""
    contact_sheet(path, panels, columns=len(panels), title=title)


def contact_sheet(path: str, panels: Sequence[Panel], *, columns: int, title: str = "") -> None:
    """Write panels in rows as a PNG, from left to right and from top to bottom."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    cells = [[_cell(panel) for panel in row] for row in rows]
    widths = [max(row[i].width for row in cells if i < len(row)) for i in range(len(cells[0]))]
    heights = [max(cell.height for cell in row) for row in cells]
    top = _GAP + (_TITLE_SIZE + _GAP if title else 0)
    sheet = Image.new(
        "RGB",
        (sum(widths) + _GAP * (len(widths) + 1), top + sum(heights) + _GAP * len(heights)),
        _PAPER,
    )
    if title:
        _write(sheet, title, at=(_GAP, _GAP), size=_TITLE_SIZE)
    y = top
    for row, height in zip(cells, heights, strict=True):
        x = _GAP
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell, (x, y))
            x += width + _GAP
        y += height + _GAP
    write_bytes(path, png_bytes(np.asarray(sheet)))


def _cell(panel: Panel) -> Image.Image:
    """Put a panel's picture, scale and caption onto one piece of paper."""
    height, width = panel.picture.shape[:2]
    bar = _bar(panel.bar, height) if panel.bar else None
    full = width + (bar.width if bar else 0)
    cell = Image.new("RGB", (full, height + (_CAPTION_SIZE + 12 if panel.caption else 0)), _PAPER)
    cell.paste(Image.fromarray(panel.picture), (0, 0))
    if bar:
        cell.paste(bar, (width, 0))
    if panel.caption:
        _write(cell, panel.caption, at=(0, height + 5), size=_CAPTION_SIZE)
    return cell


def _bar(bar: ColourBar, height: int) -> Image.Image:
    """Draw a scale with numbers, the highest value at the top."""
    paper = Image.new("RGB", (80, height), _PAPER)
    ramp = np.linspace(bar.high, bar.low, height)[:, None].repeat(16, axis=1)
    paper.paste(Image.fromarray(heat(ramp, low=bar.low, high=bar.high)), (10, 0))
    for value in _ticks(bar.low, bar.high):
        y = round((height - 1) * (bar.high - value) / (bar.high - bar.low))
        ImageDraw.Draw(paper).line([(26, y), (30, y)], fill=_FAINT)
        inside = min(max(y - _SCALE_SIZE // 2 - 1, 0), height - _SCALE_SIZE - 3)
        _write(paper, f"{value:.4g}", at=(34, inside), size=_SCALE_SIZE, ink=_FAINT)
    return paper


def _ticks(low: float, high: float) -> list[float]:
    """Choose four to nine round values from `low` to `high`: steps of 1, 2 or 5 times a ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= (high - low) / 4)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _write(
    paper: Image.Image,
    text: str,
    *,
    at: tuple[int, int],
    size: int,
    ink: tuple[int, int, int] = _INK,
) -> None:
    """Write one line, shortened to what fits."""
    font = ImageFont.load_default(size)
    line = "".join(character if character.isprintable() else "?" for character in text)
    room = paper.width - at[0]
    shown = line
    while shown and font.getlength(shown) > room:
        line = line[:-1]
        shown = line.rstrip() + "..." if line else ""
    ImageDraw.Draw(paper).text(at, shown, fill=ink, font=font)


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
    classes: bool = False,
    ignore: npt.NDArray[np.integer] | None = None,
    grid_lines: npt.NDArray[np.floating] | None = None,
    scale: float | None = None,
    ends: npt.NDArray[np.number] | None = None,
) -> Panel:
    """Show an image (C, Y, X) at a size that can be looked at, with what belongs over it.

    `labels` are outlined, each object in a colour that its neighbours do not have, and tinted as
    strongly as `fill` says, 0 to 1, or `classes` with a colour each. Where `ignore` is not 0 the
    picture is dim. `grid_lines` (2, P, Q) are y and x of the crossings of a grid,
    in pixels of the image. `scale` is pixels of the picture for one of the image; left out, what
    suits a screen. `ends` are what becomes black and white, as for `views.drawing.to_rgb8`.
    """
    shape = image.shape[1:]
    size = _panel_size(shape, scale=scale)
    picture = _resized(to_rgb8(image, ends=ends), size)
    if labels is not None:
        # Outlines are drawn after the change of size, so that they are one fine line everywhere.
        picture = outlined(picture, _nearest(labels, size), fill=fill, classes=classes)
    if ignore is not None:
        picture = dimmed(picture, _nearest(ignore, size) != 0)
    if grid_lines is not None:
        picture = _with_grid(picture, grid_lines, scale=size[0] / shape[0])
    return Panel(picture, caption)


def small_picture(
    image: npt.NDArray[np.generic], labels: npt.NDArray[np.integer] | None = None
) -> bytes:
    """Draw an image (C, Y, X), with its objects outlined where there are any, as a PNG file."""
    return png_bytes(image_panel(image, labels=labels, fill=0.25).picture)


def cover_picture(image: npt.NDArray[np.generic], classes: npt.NDArray[np.integer]) -> bytes:
    """Draw the middle of an image (C, Y, X) beside the same with its classes, as a PNG file.

    It is twice as wide as high and small, as collections of models want it.
    """
    side = min(*classes.shape, _SMALLEST)
    window = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in classes.shape)
    seen, scale = image[:, window[0], window[1]], max(1, _SMALLEST // side)
    panels = (
        image_panel(seen, scale=scale),
        image_panel(seen, labels=classes[window], fill=0.25, classes=True, scale=scale),
    )
    return png_bytes(np.concatenate([panel.picture for panel in panels], axis=1))


def weight_panel(
    weights: npt.NDArray[np.floating], caption: str = "", *, high: float | None = None
) -> Panel:
    """Show a weight map as colours, with the scale beside it, which ends at `high`."""
    if high is None:
        finite = weights[np.isfinite(weights)]
        # An all-zero map still needs a scale.
        high = float(finite.max(initial=0.0)) or 1.0
    picture = heat(_nearest(weights, _panel_size(weights.shape)), low=0.0, high=high)
    return Panel(picture, caption, ColourBar(0.0, high))


def augmentation_sheet(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what augmentation makes as a PNG: each original beside its deformed copy.

    A row has `original` and `deformed` images (C, Y, X), their `labels` and `deformed_labels` or
    None, `grid_lines` (2, P, Q) where the lines of a regular grid came to lie, or None, and a
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
    """Write an image with its outlined labels beside the weights that they lead to, as a PNG."""
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
