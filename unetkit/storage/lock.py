"""One job at a time on an output: a file beside it says who is at work there."""

from __future__ import annotations

import json
import os
import platform
import secrets
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.errors import OutputError, ResourceError
from unetkit.storage import urls
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


# A longer file is none of ours.
LIMIT = 4096


@dataclass(frozen=True)
class Holder:
    """Who is at work: a process of a host, and since when, for people."""

    host: str
    pid: int
    since: str
    # What tells the process from a later one with the same number, "" where the system does not
    # say: the boot of the machine, and the clock tick at which the process was started.
    birth: str

    @property
    def is_alive(self) -> bool:
        """Whether it may still be at work; one on another host always may."""
        if self.host != platform.node():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # it is there, and another user's
        return not self.birth or _birth(self.pid) in ("", self.birth)


def lock_path(url: str) -> str:
    """Name the file that locks an output that is made in the partial `url`.

    >>> lock_path("data/.slide.prediction.zarr.unetkit-partial")
    'data/.slide.prediction.zarr.unetkit-partial.lock'
    """
    return f"{url.rstrip('/')}.lock"


@contextmanager
def locked(url: str, *, break_lock: bool = False) -> Iterator[None]:
    """Be the only job on a partial, there or not, inside a `with` block; else OutputError.

    It needs no lock of the file system, so that it holds on network disks and in stores too. What
    a dead process of this host left is taken over; with `break_lock` any lock is.
    """
    place = lock_path(url) if is_remote(url) else str(Path(lock_path(url)))
    lock = _ObjectLock(place) if is_remote(url) else _FileLock(place)
    own = json.dumps(asdict(_this_process())).encode()
    try:
        while not lock.create(own):
            content = lock.read()
            if content is None:
                continue  # released meanwhile
            holder = _parse(content)
            if not break_lock and (holder is None or holder.is_alive):
                raise OutputError(_refusal(url, place, holder))
            lock.put_aside(content)
    except OutputError:
        raise  # it is an OSError too
    except OSError as error:
        if is_remote(url):
            raise
        raise ResourceError(f"{place} must be writable, got: {error}") from error
    try:
        yield
    finally:
        # Another job may have broken the lock meanwhile and hold its own.
        with suppress(OSError):
            if lock.read() == own:
                lock.remove()


class _ObjectLock:
    """A lock in a store, which creates an object in one step but exchanges none."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self, content: bytes) -> bool:
        try:
            urls.write(self._url, content, new=True)
        except FileExistsError:
            return False
        return True

    def read(self) -> bytes | None:
        try:
            return urls.read(self._url, stop=LIMIT)
        except FileNotFoundError:
            return None

    def put_aside(self, content: bytes) -> None:
        self.remove()

    def remove(self) -> None:
        urls.remove(self._url)


class _FileLock:
    """A lock on a disk."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def create(self, content: bytes) -> bool:
        """Create the file with its content in one step; False where it is already there."""
        new = self._temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            with os.fdopen(os.open(new, flags, 0o666), "wb") as file:
                file.write(content)
            # Unlike a rename a link never replaces what is there, on network disks neither.
            os.link(new, self._path)
        except FileExistsError:
            return False
        finally:
            new.unlink(missing_ok=True)
        self._sweep()
        return True

    def read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def put_aside(self, content: bytes) -> None:
        """Remove the lock of a dead process, unless it is another's by now."""
        aside = self._temporary()
        with _one_by_one(self._path.parent), suppress(FileNotFoundError):
            if self._path.read_bytes() != content:
                return  # another job was quicker
            self._path.rename(aside)
            if aside.read_bytes() != content:
                # A third job was quicker to put the dead one aside, and this lock is its own.
                with suppress(FileExistsError):
                    os.link(aside, self._path)
            aside.unlink()

    def remove(self) -> None:
        self._path.unlink()

    def _temporary(self) -> Path:
        return self._path.with_name(f"{self._path.name[:200]}.{secrets.token_hex(8)}.tmp")

    def _sweep(self) -> None:
        """Remove what processes that were killed while they took the lock left of theirs."""
        for other in self._path.parent.iterdir():
            if other.name.startswith(f"{self._path.name[:200]}.") and other.suffix == ".tmp":
                with suppress(OSError):
                    holder = _parse(other.read_bytes())
                    if holder is not None and not holder.is_alive:
                        other.unlink()


@contextmanager
def _one_by_one(folder: Path) -> Iterator[None]:
    """Let one job of this host at a time put dead locks of a folder aside.

    Between looking at a lock and putting it aside it must not become another job's. Where folders
    can't be locked, as on some network disks, what follows makes up for it as far as it can.
    """
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _refusal(url: str, place: str, holder: Holder | None) -> str:
    if holder is None:
        return (
            f"{place} must name the job that is at work there, got a file that does not; "
            "add --break-lock if no job is"
        )
    return (
        f"{url} must have one job at a time, got one on host {holder.host}, process {holder.pid}, "
        f"since {holder.since}; wait for it, name another output, or add --break-lock if you know "
        "that it is dead"
    )


def _parse(content: bytes) -> Holder | None:
    try:
        holder = Holder(**json.loads(content[:LIMIT]))
    except (ValueError, TypeError, RecursionError):
        return None
    return holder if isinstance(holder.host, str) and type(holder.pid) is int else None


def _this_process() -> Holder:
    now = datetime.now(UTC).isoformat(" ", "seconds")
    return Holder(platform.node(), os.getpid(), now, _birth(os.getpid()))


def _birth(pid: int) -> str:
    """Return the boot and the start of a process as the kernel tells them; "" where it does not."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # The name of the program may hold blanks and brackets; 19 fields on comes the start.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""
