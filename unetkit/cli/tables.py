"""Documents laid out for reading: scores as a table, anything else as names and values."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unetkit.progress import format_bytes, format_duration

# What Unicode calls control, format, surrogate, and separators of lines and paragraphs: it moves
# the cursor, turns the direction of writing, hides, or starts a command to the terminal.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# These two only join or part letters: Persian, Indic scripts and many emoji need them.
_JOINERS = "\u200c\u200d"


def safe(text: object) -> str:
    r"""Show a name from a file, an attribute or a message as text and nothing but text.

    Control characters, those that turn the direction of writing, and bytes that are no text
    appear as backslash escapes. Markup needs none: everything is printed with markup off.

    Examples
    --------
    >>> safe("a\x1b[2J.zarr")
    'a\\x1b[2J.zarr'
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE and character not in _JOINERS
        else character
        for character in str(text)
    )


Document = Mapping[str, Any]


def details(document: Document) -> list[RenderableType]:
    """Lay out names and values; what holds further names is indented under its own."""
    return list(_parts(document, indent=0))


def described(document: Document) -> list[RenderableType]:
    """Lay out what `unetkit info` found; of a model each score once, by the name that tells how.

    The kept network's scores by its own decision are those of what is held out, so that those that
    chose network and decision, on the same images, are left to ``--json``.
    """
    if document["kind"] != "model":
        return details(document)
    found, told = dict(document), dict(document["provenance"])
    held_out = told.pop("held_out", None)
    chosen = ("score", "default_score", "old_score", "new_score")
    usual = {n: item for n, item in found.pop("scores").items() if n not in chosen}
    if held_out:
        found["decision"] = {n: v for n, v in (found["decision"] or {}).items() if n not in chosen}
        found["scores on what is held out"] = _held_out(held_out)
    found["scores in validation, with the default decision"] = usual
    del found["provenance"]
    return details({**found, "provenance": told})


def _held_out(told: Document) -> Document:
    """Give the scores of each dataset by their names, and no list of intervals that are unknown."""
    shown = {n: item for n, item in told.items() if n != "intervals" or not told.get("reason")}
    if not (rows := told.get("datasets")):
        return shown
    name = "dice" if rows[0]["objects"] is None else "average precision"
    of_each = [
        {"of": row["data"], "objects": row["objects"], name: row["score"], "before": row["before"]}
        for row in rows
    ]
    return {**shown, "datasets": of_each}


def scores(document: Document) -> list[RenderableType]:
    """Lay out what `unetkit eval` found: overall, then by class and by sample."""
    alone = len(document["samples"]) == 1
    columns = {"overall": document["overall"], "mean of samples": document["mean"]}
    if alone:
        columns = {"": document["overall"]}
    rows = [
        {"score": label} | {name: pick(column) for name, column in columns.items()}
        for label, pick in _SCORES[document["kind"]]
    ]
    if document["overall"].get("object_classes"):
        said = {name: column["mpq"] for name, column in columns.items()}
        rows.append({"score": "PQ by class, mean (mPQ)", **said})
    parts: list[RenderableType] = [table(rows)]
    if document["kind"] == "classes":
        shown = ("name", "dice", "iou", "pixels_true", "pixels_predicted")
        parts += ["", table(document["overall"]["classes"], columns=shown)]
    if of_objects := document["overall"].get("object_classes"):
        parts += ["", table([_object_class(row) for row in of_objects])]
    if not alone:
        parts += ["", table([_sample(row, document["kind"]) for row in document["samples"]])]
    if groups := document.get("groups"):
        parts += ["", table([_sample(row, document["kind"], of="group") for row in groups])]
    return parts


# What would be unusual: that there is none of it need not be said.
_UNUSUAL = frozenset(
    {
        *("unlabelled", "skipped_hidden", "skipped_other", "skipped_known", "skipped_unlabelled"),
        *("alpha_dropped", "absent_parts", "damaged_parts"),
        *("tiles_reused", "tiles_taken_over", "tiles_left_out", "tiles_constant"),
        *("retries", "filled", "input_chunks_absent"),
    }
)


def summary(document: Document) -> list[RenderableType]:
    """Say on one line what a command that wrote something counted and chose.

    Its path, lists and what is empty are left out, and of what would be unusual a 0. What stands
    under ``report``, such as a line a sample, follows as a table.
    """
    facts = [
        f"{safe(name.replace('_', ' '))} {_cell(item, name)}"
        for name, item in document.items()
        if name != "output"
        and isinstance(item, str | int | float)
        and not _empty(item)
        and (item or name not in _UNUSUAL)
    ]
    line = [Text(", ".join(facts), style="dim")] if facts else []
    lists = (document.get(name) for name in ("report", "scales"))
    return [*line, *(table(rows) for rows in lists if rows)]


