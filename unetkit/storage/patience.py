"""Try again what a disk or a network refused for a moment: a few times, and not for ever."""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

# What passes by itself on network disks and busy machines. A full disk, a missing file or a
# missing right does not.
PASSING_NAMES = (
    *("EIO", "EINTR", "EAGAIN", "EBUSY", "ESTALE", "ETIMEDOUT"),
    *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EPIPE", "ENETDOWN", "ENETUNREACH"),
    *("ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENOLINK", "EREMOTEIO"),
)
PASSING = {getattr(errno, name) for name in PASSING_NAMES if hasattr(errno, name)}
# Seconds before each new try; a file server that starts again takes longer, and then --resume
# is there.
WAITS = (0.1, 0.5, 2.0)

_tally: ContextVar[list[int] | None] = ContextVar("tally", default=None)


def patiently(action: Callable[[], T]) -> T:
    """Do what may be done again without harm, and do it again where the cause may have passed.

    Parameters
    ----------
    action : callable
        Reads, or writes a whole chunk or file, so that a second time leaves what a first would.

    Returns
    -------
    Whatever `action` returns.

    Raises
    ------
    OSError
        As the last try raised it.
    """
    for wait in WAITS:
        try:
            return action()
        except OSError as error:
            if not is_passing(error):
                raise
            time.sleep(wait)
            _count()
    return action()


def is_passing(error: OSError) -> bool:
    """Tell whether an error may be gone by the next try."""
    return error.errno in PASSING


def _count() -> None:
    tally = _tally.get()
    if tally is not None:
        tally[0] += 1


@contextmanager
def counted_tries() -> Iterator[list[int]]:
    """Count what is tried again inside a `with` block.

    Yields
    ------
    list of int
        One number, which grows.
    """
    tally = [0]
    token = _tally.set(tally)
    try:
        yield tally
    finally:
        _tally.reset(token)
