"""Where things lie, always as `str`: local paths and URLs read alike. It creates nothing."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import (
    InputError,
    MissingError,
    OutputError,
    ResourceError,
    UnavailableError,
    UnetkitError,
    UsageError,
    without_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Objects that are copied at the same time; a store answers so many without complaint.
CONCURRENCY = 256
READ_ONLY = re.compile(r"(.*::)?https?://", re.IGNORECASE)
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

    A password or a signature in a URL is refused: it would end up in logs and metadata.
    """
    compact = re.sub(r"[\s'\"]", "", url)  # which would end a URL inside of a sentence
    if without_secrets(compact) != compact:
        raise UsageError(
            f"a URL must hold no password, signature or query, got one for {compact}; put what the "
            "store asks for into its own settings, such as ~/.aws/credentials"
        )
    try:
        from fsspec.core import url_to_fs

        # What others write must be seen at once, so that no listing is kept.
        filesystem, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        remedy = "pip install 'unetkit[s3]'" if url.startswith("s3:") else "install what it names"
        raise ResourceError(
            f"{url} must be of a kind that fsspec can open, got: {error}; {remedy}"
        ) from error
    # Links of a chain are opened here, each with errors of its own.
    except Exception as error:
        raise InputError(
            f"{url} must be a URL that fsspec can open, got {type(error).__name__}: "
            f"{error!s:.200}; name the store itself, unpacked"
        ) from error
    return filesystem, path


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Say in one sentence that a store does not answer or let us in, whatever its client raises.

    That something is not there, or is there already, goes through as Python's own errors.
    """
    try:
        yield
    except (UnetkitError, FileNotFoundError, FileExistsError, IsADirectoryError):
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(url) from error
    # Each client has a tree of errors of its own, some of them no OSError.
    except Exception as error:
        if is_denied(error):
            raise ResourceError(
                f"the store of {url} must let you in, got: {error!s:.200}; check your credentials"
            ) from error
        raise UnavailableError(
            f"the store of {url} must answer, got {type(error).__name__}: {error!s:.200}; "
            "try again when it can be reached"
        ) from error


def is_denied(error: BaseException) -> bool:
    """Tell whether a store refused who asks."""
    return type(error).__name__ in DENIED or getattr(error, "status", None) in (401, 403)


def read(url: str, *, start: int = 0, stop: int | None = None) -> bytes:
    """Read a file or object, or its bytes from `start` to `stop`; FileNotFoundError without one."""
    if not is_remote(url):
        with Path(url).open("rb") as file:
            if start:
                file.seek(start)
            return file.read() if stop is None else file.read(stop - start)
    filesystem, path = file_system(url)
    with answering(url):
        whole = start == 0 and stop is None
        found = bytes(
            filesystem.cat_file(path) if whole else filesystem.cat_file(path, start=start, end=stop)
        )
    if stop is None or len(found) <= stop - start:
        return found
    # Some servers send the whole file whatever is asked for.
    return found[start:stop]


def check_parts(url: str) -> None:
    """Make sure that a server sends a part of a file where a part is asked for, and no more."""
    filesystem, path = file_system(url)
    with answering(url):
        sent = len(filesystem.cat_file(path, start=0, end=1))
    if sent > 1:
        raise ResourceError(
            f"the server of {url} must send parts of files (HTTP Range), which a sharded array is "
            "read by, got whole ones; copy the store to a disk, or serve it otherwise"
        )


def write(url: str, data: bytes, *, new: bool = False) -> None:
    """Write an object of a store, whole or not at all.

    With `new` it is refused (FileExistsError) if it is there, in one step with the writing where
    the store can do that.
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
    """Tell whether anything lies at or below a path or URL, a dangling link included."""
    if not is_remote(url):
        return os.path.lexists(url)
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


def is_file(url: str) -> bool:
    """Tell whether there is a file or object of exactly this name."""
    if not is_remote(url):
        return Path(url).is_file()
    filesystem, path = file_system(url)
    with answering(url):
        return bool(filesystem.isfile(path))


def children(url: str) -> list[str]:
    """List the names in a folder, sorted; an empty list where there is no folder."""
    if not is_remote(url):
        return sorted(path.name for path in Path(url).iterdir()) if Path(url).is_dir() else []
    filesystem, path = file_system(url)
    try:
        with answering(url):
            found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    own = path.rstrip("/")
    return sorted({str(n).rstrip("/").rsplit("/", 1)[-1] for n in found if str(n) != own})