def training(document: Document) -> list[RenderableType]:
    """Say on one line what a training reached; `--json` has all that was chosen."""
    if "best_step" not in document:  # of several folds
        return summary(document)
    score, name = document["score"], document["score_name"]
    if (decision := document["decision"]) and decision["score"] is not None:
        score = decision["score"]
    held_out = document["validated_on"]
    facts = [
        f"{name} {score:.3f} on {held_out} held-out part{'s' * (held_out != 1)}",
        f"kept from step {document['best_step']} of {document['steps']}",
        format_duration(document["seconds"]),
    ]
    return [Text(", ".join(facts), style="dim")]


# What a prediction tells of, in this order.
_OF_PREDICTION = (
    *("samples", "objects", "tiles_total", "tiles_reused", "tiles_taken_over", "tiles_left_out"),
    *("tiles_constant", "retries", "filled", "input_chunks_absent"),
    *("threshold", "min_size", "grow", "precision", "seconds"),
)


def predicted(document: Document) -> list[RenderableType]:
    """Say on one line what a prediction found, and how; `--json` has all that was chosen."""
    return summary({name: document[name] for name in _OF_PREDICTION if name in document})


def rows(document: Sequence[Document]) -> list[RenderableType]:
    """Lay out a list."""
    return [table(document)]


# The way from a folder of annotated images to the segmentation of another.
_OWN_IMAGES = (
    "unetkit import images/ --labels masks/ data.zarr",
    "unetkit train data.zarr",
    "unetkit import slide.tif slide.zarr",
    "unetkit tile-predict slide.zarr",
)


def walk(document: Document) -> list[RenderableType]:
    """Lay out what the demo found, drew and proposes."""
    rows = [
        {
            "on the part that nobody trained on": row["method"],
            "AP 0.5": row["average_precision_50"],
            "AP": row["average_precision"],
            "found": row["objects"],
            "right": row["matched"],
            "in the truth": row["objects_true"],
        }
        for row in document["scores"]
    ]
    return [
        "",
        table(rows),
        "",
        Text("Look at", style="bold"),
        *(Text(f"  {safe(path)}") for path in document["pictures"]),
        Text("Run next", style="bold"),
        *(Text(f"  {safe(command)}") for command in document["commands"]),
        Text("With your own images", style="bold"),
        *(Text(f"  {command}") for command in _OWN_IMAGES),
        "",
    ]


def model(document: Document) -> list[RenderableType]:
    """Lay out what `unetkit models show` found; its options are always a table of all columns."""
    rows = document["options"]
    if not rows:
        return details(document)
    facts = {name: item for name, item in document.items() if name != "options"}
    grid = Padding(table(rows, columns=tuple(rows[0])), (0, 0, 0, 2))
    return [*details(facts), Text("options", style="bold"), grid]


def checks(document: Document) -> list[RenderableType]:
    """Lay out what `unetkit models check` found."""
    rows = [
        {"check": row["check"], "holds": row["holds"], "found": row["found"]}
        for row in document["findings"]
    ]
    return [*details({"model": document["model"], "options": document["options"]}), "", table(rows)]


def table(rows: Sequence[Document], *, columns: Sequence[str] = ()) -> Table:
    """Lay out mappings as rows; without `columns`, of the names that hold something in any."""
    said = (name for row in rows for name, item in row.items() if not _empty(item))
    columns = columns or list(dict.fromkeys(said))
    numeric = {
        name
        for name in columns
        if all(isinstance(row.get(name), int | float | None) for row in rows)
    }
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in columns:
        heading = Text(safe(name.replace("_", " ")))
        result.add_column(heading, justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        result.add_row(*(_aligned(row.get(name), name) for name in columns))
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
        ("adapted Rand error, for membranes", itemgetter("adapted_rand_error")),
        ("variation of information", itemgetter("voi")),
        ("objects predicted", itemgetter("objects_predicted")),
        ("objects in the truth", itemgetter("objects_true")),
        ("objects matched at IoU 0.5", itemgetter("objects_matched")),
    ],
    "classes": _PIXELS,
}


def _sample(row: Document, kind: str, *, of: str = "sample") -> Document:
    """Choose the few scores of a sample or group that fit on a line."""
    if kind == "classes":
        return {of: row["name"], "Dice": row["dice"], "IoU": row["iou"]}
    return {
        of: row["name"],
        "AP 0.5": _at("0.50")(row),
        "AP": row["average_precision"],
        "Dice": row["dice"],
        "predicted": row["objects_predicted"],
        "true": row["objects_true"],
    }


