"""Documents laid out for reading: scores as a table, anything else as names and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
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


def scores(document: Document) -> list[RenderableType]:
    """Lay out what `unetkit eval` found: overall, then by class and by sample.

    Parameters
    ----------
    document : mapping
        An evaluation report; every threshold of the average precision is only there.
    """
    alone = len(document["samples"]) == 1
    columns = (
        {"": document["overall"]}
        if alone
        else {
            "overall": document["overall"],
            "mean of samples": document["mean"],
        }
    )
    rows = [
        {"score": label} | {name: pick(column) for name, column in columns.items()}
        for label, pick in _SCORES[document["kind"]]
    ]
    parts: list[RenderableType] = [table(rows)]
    if document["kind"] == "classes":
        shown = ("name", "dice", "iou", "pixels_true", "pixels_predicted")
        parts.append(table([_only(row, shown) for row in document["overall"]["classes"]]))
    if not alone:
        parts.append(table([_sample(row, document["kind"]) for row in document["samples"]]))
    return parts


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


def _at(threshold: str) -> Callable[[Document], object]:
    return lambda scores: (scores["average_precision_at"] or {}).get(threshold)


_PIXELS: list[tuple[str, Callable[[Document], object]]] = [
    ("Dice", itemgetter("dice")),
    ("IoU", itemgetter("iou")),
    ("pixel error", itemgetter("pixel_error")),
]
# What is shown for each kind of labels: a name, and where it stands among the scores.
_SCORES: dict[str, list[tuple[str, Callable[[Document], object]]]] = {
    "instances": [
        ("average precision at IoU 0.5", _at("0.50")),
        ("average precision at IoU 0.75", _at("0.75")),
        ("average precision, mean of 0.5 to 0.95", itemgetter("average_precision")),
        ("SEG", itemgetter("seg")),
        *_PIXELS,
        ("adapted Rand error", itemgetter("adapted_rand_error")),
        ("variation of information", itemgetter("voi")),
        ("objects predicted", itemgetter("objects_predicted")),
        ("objects in the truth", itemgetter("objects_true")),
        ("objects matched at IoU 0.5", itemgetter("objects_matched")),
    ],
    "classes": _PIXELS,
}


def _sample(row: Document, kind: str) -> Document:
    """Choose the few scores of a sample that fit on a line."""
    if kind == "classes":
        return {"sample": row["name"], "Dice": row["dice"], "IoU": row["iou"]}
    return {
        "sample": row["name"],
        "AP 0.5": _at("0.50")(row),
        "AP": row["average_precision"],
        "Dice": row["dice"],
        "predicted": row["objects_predicted"],
        "true": row["objects_true"],
    }


def _only(row: Document, names: Sequence[str]) -> Document:
    return {name: row[name] for name in names}


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
