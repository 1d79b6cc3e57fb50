"""Tables as CSV files that a spreadsheet opens without running what is in them."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.errors import OutputError
from unetkit.storage.atomic import check_parent, write_text
from unetkit.storage.files import check_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Cell = str | int | float | None

# What a spreadsheet takes for the start of a formula (OWASP, CSV injection).
_TRIGGERS = ("=", "+", "-", "@", "\t", "\r")


def check_file(path: str, *, overwrite: bool, begins: str) -> None:
    """Make sure that a file can be written, before the work that fills it.

    Parameters
    ----------
    path : str
    overwrite : bool
        Whether an earlier result may be replaced.
    begins : str
        How an earlier result begins; anything else is never replaced.

    Raises
    ------
    OutputError
        If something is there that may not be replaced.
    UsageError
        If it is a URL.
    """
    check_local(path)
    check_parent(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputError(f"output {path} must not exist yet, got something there; add --overwrite")
    place = Path(path)
    if not place.is_file() or place.read_bytes()[: len(begins)] != begins.encode():
        raise OutputError(
            f"output {path} must be an earlier output of unetkit to be replaced by --overwrite, "
            "got something else; choose another name"
        )


def write_csv(path: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table whole or not at all; empty cells are what is not there.

    Parameters
    ----------
    path : str
    columns : sequence of str
    rows : iterable of sequence of str, int, float or None
        Text that would begin a formula is led by an apostrophe; numbers stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _cell(cell: Cell) -> str | int:
    """Make a cell harmless and exact."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_TRIGGERS) else cell
    if isinstance(cell, float):
        return repr(cell) if math.isfinite(cell) else ""
    return cell