def _object_class(row: Document) -> Document:
    """Choose the scores of the objects of a class that fit on a line."""
    return {
        "class": row["name"],
        "PQ": row["pq"],
        "SQ": row["sq"],
        "RQ": row["rq"],
        "AP 0.5": row["average_precision_50"],
        "predicted": row["objects_predicted"],
        "true": row["objects_true"],
        "matched": row["objects_matched"],
    }


# Amounts of memory and disk whose names don't say that they are bytes.
_ROOM = ("disk_free", "memory_peak", "memory_limit")


def _cell(item: object, name: str) -> Text:
    """Say a value in the unit that its name calls for."""
    if name in ("shape", "chunks", "size") and isinstance(item, list | tuple):
        return Text(" x ".join(value(part) for part in item))
    if (name.endswith("bytes") or name in _ROOM) and isinstance(item, int):
        return Text(format_bytes(item).removesuffix(" bytes" if name.endswith("bytes") else ""))
    if name.endswith("seconds") and isinstance(item, float):
        return Text(format_duration(item))
    return Text(value(item))


def _aligned(item: object, name: str) -> Text:
    """Say a value so that the decimal points of a column stand under each other."""
    return Text(f"{item:.3f}") if isinstance(item, float) else _cell(item, name)


def _empty(item: object) -> bool:
    return item is None or item in ([], (), {}, "")


def _parts(document: Document, *, indent: int) -> Iterator[RenderableType]:
    """Plain values first, in one block, then each part that has names of its own."""
    plain = {name: item for name, item in document.items() if not _nested(item)}
    if plain:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, item in plain.items():
            grid.add_row(Text(safe(name.replace("_", " "))), _cell(item, name))
        yield Padding(grid, (0, 0, 0, indent))
    for name, item in document.items():
        if not _nested(item):
            continue
        yield Padding(Text(safe(name.replace("_", " ")), style="bold"), (0, 0, 0, indent))
        if isinstance(item, Mapping):
            yield from _parts(item, indent=indent + 2)
        else:
            yield from _listed(item, indent=indent + 2)


def _listed(rows: Sequence[Document], *, indent: int) -> Iterator[RenderableType]:
    """Say what all rows share once, and the rest as a table, so that it fits on a line."""
    first, *others = rows
    shared = {
        name: item
        for name, item in first.items()
        if name != "name" and all(name in row and row[name] == item for row in others)
    }
    if others and shared:
        yield from _parts(
            {n: item for n, item in shared.items() if not _empty(item)}, indent=indent
        )
    if not others:
        yield from _parts(first, indent=indent)
        return
    own = [{name: item for name, item in row.items() if name not in shared} for row in rows]
    yield Padding(table(own), (0, 0, 0, indent))


def _nested(item: object) -> bool:
    """Whether an item takes a block of its own."""
    if isinstance(item, Mapping):
        return len(item) > 0
    return isinstance(item, list | tuple) and any(isinstance(part, Mapping) for part in item)


# The scores that fit on a screen; `--json` has all.
SHOWN = ("average_precision_50", "average_precision", "pq", "seg", "dice", "pixel_error")
_BORDERS = (
    "boundary_f",
    "hausdorff95",
    "surface_distance",
    "foreground_boundary_f",
    "foreground_hausdorff95",
    "foreground_surface_distance",
    "v_rand",
    "v_info",
    "warping_error",
    "warping_lines",
    "isbi_rand",
    "isbi_pixel",
)


def evaluated(document: Document) -> list[RenderableType]:
    """Lay out one prediction's scores with their intervals, or several side by side."""
    if "predictions" in document:
        return _compared(document)
    parts = scores(document)
    found = {n: document["overall"].get(n) for n in _BORDERS}
    # Three decimals would make nothing of an error of topology in a million pixels.
    borders = [{"score of borders": n, "": value(v)} for n, v in found.items() if v is not None]
    if borders:
        parts += ["", table(borders)]
    return [
        *parts,
        "",
        *_left_out(document),
        *_missing(document["overall"]["reasons"]),
        *_certain(document["certainty"]),
    ]


def reviewed(document: Document) -> list[RenderableType]:
    """Lay out the rates that a review found, of all objects and place by place."""
    percent = f"{document['level']:.0%} interval"
    rows = [
        {
            f"{document['judged']:,} of {document['objects']:,} objects": rate["kind"],
            "judged so": rate["objects"],
            "share": _share(rate["share"]),
            percent: _between(rate),
        }
        for rate in document["rates"]
    ]
    parts: list[RenderableType] = [table(rows), ""]
    for name in ("samples", "regions"):
        if places := document[name]:
            parts += [table([_reviewed_place(place, percent) for place in places]), ""]
    told = (
        f"Objects that the prediction missed could not be drawn; {document['missed']:,} were seen"
        f" beside the {document['judged']:,}."
    )
    return [*parts, Text(told, style="dim")]