def files_below(url: str) -> list[str]:
    """List all files below a folder, relative to it, sorted; links to folders are not followed."""
    if is_remote(url):
        filesystem, path = file_system(url)
        with answering(url):
            names = filesystem.find(path)
        start = len(path.rstrip("/")) + 1
        return sorted(str(name)[start:] for name in names if len(str(name)) > start)
    found = []
    for place, _, names in os.walk(url):
        inner = Path(place).relative_to(url)
        found += [(inner / name).as_posix() for name in names]
    return sorted(found)


def bytes_on_disk(url: str) -> int:
    """Add up the sizes of all files at and below a path or URL."""
    if is_remote(url):
        filesystem, path = file_system(url)
        with answering(url):
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


def remove(url: str, relative: Sequence[str] | None = None) -> None:
    """Remove an object or all objects below a URL, or those of them that `relative` names."""
    filesystem, path = file_system(url)
    with answering(url):
        if relative is not None:
            places = [f"{path.rstrip('/')}/{name}" for name in relative]
            for start in range(0, len(places), CONCURRENCY):
                filesystem.rm(places[start : start + CONCURRENCY])
        elif filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def copy(source: str, target: str, relative: Sequence[str]) -> None:
    """Copy objects inside a store, from below one URL to below another, many at a time.

    An empty name in `relative` stands for the object at the URL itself.
    """
    filesystem, here = file_system(source)
    _, there = file_system(target)

    def named(path: str, name: str) -> str:
        return f"{path.rstrip('/')}/{name}" if name else path.rstrip("/")

    with answering(target):
        for start in range(0, len(relative), CONCURRENCY):
            chosen = relative[start : start + CONCURRENCY]
            filesystem.copy(
                [named(here, name) for name in chosen], [named(there, name) for name in chosen]
            )


_BAD_SEGMENT = re.compile(
    # Control signs, what no UTF-8 can hold, and what leads elsewhere.
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\]|^\.{0,2}$|^__|^~|^[a-zA-Z][a-zA-Z0-9+.-]*:"
)


def join(url: str, *names: str) -> str:
    """Name what lies below `url`.

    >>> join("s3://bucket/slide.zarr/", "labels", "instances")
    's3://bucket/slide.zarr/labels/instances'
    """
    return "/".join([url.rstrip("/"), *names])


def absolute(url: str) -> str:
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


def resolved(path: str) -> Path:
    """Follow the links of a path; one that leads in a loop is left as it is, to fail when read."""
    return Path(os.path.realpath(path))


def inside(url: str, relative: object, *, what: str) -> str:
    """Join a path that was read from metadata, and make sure that it stays below `url`.

    An absolute or climbing one, a scheme, or a link out of the store is refused; `what` names it.
    """
    segments = relative.split("/") if isinstance(relative, str) else [relative]
    whole = join(url, *(str(segment) for segment in segments))
    escapes = not all(is_segment(segment) for segment in segments)
    if not escapes and not is_remote(url):
        escapes = not resolved(whole).is_relative_to(resolved(url))
    if escapes:
        raise InputError(
            f"{what} in the metadata of {url} must be a path inside it, got {relative!r:.100}; "
            "write the store again with the tool that made it"
        )
    return whole


def read_small(url: str, *, limit: int) -> bytes | None:
    """Read a metadata document of at most `limit` bytes; None where there is none."""
    try:
        data = read(url, stop=limit + 1)
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
    """Say in one sentence that zarr can't write to a path or URL."""
    try:
        with answering(url) if is_remote(url) else nullcontext():
            yield
    except UnetkitError:
        raise  # some of them are OSErrors too
    except OSError as error:
        raise ResourceError(f"{url} must be writable, got: {error}") from error


def check_there(url: str) -> None:
    """Refuse a path at which there is nothing; a URL is not asked for."""
    if not is_remote(url) and not os.path.lexists(url):
        raise missing(url)


def check_each_there(found: Sequence[str]) -> None:
    """Refuse paths of which one leads to nothing."""
    for url in found:
        check_there(url)


def check_png(path: str, *, name: str) -> None:
    """Refuse a picture whose name is of another format, or of none."""
    if not path.endswith(".png"):
        raise UsageError(f"{name} must be a .png file, got {path}; name one")


