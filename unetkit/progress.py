"""How the library tells whoever watches what it is doing, and how long and how large it is.

It does not know a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from threading import Timer
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Parameters = ParamSpec("Parameters")
Report = TypeVar("Report")

# Our choice: how long a user waits without a word.
PATIENCE = 5.0


class Progress(Protocol):
    """What the function of a command calls while it works; `unetkit.cli.console` draws it."""

    def start(self, what: str, *, total: int) -> None:
        """Begin a stage of `total` equal parts, and end the one before."""

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Say that `parts` more are done; `status` is a short text such as a loss."""

    def expect(self, total: int) -> None:
        """Let the stage that runs have another number of parts than was thought."""

    def note(self, text: str) -> None:
        """Tell the user one sentence that they should read."""


class Silent:
    """A `Progress` that says nothing: the default of every function."""

    def start(self, what: str, *, total: int) -> None:
        """Ignore the start."""

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Ignore the step."""

    def expect(self, total: int) -> None:
        """Ignore the number."""

    def note(self, text: str) -> None:
        """Ignore the sentence."""


SILENT = Silent()


class ForwardingProgress:
    """A `Progress` that hands everything on to another."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, what: str, *, total: int) -> None:
        """Begin a stage."""
        self._progress.start(what, total=total)

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Advance it."""
        self._progress.advance(parts, status=status)

    def expect(self, total: int) -> None:
        """Change its length."""
        self._progress.expect(total)

    def note(self, text: str) -> None:
        """Tell the user."""
        self._progress.note(text)

    def warn(self, texts: Iterable[str], note: str) -> None:
        """Warn the user, and whoever keeps warnings."""
        warn(self._progress, *texts, note=note)


class Together(ForwardingProgress):
    """One stage of `total` equal parts in place of the many that its parts would begin."""

    def __init__(self, progress: Progress, what: str, *, total: int) -> None:
        super().__init__(progress)
        progress.start(what, total=total)

    def start(self, what: str, *, total: int) -> None:
        """Ignore the start: the whole has begun."""

    def expect(self, total: int) -> None:
        """Ignore the number: that of the whole is known."""


Told = Callable[[float], object]


def span(told: Told, first: float, last: float) -> Told:
    """Return what takes the share of a piece of work, which leads from one share to another."""
    return lambda share: told(first + share * (last - first))


class Portion:
    """So many parts of a stage, of which a share is done; what is small is one part."""

    def __init__(self, progress: Progress, parts: int, *, status: str = "") -> None:
        self._progress = progress
        self._parts = parts
        self._status = status
        self._done = 0

    def reach(self, share: float) -> None:
        """Say that a share from 0 to 1 is done, that of earlier calls included."""
        done = int(share * self._parts)
        if done > self._done:
            self._progress.advance(done - self._done, status=self._status)
            self._done = done


class WarningCollector(ForwardingProgress):
    """A `Progress` that keeps what it is warned of, each sentence once, for a result to hold."""

    def __init__(self, progress: Progress, before: Iterable[str] = ()) -> None:
        super().__init__(progress)
        self._sentences = dict.fromkeys(before)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What there was to be warned of so far."""
        return tuple(self._sentences)

    def warn(self, texts: Iterable[str], note: str) -> None:
        """Keep the sentences, and hand them on."""
        texts = tuple(texts)
        self._sentences.update(dict.fromkeys(texts))
        super().warn(texts, note)

    def keep(self, texts: Iterable[str]) -> None:
        """Keep sentences without telling the user."""
        texts = tuple(texts)
        self._sentences.update(dict.fromkeys(texts))
        keep_warnings(self._progress, texts)


def warn(progress: Progress, *texts: str, note: str | None = None) -> None:
    """Tell the user what bears on how far a result can be trusted; the result keeps it, too.

    A `note` is shown in place of many sentences.
    """
    note = " ".join(texts) if note is None else note
    if isinstance(progress, ForwardingProgress):
        progress.warn(texts, note)
    else:
        progress.note(note)


def keep_warnings(progress: Progress, texts: Iterable[str]) -> None:
    """Keep what an earlier part of a run warned of, which the user was told then."""
    if isinstance(progress, WarningCollector):
        progress.keep(texts)


def warnings_of(progress: Progress) -> tuple[str, ...]:
    """Return what a command warned of so far."""
    return progress.warnings if isinstance(progress, WarningCollector) else ()


def collects_warnings(command: Callable[Parameters, Report]) -> Callable[Parameters, Report]:
    """Let the report of a command hold in its field `warnings` what it warned of."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Report:
        told: Any = options.get("progress", SILENT)
        options["progress"] = collector = WarningCollector(told)
        report: Any = command(*arguments, **options)
        kept: Report = replace(report, warnings=collector.warnings)
        return kept

    return run


def format_duration(seconds: float) -> str:
    """Say a time as a person would.

    Examples
    --------
    >>> format_duration(7.4), format_duration(125), format_duration(7380)
    ('7 s', '2 min 05 s', '2 h 03 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(size: int) -> str:
    """Say an amount of memory or disk, in the powers of 1024 that ``--max-memory`` takes.

    Examples
    --------
    >>> format_bytes(781), format_bytes(2**20), format_bytes(3 * 2**29)
    ('781 bytes', '1.00 MiB', '1.50 GiB')
    """
    if size < 1024:
        return f"{size} bytes"
    power = min((size.bit_length() - 1) // 10, 5)
    return f"{size / 1024**power:.2f} {' KMGTP'[power]}iB"


UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Read an amount of memory as people write it; K, M, G and T are powers of 1024.

    >>> parse_size("8G"), parse_size("1.5 GiB"), parse_size("4096")
    (8589934592, 1610612736, 4096)
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.I)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(
            f"max-memory must be an amount such as 8G or 500M, got {text!r}; "
            "leave it out to use half of what is free"
        )
    return size


def parse_duration(text: str) -> float:
    """Read a time in seconds from words such as ``90s``, ``20m``, ``1.5h`` or ``120``.

    >>> parse_duration("20m")
    1200.0
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h)?", text.strip())
    value = float(found[1]) * {"m": 60, "min": 60, "h": 3600}.get(found[2], 1) if found else 0.0
    if value <= 0:
        raise UsageError(f"time-budget must be a time such as 90s, 20m or 1h, got {text!r}")
    return value


@contextmanager
def noted_if_slow(progress: Progress, text: str, *, patience: float = PATIENCE) -> Iterator[None]:
    """Tell the user `text` once the block has taken `patience` seconds."""
    timer = Timer(patience, progress.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
