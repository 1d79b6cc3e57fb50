"""The one place that prints: results on stdout, everything else on stderr, names made harmless."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console, RenderableType
from rich.text import Text

from unetkit.cli import tables
from unetkit.cli.meter import Bar, Lines
from unetkit.cli.text import safe
from unetkit.errors import SurroundingsError
from unetkit.progress import SILENT, Progress

# What a command that only looks has found: one thing, or a list of them.
Found = TypeVar("Found", dict[str, Any], list[dict[str, Any]])

# A table that is not read on a terminal is never folded.
_UNFOLDED = 10_000


class Report(Protocol):
    """What a pipeline function returns."""

    @property
    def output(self) -> str:
        """The path that was written."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries."""


def errors_console() -> Console:
    """Where everything goes that is not the result: stderr, without markup or highlights."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Show how far the work is: a bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield SILENT
        return
    console = errors_console()
    meter = Bar(console) if console.is_terminal else Lines(console)
    try:
        yield meter
    except BaseException:
        meter.close(done=False)
        raise
    meter.close(done=True)


def say(text: str, *, style: str = "", label: str = "") -> None:
    """Write one line on stderr, `label` in `style` before it."""
    line = Text.assemble((label, style), safe(text)) if label else Text(safe(text), style=style)
    errors_console().print(line, soft_wrap=True)


def fail(text: str) -> None:
    """Say in one line why the command ended."""
    say(" ".join(text.split()), style="bold red", label="error: ")


def emit(text: str) -> None:
    """Write `text` and a line end on stdout.

    A reader that went away is no fault of the command, so a broken pipe is silence.

    Raises
    ------
    SurroundingsError
        If stdout takes no more, for example because its disk is full.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    _write(f"{text}\n".encode(encoding, errors="backslashreplace"))


def emit_path(path: str) -> None:
    """Write a path on stdout: readable on a terminal, the exact bytes anywhere else."""
    if sys.stdout is not None and sys.stdout.isatty():
        emit(safe(path))
    else:
        _write(os.fsencode(path) + b"\n")


def emit_json(document: Any) -> None:
    """Write one strict JSON document on stdout: no NaN, no Infinity, ASCII only."""
    emit(jsonlib.dumps(document, allow_nan=False, indent=2))


def emit_table(*parts: RenderableType) -> None:
    """Write tables on stdout; unfolded where stdout is no terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            markup=False, highlight=False, emoji=False, width=_UNFOLDED, color_system=None
        )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    emit("\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines()))


def written(
    report: Report,
    *,
    json: bool,
    quiet: bool,
    layout: Callable[[dict[str, Any]], list[RenderableType]] = tables.summary,
) -> None:
    """End a command that wrote something: its path, or the whole report as JSON.

    On stderr stands what is worth knowing about it, unless `quiet`.
    """
    if json:
        emit_json(report.to_dict())
        return
    if not quiet:
        for part in layout(report.to_dict()):
            errors_console().print(part, soft_wrap=isinstance(part, Text))
    for path in getattr(report, "outputs", (report.output,)):
        emit_path(path)


def found(
    document: Found,
    *,
    json: bool,
    layout: Callable[[Found], list[RenderableType]],
) -> None:
    """End a command that only looked: what it found, laid out for reading or as JSON."""
    if json:
        emit_json(document)
    else:
        emit_table(*layout(document))


def _write(data: bytes) -> None:
    """Write to stdout now, and never again once it fails."""
    if sys.stdout is None:  # closed before the command began
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
    except OSError as error:
        _let_go_of_stdout()
        raise SurroundingsError(
            f"stdout must take the result, got '{error.strerror}'; "
            "the work itself is done, send stdout elsewhere"
        ) from error


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