def missing(url: str) -> MissingError:
    """Say that nothing is there, and name what looks like it beside it."""
    hint = did_you_mean(url)
    return MissingError(f"{url} must exist, got nothing there; {hint}")


def did_you_mean(url: str, *, otherwise: str = "check the path") -> str:
    """Ask whether what looks like a path, and lies beside it, was meant; or say `otherwise`.

    >>> did_you_mean("no/such/folder")
    'check the path'
    """
    parent, name = os.path.split(url.rstrip("/"))
    near = [] if is_remote(url) else difflib.get_close_matches(name, children(parent or "."), n=1)
    if not near:
        return otherwise
    close = join(parent, near[0]) if parent else near[0]
    return f"did you mean {close!r}?"


# What tells a folder that exists from all others; of one that does not, its name.
Identity = tuple[int, int] | str


@dataclass(frozen=True)
class Mount:
    """What a line of /proc/self/mountinfo says."""

    number: str
    device: str  # the file system that it shows, as major:minor
    root: Path  # the folder of the file system that it shows
    point: Path  # where it shows it


def colliding(url: str, others: Iterable[str]) -> Iterator[str]:
    """Yield those of `others` that are the same path as `url`, lie inside it, or around it.

    Folders are compared by device and inode, so that links, `..`, mounts and, where a disk does
    not mind it, upper and lower case make no difference; URLs by their words.
    """
    place = None if is_remote(url) else resolved(url)
    own = (set(), "") if place is None else (_above(place), _identity(place))
    # What lies around a file that is no mount of its own is asked once for all of its folder.
    above = lru_cache(maxsize=None)(_above)
    points = {mount.point for mount in _mounts_here()}
    for other in others:
        if place is None or is_remote(other):
            words = [f"{path.rstrip('/')}/" for path in (url, other)]
            meet = words[0].startswith(words[1]) or words[1].startswith(words[0])
        else:
            there = resolved(other)
            folder = there.parent if there.is_file() and there not in points else there
            itself = _identity(there)
            meet = itself in own[0] or own[1] == itself or own[1] in above(folder)
        if meet:
            yield other


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


def _above(path: Path) -> set[Identity]:
    """Identify a path and the folders above it, by each of its names.

    A bind mount hides what lies above the folder that it shows: for what is below `/b`, which
    shows `/a/in.zarr/0`, only its other name tells that it is inside of `/a/in.zarr`.
    """
    return {
        _identity(folder) for name in (path, *_aliases(path)) for folder in (name, *name.parents)
    }


def _aliases(path: Path) -> list[Path]:
    """Name a path as other mounts of its file system show it; nothing where no system says so."""
    nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
    try:
        mounts = _mounts_here()
        own = next(mount for mount in mounts if mount.number == _mount_of(nearest))
        inner = own.root / nearest.relative_to(own.point)
    except (OSError, ValueError, StopIteration):
        return []
    others = [
        mount.point / inner.relative_to(mount.root)
        for mount in mounts
        if mount.device == own.device and inner.is_relative_to(mount.root)
    ]
    # Another mount may hide the place again.
    seen = [other for other in others if _identity(other) == _identity(nearest)]
    return [other / path.relative_to(nearest) for other in seen]


def _mounts_here() -> list[Mount]:
    """List the mounts that this process sees; none where no system says so."""
    try:
        text = Path("/proc/self/mountinfo").read_text("utf-8", errors="surrogateescape")
        return _mounts(text)
    except (OSError, ValueError):
        return []


def _mount_of(path: Path) -> str:
    """Return the number of the mount through which a path is seen."""
    handle = os.open(path, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii").splitlines()
    finally:
        os.close(handle)
    return next(line.split()[1] for line in lines if line.startswith("mnt_id:"))


@lru_cache(maxsize=1)
def _mounts(text: str) -> list[Mount]:
    r"""Read what /proc/self/mountinfo says.

    >>> (mount,) = _mounts(r"63 43 254:0 /a\040b /mnt rw,relatime - ext4 /dev/vda rw")
    >>> mount.number, mount.device, mount.root.as_posix(), mount.point.as_posix()
    ('63', '254:0', '/a b', '/mnt')
    """
    found = []
    for line in text.splitlines():
        number, _, device, root, point, *_ = line.split(" ")
        found.append(Mount(number, device, Path(_plain(root)), Path(_plain(point))))
    return found


def _plain(name: str) -> str:
    """Undo how the list writes what would end a word."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
