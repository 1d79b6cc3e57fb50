"""How the library tells whoever watches what it is doing, and how long and how large it is.

It does not know a terminal.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# Our choice: how long a user waits without a word.
PATIENCE = 5.0


class Progress(Protocol):
    """What the function of a command calls while it works; `unetkit.cli.console` draws it."""

    def start(self, what: str, *, total: int) -> None:
        """Begin a stage of `total` equal parts, and end the one before."""

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Say that `parts` more are done; `status` is a short text such as a loss."""

    def note(self, text: str) -> None:
        """Tell the user one sentence that they should read."""


class Silent:
    """A `Progress` that says nothing: the default of every function."""

    def start(self, what: str, *, total: int) -> None:
        """Ignore the start."""

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Ignore the step."""

    def note(self, text: str) -> None:
        """Ignore the sentence."""


SILENT = Silent()


class Together:
    """One stage of `total` equal parts in place of the many that its parts would begin."""

    def __init__(self, progress: Progress, what: str, *, total: int) -> None:
        self._progress = progress
        progress.start(what, total=total)

    def start(self, what: str, *, total: int) -> None:
        """Ignore the start: the whole has begun."""

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        """Advance the whole."""
        self._progress.advance(parts, status=status)

    def note(self, text: str) -> None:
        """Tell the user."""
        self._progress.note(text)


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
