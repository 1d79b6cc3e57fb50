"""What lies behind a URL, by whatever file system fsspec knows; the only room that imports it.

Stores have no folders and no rename: an object is there whole or not at all, and that is all that
can be relied on.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unetkit.errors import (
    OutputError,
    SurroundingsError,
    TryAgainError,
    UnetkitError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Objects that are copied at the same time; a store answers so many without complaint.
AT_ONCE = 256
READ_ONLY = re.compile(r"https?://")
SECRET = re.compile(r"://[^/]*@|^https?://[^#]*\?")
DENIED = ("PermissionError", "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")


def is_remote(url: str) -> bool:
    """Tell a URL from a path on this machine.

    >>> is_remote("s3://bucket/slide.zarr"), is_remote("slide.zarr")
    (True, False)
    """
    return "://" in url


def is_read_only(url: str) -> bool:
    """Tell whether nothing can be written to a URL of this kind.

    >>> is_read_only("https://host/slide.zarr"), is_read_only("s3://bucket/slide.zarr")
    (True, False)
    """
    return READ_ONLY.match(url) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    Raises
    ------
    UsageError
        If the URL holds a password or a signature, which would end up in logs and metadata.
    SurroundingsError
        If the package for this kind of URL is not installed.
    """
    if SECRET.search(url):
        shown = re.sub(r"://[^/]*@", "://", url).split("?")[0]
        raise UsageError(
            f"a URL must hold no password, signature or query, got one for {shown}; put what the "
            "store asks for into its own settings, such as ~/.aws/credentials"
        )
    try:
        from fsspec.core import url_to_fs

        # What others write must be seen at once, so that no listing is kept.
        filesystem, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        remedy = "pip install 'unetkit[s3]'" if url.startswith("s3:") else "install what it names"
        raise SurroundingsError(
            f"{url} must be of a kind that fsspec can open, got: {error}; {remedy}"
        ) from error
    return filesystem, path


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Say in one sentence that a store does not answer, whatever its client raises over it.

    That something is not there, or is there already, goes through as Python's own errors.

    Raises
    ------
    TryAgainError
        If it can't be reached, or fails.
    SurroundingsError
        If it does not let us in.
    """
    try:
        yield
    except (UnetkitError, FileNotFoundError, FileExistsError, IsADirectoryError):
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(url) from error
    # Each client has a tree of errors of its own, some of them no OSError.
    except Exception as error:
        if _is_denied(error):
            raise SurroundingsError(
                f"the store of {url} must let you in, got: {error!s:.200}; check your credentials"
            ) from error
        raise TryAgainError(
            f"the store of {url} must answer, got {type(error).__name__}: {error!s:.200}; "
            "try again when it can be reached"
        ) from error


def _is_denied(error: BaseException) -> bool:
    return type(error).__name__ in DENIED or getattr(error, "status", None) in (401, 403)


def read(url: str, *, start: int = 0, stop: int | None = None) -> bytes:
    """Read an object, or its bytes from `start` to `stop`.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    filesystem, path = file_system(url)
    with answering(url):
        whole = start == 0 and stop is None
        found = bytes(
            filesystem.cat_file(path) if whole else filesystem.cat_file(path, start=start, end=stop)
        )
    # Some servers send the whole file whatever is asked for.
    return found if stop is None else found[: stop - start]


def write(url: str, data: bytes, *, new: bool = False) -> None:
    """Write an object, whole or not at all.

    Parameters
    ----------
    url : str
    data : bytes
    new : bool
        Refuse, in one step with the writing where the store can do that, if it is there.

    Raises
    ------
    FileExistsError
        If it is there and must not be.
    OutputError
        If its bucket does not exist.
    """
    filesystem, path = file_system(url)
    try:
        with answering(url):
            if new and filesystem.exists(path):
                raise FileExistsError(url)
            filesystem.pipe_file(path, data, mode="create" if new else "overwrite")
    except FileNotFoundError as error:
        raise OutputError(
            f"the place of {url} must exist, got: {error!s:.200}; create the bucket first"
        ) from error


def exists(url: str) -> bool:
    """Tell whether an object is there, or any object below a URL."""
    filesystem, path = file_system(url)
    if is_read_only(url):
        # Its own test takes a server that does not answer for one that has nothing.
        try:
            read(url, stop=1)
        except FileNotFoundError:
            return False
        return True
    with answering(url):
        return bool(filesystem.exists(path))


def is_object(url: str) -> bool:
    """Tell whether there is an object of exactly this name."""
    filesystem, path = file_system(url)
    with answering(url):
        return bool(filesystem.isfile(path))


def names(url: str) -> list[str]:
    """List the names just below a URL, sorted; an empty list where there is nothing."""
    filesystem, path = file_system(url)
    try:
        with answering(url):
            found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    own = path.rstrip("/")
    return sorted({str(n).rstrip("/").rsplit("/", 1)[-1] for n in found if str(n) != own})


def below(url: str) -> list[str]:
    """List all objects below a URL, relative to it, sorted."""
    filesystem, path = file_system(url)
    with answering(url):
        found = filesystem.find(path)
    start = len(path.rstrip("/")) + 1
    return sorted(str(name)[start:] for name in found if len(str(name)) > start)


def size(url: str) -> int:
    """Add up the bytes of an object or of all objects below a URL."""
    filesystem, path = file_system(url)
    with answering(url):
        return int(filesystem.du(path))


def remove(url: str, relative: Sequence[str] | None = None) -> None:
    """Remove an object or all objects below a URL, or those of them that `relative` names."""
    filesystem, path = file_system(url)
    with answering(url):
        if relative is not None:
            places = [f"{path.rstrip('/')}/{name}" for name in relative]
            for start in range(0, len(places), AT_ONCE):
                filesystem.rm(places[start : start + AT_ONCE])
        elif filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def copy(source: str, target: str, relative: Sequence[str]) -> None:
    """Copy objects inside a store, from below one URL to below another, many at a time.

    Parameters
    ----------
    source, target : str
        URLs of the same store.
    relative : sequence of str
        What to copy; an empty name stands for the object at the URL itself.
    """
    filesystem, here = file_system(source)
    _, there = file_system(target)

    def named(path: str, name: str) -> str:
        return f"{path.rstrip('/')}/{name}" if name else path.rstrip("/")

    with answering(target):
        for start in range(0, len(relative), AT_ONCE):
            chosen = relative[start : start + AT_ONCE]
            filesystem.copy(
                [named(here, name) for name in chosen], [named(there, name) for name in chosen]
            )
