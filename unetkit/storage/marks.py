"""Places to look at, from tables of objects, errors and windows; it opens no image."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.errors import InputError
from unetkit.storage import urls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Our choice: a table of some million objects; what is larger is no list to go through.
LARGEST = 2**29
# What stands where: the first of these that a table has all columns of.
PLACES = (("y0", "x0", "y1", "x1"), ("centroid_y", "centroid_x"), ("y", "x"))
# What is told of a place, the most telling first, and what is not.
FIRST = ("kind", "side", "id", "class", "class_name", "partner", "iou", "area")
UNSAID = {"sample", "plane", "unit", *(name for names in PLACES for name in names)}
SAID = 6


@dataclass(frozen=True)
class Mark:
    """A place to look at, in pixels; the centre of the first pixel is 0."""

    plane: int
    y: float
    x: float
    text: str = ""
    box: tuple[float, float, float, float] | None = None  # y0, x0, y1, x1, the ends excluded
    kind: str = ""  # of the error, where it is one
    sample: str = ""


def read_marks(path: str, *, pixel_size: Mapping[str, float] | None = None) -> list[Mark]:
    """Read a table of places: objects of `measure`, those of `eval`, or windows.

    Parameters
    ----------
    path : str
        A CSV file with the columns y and x, centroid_y and centroid_x, or y0, x0, y1 and x1;
        perhaps with sample, plane (counted from 0), unit (pixel or micrometre) and kind.
    pixel_size : dict of str to float, optional
        Micrometres along y and x, for places that are given in them.

    Returns
    -------
    list of Mark
        In the order of the rows.

    Raises
    ------
    InputError
        If it is no such table, or a row has no numbers there.
    """
    data = urls.read_small(path, limit=LARGEST)
    if data is None:
        raise urls.missing(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be a CSV file, got no text in it; name a table") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = [str(name) for name in rows.fieldnames or ()]
    place = next((names for names in PLACES if set(names) <= set(columns)), None)
    if place is None:
        raise InputError(
            f"{path} must have the columns y and x, centroid_y and centroid_x, or y0, x0, y1 and"
            f" x1, got {', '.join(columns[:12])!r:.200}; name a table that 'unetkit measure' or"
            " 'unetkit eval --objects' wrote"
        )
    told = [*(name for name in FIRST if name in columns)]
    told += [name for name in columns if name not in (*FIRST, *UNSAID)]
    return [_mark(row, rows.line_num, path, (place, told, pixel_size)) for row in rows]


def _mark(
    row: Mapping[str, str],
    line: int,
    path: str,
    how: tuple[Sequence[str], Sequence[str], Mapping[str, float] | None],
) -> Mark:
    place, told, pixel_size = how
    try:
        numbers = [float(row[name]) for name in place]
        plane = int(row.get("plane") or 0)
    except (TypeError, ValueError):
        numbers, plane = [math.nan], 0
    if not all(map(math.isfinite, numbers)) or plane < 0:
        got = [row.get(name) for name in (*place, "plane")]
        raise InputError(
            f"line {line} of {path} must have numbers in {', '.join(place)} and plane, got"
            f" {got!r:.100}; write the table again"
        )
    if row.get("unit") == "micrometre":
        if not pixel_size or not {"y", "x"} <= set(pixel_size):
            raise InputError(
                f"{path} must be in pixels for an image of unknown pixel size, got micrometres;"
                " measure it again as it is now"
            )
        numbers = [n / pixel_size["yx"[k % 2]] for k, n in enumerate(numbers)]
    said = [(name, (row.get(name) or "").removeprefix("'")) for name in told]
    text = ", ".join(f"{name} {_short(value)}" for name, value in said if value)
    text = ", ".join(text.split(", ")[:SAID])
    box = None
    if len(numbers) == 4:
        y0, x0, y1, x1 = numbers
        numbers, box = [(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2], (y0, x0, y1, x1)
    sample = (row.get("sample") or "").removeprefix("'")
    return Mark(plane, numbers[0], numbers[1], text, box, row.get("kind") or "", sample)


def _short(value: str) -> str:
    """Round a number with many decimal places to what one line has room for."""
    if re.fullmatch(r"-?\d+\.\d{4,}", value) is None:
        return value
    number = float(value)
    return f"{number:.4g}" if abs(number) < 1e4 else f"{number:.0f}"
