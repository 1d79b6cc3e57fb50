"""Documents laid out for reading: scores as a table, anything else as names and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unetkit.cli.text import safe

Document = Mapping[str, Any]


def details(document: Document) -> list[RenderableType]:
    """Lay out names and values; what holds further names is indented under its own.

    Parameters
    ----------
    document : mapping
        Strings, numbers, lists and mappings, as for JSON.
    """
    return list(_parts(document, indent=0))


def table(rows: Sequence[Document], *, title: str = "") -> Table:
    """Lay out mappings as rows; the columns are their names, in the order of appearance.

    Parameters
    ----------
    rows : sequence of mappings
        Names and plain values.
    title : str
        What stands above.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {
        name
        for name in columns
        if all(isinstance(row.get(name), int | float | None) for row in rows)
    }
    result = Table(box=box.SIMPLE_HEAD, title=Text(safe(title)) if title else None, pad_edge=False)
    for name in columns:
        heading = Text(safe(name.replace("_", " ")))
        result.add_column(heading, justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        result.add_row(*(_cell(row.get(name)) for name in columns))
    return result


def value(item: object) -> str:
    """Say a plain value: what is not there as a dash, numbers with four digits that count.

    Examples
    --------
    >>> value(None), value(True), value(0.123456), value([512, 512])
    ('-', 'yes', '0.1235', '512, 512')
    """
    if item is None:
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, Mapping):
        return ", ".join(f"{safe(name)} {value(part)}" for name, part in item.items()) or "-"
    if isinstance(item, list | tuple):
        return ", ".join(value(part) for part in item) or "-"
    return safe(item)


def _cell(item: object) -> Text:
    return Text(value(item))


def _parts(document: Document, *, indent: int) -> Iterator[RenderableType]:
    """Plain values first, in one block, then each part that has names of its own."""
    plain = {name: item for name, item in document.items() if not _nested(item)}
    if plain:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, item in plain.items():
            grid.add_row(Text(safe(name.replace("_", " "))), _cell(item))
        yield Padding(grid, (0, 0, 0, indent))
    for name, item in document.items():
        if not _nested(item):
            continue
        yield Padding(Text(safe(name.replace("_", " ")), style="bold"), (0, 0, 0, indent))
        if isinstance(item, Mapping):
            yield from _parts(item, indent=indent + 2)
        else:
            yield Padding(table(item), (0, 0, 0, indent + 2))


def _nested(item: object) -> bool:
    """Whether an item takes a block of its own."""
    if isinstance(item, Mapping):
        return len(item) > 0
    return isinstance(item, list | tuple) and any(isinstance(part, Mapping) for part in item)