def viewed(document: Document) -> list[RenderableType]:
    """Lay out the layers of a view, and how it ends."""
    layers = [
        {"layer": row["name"], "kind": row["kind"], "shown": "yes" if row.get("shown", 1) else "no"}
        for row in document["layers"]
    ]
    end = [Text("Open the link in a browser; Ctrl-C ends it.", style="dim")]
    return [table(layers), *(end if document["url"] else [])]


def _reviewed_place(place: Document, percent: str) -> Document:
    right, *faults = place["rates"]
    named = {n: place[n] for n in ("name", "sample", "region", "region_name") if n in place}
    counts = {rate["kind"]: rate["objects"] for rate in faults}
    found = {"objects": place["objects"], "judged": place["judged"]}
    return {**named, **found, "right": _share(right["share"]), percent: _between(right), **counts}


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _between(rate: Document) -> str:
    return "-" if rate["low"] is None else f"{rate['low']:.1%} to {rate['high']:.1%}"


def listed(rows: Sequence[Document]) -> list[RenderableType]:
    """Lay out which scores there are."""
    return [table(rows, columns=("name", "range", "best", "definition"))]


def _left_out(document: Document) -> list[RenderableType]:
    """Say which means are of fewer than all samples."""
    samples = len(document["samples"])
    names: dict[int, list[str]] = {}
    for name, count in document["mean"].get("left_out", {}).items():
        names.setdefault(count, []).append(name)
    lines = [
        f"The mean is of {samples - count} of {samples} samples, the others have none: "
        f"{', '.join(found)}."
        for count, found in sorted(names.items())
    ]
    return [Text(safe(line), style="dim") for line in lines]


def _missing(reasons: Mapping[str, str]) -> list[RenderableType]:
    """Say which scores are not there, reason by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if name == "mpq":
            continue  # of objects without classes nobody asks for their mean
        # Ten thresholds of one score are one.
        stem = name.rstrip("0123456789").rstrip("_") if "precision_" in name else name
        if stem not in names.setdefault(reason, []):
            names[reason].append(stem)
    # The names of what a word would bring are in `--json`.
    lines = [
        f"Not there: {reason}."
        if reason.startswith("scores of borders")
        else f"Not there: {', '.join(found)}: {reason}."
        for reason, found in names.items()
    ]
    return [Text(safe(line), style="dim") for line in lines]


def _certain(certainty: Document) -> list[RenderableType]:
    """Say how sure the overall scores are, or why that is not known."""
    found = {n: i for n, i in certainty["intervals"].items() if n in SHOWN and i is not None}
    if not found:
        return [Text(safe(f"No intervals: {certainty['reason'] or 'nothing applies'}."))]
    percent = f"{certainty['level']:.0%}"
    rows = [{f"{percent} interval": n, "from": i[0], "to": i[1]} for n, i in found.items()]
    return [table(rows), Text(f"From {certainty['units']} {certainty['unit']}s, resampled.")]


def _compared(document: Document) -> list[RenderableType]:
    """Lay out several predictions, and where they differ."""
    rows = [
        {"prediction": report["prediction"]}
        | {name: report["overall"].get(name) for name in SHOWN}
        | {"average_precision_50": _at("0.50")(report["overall"])}
        for report in document["predictions"]
    ]
    parts: list[RenderableType] = [table(rows), ""]
    tests = [_test(row) for row in document["comparisons"] if row["score"] in SHOWN]
    if not tests:
        return [*parts, Text(safe(f"No comparison: {document['reason'] or 'nothing applies'}."))]
    parts.append(table(tests))
    pairs = len(document["predictions"]) * (len(document["predictions"]) - 1) // 2
    # Holm's correction multiplies the least p by the number of pairs.
    least = min(1.0, pairs * (document["smallest_p"] or 0))
    if least > 0.03:
        certainty = document["predictions"][0]["certainty"]
        units = f"{certainty['units']} {certainty['unit']}s"
        parts.append(Text(f"With {units} no p (Holm) can be below {least:.4g}."))
    return parts


def _test(row: Document) -> Document:
    low, high = row["interval"] or (None, None)
    p = row["p_holm"]
    return {
        "score": row["score"],
        "first": row["first"],
        "second": row["second"],
        "difference": row["difference"],
        "from": low,
        "to": high,
        # Three digits are shown, and no difference is certain.
        "p (Holm)": "< 0.001" if p is not None and p < 0.0005 else p,
    }
