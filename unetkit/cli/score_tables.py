"""What `unetkit eval` found beyond a table of scores: intervals, comparisons, the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from unetkit.cli import tables
from unetkit.cli.text import safe

Document = Mapping[str, Any]

# The scores that fit on a screen; `--json` has all.
SHOWN = ("average_precision_50", "average_precision", "pq", "seg", "dice", "pixel_error")
_BORDERS = (
    "boundary_f",
    "hausdorff95",
    "surface_distance",
    "v_rand",
    "v_info",
    "warping_error",
    "isbi_rand",
    "isbi_pixel",
)


def evaluated(document: Document) -> list[RenderableType]:
    """Lay out one prediction's scores with their intervals, or several side by side.

    Parameters
    ----------
    document : mapping
        An evaluation report, or one of several predictions.
    """
    if "predictions" in document:
        return _compared(document)
    parts = tables.scores(document)
    found = {n: document["overall"].get(n) for n in _BORDERS}
    borders = {n: value for n, value in found.items() if value is not None}
    if borders:
        parts += ["", tables.table([_row(n, v) for n, v in borders.items()])]
    return [*parts, "", *_missing(document["overall"]["reasons"]), *_certain(document["certainty"])]


def listed(rows: Sequence[Document]) -> list[RenderableType]:
    """Lay out which scores there are.

    Parameters
    ----------
    rows : sequence of mapping
        Entries of the catalogue.
    """
    shown = ("name", "range", "best", "definition")
    return [tables.table([{name: row[name] for name in shown} for row in rows])]


def _row(name: str, found: float | None) -> Document:
    # Three decimals would make nothing of an error of topology in a million pixels.
    return {"score of borders": name, "": tables.value(found)}


def _missing(reasons: Mapping[str, str]) -> list[RenderableType]:
    """Say which scores are not there, reason by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        # Ten thresholds of one score are one.
        stem = name.rstrip("0123456789").rstrip("_") if "precision_" in name else name
        if stem not in names.setdefault(reason, []):
            names[reason].append(stem)
    lines = [f"Not there: {', '.join(found)}: {reason}." for reason, found in names.items()]
    return [Text(safe(line), style="dim") for line in lines]


def _certain(certainty: Document) -> list[RenderableType]:
    """Say how sure the overall scores are, or why that is not known."""
    found = {n: i for n, i in certainty["intervals"].items() if n in SHOWN and i is not None}
    if not found:
        return [Text(safe(f"No intervals: {certainty['reason'] or 'nothing applies'}."))]
    percent = f"{certainty['level']:.0%}"
    rows = [{f"{percent} interval": n, "from": i[0], "to": i[1]} for n, i in found.items()]
    squares = f"squares of {certainty['square']} pixels" if certainty["square"] else "images"
    return [tables.table(rows), Text(f"From {certainty['units']} {squares}, resampled.")]


def _compared(document: Document) -> list[RenderableType]:
    """Lay out several predictions, and where they differ."""
    rows = [
        {"prediction": report["prediction"]}
        | {name: _value(report["overall"], name) for name in SHOWN}
        for report in document["predictions"]
    ]
    parts: list[RenderableType] = [tables.table(rows), ""]
    tests = [_test(row) for row in document["comparisons"] if row["score"] in SHOWN]
    if not tests:
        return [*parts, Text(safe(f"No comparison: {document['reason'] or 'nothing applies'}."))]
    return [*parts, tables.table(tests)]


def _test(row: Document) -> Document:
    low, high = row["interval"] or (None, None)
    return {
        "score": row["score"],
        "first": row["first"],
        "second": row["second"],
        "difference": row["difference"],
        "from": low,
        "to": high,
        # Three digits are shown, and no difference is certain.
        "p (Holm)": "< 0.001" if row["p_holm"] < 0.0005 else row["p_holm"],
    }


def _value(overall: Document, name: str) -> object:
    if name == "average_precision_50":
        return (overall["average_precision_at"] or {}).get("0.50")
    return overall[name]
