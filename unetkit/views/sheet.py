"""Panels laid out on one sheet with captions and scales, written as PNG."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from unetkit.storage.files import write_bytes
from unetkit.views.drawing import heat

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """One picture of a sheet.

    Parameters
    ----------
    picture : ndarray of uint8, shape (Y, X, 3)
        The pixels.
    caption : str
        What stands under it.
    bar : ColourBar, optional
        The scale at its right.
    """

    picture: Rgb
    caption: str = ""
    bar: ColourBar | None = None


def png_bytes(array: npt.NDArray[np.generic]) -> bytes:
    """Encode an array as a PNG file without loss.

    Parameters
    ----------
    array : ndarray of uint8 or uint16, shape (Y, X), or of uint8, shape (Y, X, 3)
        The pixels.
    """
    buffer = io.BytesIO()
    # By this mark a later run knows that the file is its own and may be replaced.
    mark = PngInfo()
    mark.add_text("Software", "unetkit")
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", pnginfo=mark)
    return buffer.getvalue()


def side_by_side(path: str, panels: Sequence[Panel], *, title: str = "") -> None:
    """Write panels beside each other.

    Parameters
    ----------
    path : str
        The PNG file to write.
    panels : sequence of Panel
        At least one.
    title : str
        What stands above them.
    """
    contact_sheet(path, panels, columns=len(panels), title=title)


def contact_sheet(path: str, panels: Sequence[Panel], *, columns: int, title: str = "") -> None:
    """Write panels in rows, from left to right and from top to bottom.

    Parameters
    ----------
    path : str
        The PNG file to write.
    panels : sequence of Panel
        At least one.
    columns : int
        Panels in a row.
    title : str
        What stands above them.
    """
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
