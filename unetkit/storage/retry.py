"""Try again what a disk or a network refused for a moment: a few times, and not for ever."""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from unetkit.errors import InputError, ResourceError, UnavailableError, UnetkitError
from unetkit.storage.nodes import first_damaged, read_node
from unetkit.storage.urls import is_denied, is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr

T = TypeVar("T")

# What passes by itself on network disks and busy machines. A full disk, a missing file or a
# missing right does not.
PASSING_NAMES = (
    *("EIO", "EINTR", "EAGAIN", "EBUSY", "ESTALE", "ETIMEDOUT"),
    *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EPIPE", "ENETDOWN", "ENETUNREACH"),
    *("ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENOLINK", "EREMOTEIO"),
)
PASSING = {getattr(errno, name) for name in PASSING_NAMES if hasattr(errno, name)}
# Too many requests, and what a server answers that is overloaded or starts again.
PASSING_ANSWERS = (408, 425, 429, 500, 502, 503, 504)
PASSING_CLASSES = ("ClientConnectionError", "ClientPayloadError", "HTTPClientError", "TimeoutError")
# Seconds before each new try; a file server that starts again takes longer, and then --resume
# is there.
RETRY_DELAYS = (0.1, 0.5, 2.0)

_tally: ContextVar[list[int] | None] = ContextVar("tally", default=None)


def retrying(action: Callable[[], T]) -> T:
    """Do what may be done again without harm, and do it again where the cause may have passed.

    It reads, or writes a whole chunk or file, so that a second time leaves what a first would.
    """
    for wait in RETRY_DELAYS:
        try:
            return action()
        except Exception as error:
            if not is_passing(error):
                raise
            time.sleep(wait)
            _count()
    return action()


def is_passing(error: Exception) -> bool:
    """Tell whether an error may be gone by the next try; clients have trees of errors of their own.

    A server's answer has a `status`; names of classes are those of aiohttp, botocore and fsspec.
    """
    if getattr(error, "status", None) in PASSING_ANSWERS:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING
    names = {base.__name__ for base in type(error).__mro__}
    return not isinstance(error, UnetkitError) and not names.isdisjoint(PASSING_CLASSES)


def _count() -> None:
    tally = _tally.get()
    if tally is not None:
        tally[0] += 1


@contextmanager
def count_attempts() -> Iterator[list[int]]:
    """Count what is tried again inside a `with` block: yields a list of one number, which grows."""
    tally = [0]
    token = _tally.set(tally)
    try:
        yield tally
    finally:
        _tally.reset(token)


def read_failure(
    array: zarr.Array[Any],
    selection: tuple[Any, ...],
    error: Exception,
    *,
    url: str,
    axes: str,
) -> UnetkitError:
    """Tell what a disk or a network refuses from a chunk that does not decode.

    The error, to be raised, names a damaged chunk with the pixels that it holds; `axes` are the
    letters of the array's last axes.
    """
    if isinstance(error, UnetkitError):
        return error
    if is_passing(error):
        return (UnavailableError if is_remote(url) else ResourceError)(
            f"{url} must be readable, got '{error!s:.200}' {len(RETRY_DELAYS) + 1} times in a row; "
            "see to the disk or the network, then give the same command with --resume"
        )
    if is_remote(url) and is_denied(error):
        return ResourceError(
            f"the store of {url} must let you in, got: {error!s:.200}; check your credentials"
        )
    # A store that no longer answers says so itself when it is asked for the metadata again.
    if is_remote(url) and read_node(url) is None:
        return InputError(f"{url} must stay where it was, got nothing there any more")
    found = first_damaged(array, selection)
    if found is None:
        return InputError(f"{url} must be readable, got: {error}; check the disk")
    place, cause = found
    units = array.shards or array.chunks
    rows, columns = (
        f"{place[at] * units[at]}:{min((place[at] + 1) * units[at], array.shape[at])}"
        for at in (axes.index(axis) - len(axes) for axis in "yx")
    )
    return InputError(
        f"{url} chunk {array.metadata.encode_chunk_key(place)} (rows {rows}, columns {columns}) "
        f"must be readable, got {type(cause).__name__}: {cause!s:.100}; "
        "restore it from the original"
    )
