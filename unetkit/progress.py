"""How the library tells whoever watches what it is doing; it does not know a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# Our choice: how long a user waits without a word.
PATIENCE = 5.0


class Progress(Protocol):
    """What a pipeline function calls while it works; `unetkit.cli.console` draws it."""

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
    """One stage in place of the many that its parts would begin, one after the other.

    Parameters
    ----------
    progress : Progress
        Hears of it.
    what : str
        What the whole is called.
    total : int
        The equal parts of all stages.
    """

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


@contextmanager
def noted_if_slow(progress: Progress, text: str) -> Iterator[None]:
    """Tell the user `text` once the block has taken long."""
    timer = Timer(PATIENCE, progress.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
