"""Where things lie, always as `str`: local paths and URLs read alike. It creates nothing."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any

from unetkit.errors import InputError, MissingError, SurroundingsError, TryAgainError

_BAD_SEGMENT = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]|^\.{0,2}$|^__|^~|^[a-zA-Z][a-zA-Z0-9+.-]*:")


def is_remote(url: str) -> bool:
    """Tell a URL from a path on this machine.

    >>> is_remote("s3://bucket/slide.zarr"), is_remote("slide.zarr")
    (True, False)
    """
    return "://" in url


def join(url: str, *names: str) -> str:
    """Name what lies below `url`.

    >>> join("s3://bucket/slide.zarr/", "labels", "instances")
    's3://bucket/slide.zarr/labels/instances'
    """
    return "/".join([url.rstrip("/"), *names])


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


def remote(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SurroundingsError(
            f"{url} must be of a kind that fsspec can open, got: {error}; "
            "install the package that it names"
        ) from error
    return filesystem, path


def read_small(url: str, *, limit: int) -> bytes | None:
    """Read a metadata document; None where there is none.

    Raises
    ------
    InputError
        If it is longer than `limit` bytes or may not be read.
    TryAgainError
        If a remote store does not answer.
    """
    try:
        data = _fetch(url, limit + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        kind = TryAgainError if is_remote(url) else InputError
        raise kind(f"{url} must be readable, got: {error}") from error
    if len(data) > limit:
        raise InputError(f"{url} must be at most {limit} bytes long, got more; it is no metadata")
    return data


def _fetch(url: str, length: int) -> bytes:
    if is_remote(url):
        filesystem, path = remote(url)
        if not filesystem.exists(path):
            raise FileNotFoundError(path)
        return bytes(filesystem.cat_file(path, start=0, end=length))
    with Path(url).open("rb") as file:
        return file.read(length)


def exists(url: str) -> bool:
    """Tell whether anything lies at a path or URL, a dangling link included."""
    if is_remote(url):
        filesystem, path = remote(url)
        return bool(filesystem.exists(path))
    return os.path.lexists(url)


def children(url: str) -> list[str]:
    """List the names in a folder, sorted; an empty list where there is no folder."""
    if is_remote(url):
        filesystem, path = remote(url)
        found = filesystem.ls(path, detail=False) if filesystem.isdir(path) else []
        return sorted(base_name(str(name)) for name in found)
    return sorted(path.name for path in Path(url).iterdir()) if Path(url).is_dir() else []


def bytes_on_disk(url: str) -> int:
    """Add up the sizes of all files at and below a path or URL."""
    if is_remote(url):
        filesystem, path = remote(url)
        return int(filesystem.du(path))
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
