"""The one place that prints: results on stdout, everything else on stderr, names made harmless."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from unetkit.cli import tables
from unetkit.cli.tables import safe
from unetkit.errors import ResourceError
from unetkit.progress import SILENT, Progress, format_duration

# Own choice: often enough to see life in a log, seldom enough for a night's run.
_SECONDS_BETWEEN_LINES = 30.0
# Own choice: below this many characters the bar itself has no room.
_NARROW = 60
# Room for the name of a stage, for "1000/1000" and for "0:00:00", and what a bar has at least.
_NAME, _COUNT, _LEFT, _BAR = 20, 9, 7, 4


class Bar:
    """A rich bar for each stage, one under the other; notes appear between them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Only the bar of the running stage is redrawn, so that any number of them fits a screen.
        self._rich: RichProgress | None = None
        self._task = TaskID(0)

    def start(self, what: str, *, total: int) -> None:
        """Begin a stage under the ones before."""
        self._stop(done=True)
        self._rich = RichProgress(
            *_columns(self._console.width),
            console=self._console,
            expand=self._console.width >= _NARROW,
            refresh_per_second=4,
            # A stage may have few and slow parts: judge its speed over ten minutes.
            speed_estimate_period=600.0,
        )
        self._task = self._rich.add_task(safe(what), total=total, status="")
        self._rich.start()

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Move the bar; a full one stays as it is, and what comes next stands below it."""
        if self._rich is None:
            return
        self._rich.update(self._task, advance=parts, status=safe(status))
        if self._rich.finished:
            self._stop(done=True)

    def expect(self, total: int) -> None:
        """Let the bar that moves end elsewhere."""
        if self._rich is not None:
            self._rich.update(self._task, total=total)

    def note(self, text: str) -> None:
        """Print a sentence above the bar that moves."""
        self._console.print(Text(safe(text)), soft_wrap=True)

    def close(self, *, done: bool) -> None:
        """Stop drawing; after success the last bar is full."""
        self._stop(done=done)

    def _stop(self, *, done: bool) -> None:
        if self._rich is None:
            return
        if done:
            (task,) = self._rich.tasks
            self._rich.update(self._task, completed=task.total or 0)
        self._rich.stop()
        self._rich = None


class Lines:
    """A line when a stage starts, one about every half minute, and one when it ends."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = Lock()
        self._what: str | None = None
        self._total = self._done = 0
        self._began = self._told = self._since = 0.0
        self._first = 0

    def start(self, what: str, *, total: int) -> None:
        """Say that a stage begins."""
        with self._lock:
            self._finish()
            self._what, self._total, self._done = what, total, 0
            self._began = self._told = self._clock()
            self._print(f"{what}: {total} to do")

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Count, and say so when all is done or the last line is old."""
        with self._lock:
            now = self._clock()
            if not self._done:
                # Work that goes on begins with what was done before.
                self._since, self._first = now, parts
            self._done += parts
            if self._done >= self._total:
                self._finish()
            if self._what is None or now - self._told < _SECONDS_BETWEEN_LINES:
                return
            self._told = now
            made, took = self._done - self._first, now - self._since
            if made <= 0:
                made, took = max(self._done, 1), now - self._began
            left = format_duration(took / made * max(self._total - self._done, 0))
            facts = [f"{self._done} of {self._total}", status, f"about {left} left"]
            self._print(f"{self._what}: {', '.join(fact for fact in facts if fact)}")

    def expect(self, total: int) -> None:
        """Let the lines to come count to another number."""
        with self._lock:
            self._total = total

    def note(self, text: str) -> None:
        """Print the sentence."""
        with self._lock:
            self._print(text)

    def close(self, *, done: bool) -> None:
        """Say how the last stage ended."""
        with self._lock:
            if done:
                self._finish()
            elif self._what is not None:
                self._print(f"{self._what}: stopped after {self._done} of {self._total}")
                self._what = None

    def _finish(self) -> None:
        if self._what is not None:
            self._print(f"{self._what}: done in {format_duration(self._clock() - self._began)}")
            self._what = None

    def _print(self, text: str) -> None:
        self._console.print(Text(safe(text)), soft_wrap=True)


def _columns(width: int) -> list[ProgressColumn]:
    """Choose what there is room for; fixed widths, so that bars begin under each other.

    A bar gives way to a status that is longer than usual.
    """
    what = _text("description", width=max(1, min(_NAME, width // 3)))
    count = MofNCompleteColumn(table_column=Column(justify="right", width=_COUNT, no_wrap=True))
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    if width < _NARROW:
        return [what, MofNCompleteColumn(), left]
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    least, most = width // 3, width - min(_NAME, width // 3) - _COUNT - _LEFT - _BAR - 4
    return [what, bar, count, left, _text("fields[status]", width=least, most=max(least, most))]


def _text(name: str, *, width: int, most: int | None = None) -> TextColumn:
    """Show a text of a task on one line, cut where it is too long, `most` where that is given."""
    column = Column(no_wrap=True, overflow="ellipsis", min_width=width, max_width=most or width)
    return TextColumn(f"{{task.{name}}}", markup=False, table_column=column)


# A table that is not read on a terminal is never folded.
_UNFOLDED = 10_000


class Report(Protocol):
    """What the function of a command returns."""

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


def fail(text: str) -> None:
    """Say in one line on stderr why the command ended."""
    line = Text.assemble(("error: ", "bold red"), safe(" ".join(text.split())))
    errors_console().print(line, soft_wrap=True)


def emit(text: str) -> None:
    """Write `text` and a line end on stdout.

    A reader that went away is no fault of the command, so a broken pipe is silence. A full disk
    below it is a `ResourceError`.
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
    result: Report | dict[str, Any] | list[dict[str, Any]],
    *,
    json: bool,
    layout: Callable[[Any], list[RenderableType]],
) -> None:
    """End a command that only looked: what it found, laid out for reading or as JSON."""
    document = result if isinstance(result, dict | list) else result.to_dict()
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
        raise ResourceError(
            f"stdout must take the result, got '{error.strerror}'; "
            "the work itself is done, send stdout elsewhere"
        ) from error


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
