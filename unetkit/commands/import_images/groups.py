"""Which animal, patient, well or staining each image belongs to; it knows names and no pixels."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.commands.import_images.pairing import stem
from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage.drawings import base
from unetkit.storage.urls import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.commands.import_images.pairing import Pair

COLUMNS = ("image", "group")


def group_finder(told: str) -> Callable[[Pair], str | None]:
    """Return what finds the group of an image: in a table, or by an expression in its name."""
    return _table(told) if _is_table(told) else _expression(told)


def grouped(pairs: Sequence[Pair], told: str) -> list[Pair]:
    """Give each image its group."""
    group_of = group_finder(told)
    found = [replace(pair, group=group_of(pair)) for pair in pairs]
    for pair in found:
        if not pair.group:
            advice = "add a row for it" if _is_table(told) else "match it too, or give a CSV file"
            scene = f", scene {pair.scene!r}" if pair.file_name else ""
            raise InputError(
                f"every image must have a group, got none of {told!r} for"
                f" {Path(pair.image).name!r}{scene}; {advice}"
            )
    return found


def _is_table(told: str) -> bool:
    return Path(told).suffix.lower() == ".csv" or Path(told).is_file()


def _expression(told: str) -> Callable[[Pair], str | None]:
    """Take the first part in brackets of what is found in an image's name, or its file's stem."""
    try:
        expression = re.compile(told)
    except re.error as error:
        raise UsageError(
            f"--group must be a regular expression or a CSV file, got {told!r}: {error}; try"
            " --group '(.+)_'"
        ) from error
    if not expression.groups:
        raise UsageError(
            f"--group must have a part in brackets, the group, got {told!r}; try --group '(.+)_'"
        )

    def group_of(pair: Pair) -> str | None:
        # Scenes belong to what their file does, unless only their own names tell.
        names = (pair.file_name or pair.name, stem(pair.image), pair.name)
        found = next(filter(None, map(expression.search, names)), None)
        return found[1] if found else None

    return group_of


def _table(path: str) -> Callable[[Pair], str | None]:
    """Look an image up by its name, its file or the stem of that."""
    groups: dict[str, str] = {}
    for image, group in _rows(path):
        if groups.setdefault(base(image), group) != group:
            raise InputError(
                f"an image must be of one group, got {groups[base(image)]!r} and {group!r} for"
                f" {image!r} in {path!r}; remove a row"
            )
    by_stem = {stem(image): group for image, group in groups.items()}

    def group_of(pair: Pair) -> str | None:
        files = [base(file) for file in (pair.image, *pair.channels.values())]
        keys = [pair.name, pair.file_name or pair.name, *files, *map(stem, files)]
        found = [named[key] for named in (groups, by_stem) for key in keys if key in named]
        return found[0] if found else None

    return group_of


def _rows(path: str) -> list[tuple[str, str]]:
    """Read the columns image and group of a table that commas, semicolons or tabs part."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        hint = did_you_mean(path)
        raise MissingError(
            f"a table of groups must exist, got nothing at {path!r}; {hint}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"a table of groups must be a CSV file of UTF-8, got {path!r}: {error}; save it as one"
        ) from error
    lines = text.splitlines()
    apart = max(",;\t", key=lines[0].count) if lines else ","
    rows = list(csv.DictReader(lines, delimiter=apart, skipinitialspace=True))
    if not rows or not all(name in rows[0] for name in COLUMNS):
        raise InputError(
            f"a table of groups must have the columns image and group, and a row an image, got"
            f" {lines[0] if lines else 'nothing'!r} in {path!r}; name them in its first line"
        )
    told = [tuple((row[name] or "").strip() for name in COLUMNS) for row in rows]
    return [(image, group) for image, group in told if image]
