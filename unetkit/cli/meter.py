"""Two ways to draw `unetkit.progress.Progress`: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from rich.console import Console
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

from unetkit.cli.text import duration, safe

# Own choice: often enough to see life in a log, seldom enough for a night's run.
_SECONDS_BETWEEN_LINES = 30.0
# Own choice: below this many characters the bar itself has no room.
_NARROW = 60
# Room for the name of a stage and for "1000/1000", in characters.
_NAME, _COUNT = 20, 9


class Bar:
    """A rich bar for each stage, one under the other; notes appear between them.

    Parameters
    ----------
    console : Console
        A terminal.
    """

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
    """A line when a stage starts, one about every half minute, and one when it ends.

    Parameters
    ----------
    console : Console
        A file or a pipe.
    clock : callable
        Seconds that only grow.
    """

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
            left = took / made * max(self._total - self._done, 0)
            facts = [f"{self._done} of {self._total}", status, f"about {duration(left)} left"]
            self._print(f"{self._what}: {', '.join(fact for fact in facts if fact)}")

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
            self._print(f"{self._what}: done in {duration(self._clock() - self._began)}")
            self._what = None

    def _print(self, text: str) -> None:
        self._console.print(Text(safe(text)), soft_wrap=True)


def _columns(width: int) -> list[ProgressColumn]:
    """Choose what there is room for; fixed widths, so that bars stand under each other."""
    what = _text("description", width=max(1, min(_NAME, width // 2)))
    count = MofNCompleteColumn(table_column=Column(justify="right", width=_COUNT, no_wrap=True))
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    if width < _NARROW:
        return [what, MofNCompleteColumn(), left]
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    return [what, bar, count, left, _text("fields[status]", width=width // 3)]


def _text(name: str, *, width: int) -> TextColumn:
    """Show a text of a task on one line, cut where it is too long."""
    column = Column(no_wrap=True, overflow="ellipsis", width=width)
    return TextColumn(f"{{task.{name}}}", markup=False, table_column=column)
