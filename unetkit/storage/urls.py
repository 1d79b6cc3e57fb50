"""Where things lie, always as `str`: local paths and URLs read alike. It creates nothing."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit import remote as stores
from unetkit.errors import InputError, MissingError, SurroundingsError, UnetkitError
from unetkit.remote import file_system as remote
from unetkit.remote import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "anywhere",
    "base_name",
    "bytes_on_disk",
    "children",
    "exists",
    "files_below",
    "inside",
    "is_remote",
    "is_segment",
    "join",
    "missing",
    "read_bytes",
    "read_small",
    "remote",
    "stem",
    "storing",
]

_BAD_SEGMENT = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]|^\.{0,2}$|^__|^~|^[a-zA-Z][a-zA-Z0-9+.-]*:")


def join(url: str, *names: str) -> str:
    """Name what lies below `url`.

    >>> join("s3://bucket/slide.zarr/", "labels", "instances")
    's3://bucket/slide.zarr/labels/instances'
    """
    return "/".join([url.rstrip("/"), *names])


def anywhere(url: str) -> str:
    """Name a path so that a process with another working folder finds it too; a URL as it is."""
    return url if is_remote(url) else str(Path(url).absolute())


def base_name(url: str) -> str:
    """Return the last part of a path or URL.

    >>> base_name("data/slide.zarr/")
    'slide.zarr'
    """
    return url.rstrip("/").rsplit("/", 1)[-1]


def stem(url: str) -> str:
    """Return the last part without `.ome.zarr` or `.zarr`.

    >>> stem("data/slide.ome.zarr/")
    'slide'
    """
    return re.sub(r"(\.ome)?\.zarr$", "", base_name(url))


def is_segment(name: object) -> bool:
    """Tell whether a name may stand for one folder inside a store.

    A name from metadata must never lead out of the store or to another machine.

    >>> is_segment("a01"), is_segment(".."), is_segment("s3:x"), is_segment("a/b")
    (True, False, False, False)
    """
    return isinstance(name, str) and len(name) <= 255 and not _BAD_SEGMENT.search(name)


def inside(url: str, relative: object, *, what: str) -> str:
    """Join a path that was read from metadata, and make sure that it stays below `url`.

    Parameters
    ----------
    url : str
        The store.
    relative : object
        What the metadata says; anything but a plain relative path is refused.
    what : str
        What the path is, for the error.

    Raises
    ------
    InputError
        If the path is absolute, climbs, names a scheme or follows a link out of the store.
    """
    segments = relative.split("/") if isinstance(relative, str) else [relative]
    whole = join(url, *(str(segment) for segment in segments))
    escapes = not all(is_segment(segment) for segment in segments)
    if not escapes and not is_remote(url):
        root = Path(url).resolve()
        escapes = not Path(whole).resolve().is_relative_to(root)
    if escapes:
        raise InputError(
            f"{what} in the metadata of {url} must be a path inside it, got {relative!r:.100}; "
            "write the store again with the tool that made it"
        )
    return whole


def read_small(url: str, *, limit: int) -> bytes | None:
    """Read a metadata document; None where there is none.

    Raises
    ------
    InputError
        If it is longer than `limit` bytes or may not be read.
    SurroundingsError, TryAgainError
        If a remote store does not let us in, or does not answer.
    """
    try:
        if is_remote(url):
            data = stores.read(url, stop=limit + 1)
        else:
            with Path(url).open("rb") as file:
                data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except UnetkitError:
        raise  # some of them are OSErrors too
    except OSError as error:
        raise InputError(f"{url} must be readable, got: {error}") from error
    if len(data) > limit:
        raise InputError(f"{url} must be at most {limit} bytes long, got more; it is no metadata")
    return data


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Say in one sentence that zarr can't write to a path or URL.

    Raises
    ------
    SurroundingsError
        If the disk is full or refuses, or a store does.
    TryAgainError
        If a remote store does not answer.
    """
    try:
        if is_remote(url):
            with stores.answering(url):
                yield
        else:
            yield
    except UnetkitError:
        raise  # some of them are OSErrors too
    except OSError as error:
        raise SurroundingsError(f"{url} must be writable, got: {error}") from error


def read_bytes(url: str) -> bytes:
    """Read a whole file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    return stores.read(url) if is_remote(url) else Path(url).read_bytes()


def exists(url: str) -> bool:
    """Tell whether anything lies at a path or URL, a dangling link included."""
    return stores.exists(url) if is_remote(url) else os.path.lexists(url)


def children(url: str) -> list[str]:
    """List the names in a folder, sorted; an empty list where there is no folder."""
    if is_remote(url):
        return stores.names(url)
    return sorted(path.name for path in Path(url).iterdir()) if Path(url).is_dir() else []


def files_below(url: str) -> list[str]:
    """List all files below a folder, relative to it, sorted; links to folders are not followed."""
    if is_remote(url):
        return stores.below(url)
    found = []
    for place, _, names in os.walk(url):
        inner = Path(place).relative_to(url)
        found += [(inner / name).as_posix() for name in names]
    return sorted(found)


def bytes_on_disk(url: str) -> int:
    """Add up the sizes of all files at and below a path or URL."""
    if is_remote(url):
        return stores.size(url)
    if not Path(url).is_dir():
        return Path(url).stat().st_size
    total = 0
    pending = [url]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def missing(url: str) -> MissingError:
    """Say that nothing is there, and name what looks like it beside it."""
    parent, name = os.path.split(url.rstrip("/"))
    near = [] if is_remote(url) else difflib.get_close_matches(name, children(parent or "."), n=1)
    if not near:
        return MissingError(f"{url} must exist, got nothing there; check the path")
    close = join(parent, near[0]) if parent else near[0]
    return MissingError(f"{url} must exist, got nothing there; did you mean {close!r}?")
