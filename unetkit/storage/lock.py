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

from unetkit.errors import OutputError, SurroundingsError
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
    """Who is at work.

    Parameters
    ----------
    host : str
        The machine's name.
    pid : int
        The process there.
    since : str
        When it began, for people.
    birth : str
        What tells the process from a later one with the same number, "" where the system does not
        say: the boot of the machine, and the clock tick at which the process was started.
    """

    host: str
    pid: int
    since: str
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
    """Be the only job on a partial inside a `with` block.

    It needs no lock of the file system, so that it holds on network disks too. What a dead process
    of this host left is taken over.

    Parameters
    ----------
    url : str
        The partial, there or not.
    break_lock : bool
        Take over in any case, for when the other job is known to be dead.

    Raises
    ------
    OutputError
        If another job is at work there, or may be.
    SurroundingsError
        If the folder can't be written to.
    """
    if is_remote(url):
        with _locked_store(url, break_lock=break_lock):
            yield
        return
    path = Path(lock_path(url))
    own = json.dumps(asdict(_this_process())).encode()
    try:
        while not _place(path, own):
            _make_way(path, url, break_lock=break_lock)
    except OutputError:
        raise  # it is an OSError too
    except OSError as error:
        raise SurroundingsError(f"{path} must be writable, got: {error}") from error
    _sweep(path)
    try:
        yield
    finally:
        # Another job may have broken the lock meanwhile and hold its own.
        with suppress(OSError):
            if path.read_bytes() == own:
                path.unlink()


@contextmanager
def _locked_store(url: str, *, break_lock: bool) -> Iterator[None]:
    """Do in a store, which creates an object in one step but exchanges none, what `locked` does."""
    place = lock_path(url)
    own = json.dumps(asdict(_this_process())).encode()
    while True:
        try:
            urls.write(place, own, new=True)
            break
        except FileExistsError:
            _make_way_in_store(place, url, break_lock=break_lock)
    try:
        yield
    finally:
        with suppress(OSError):
            if urls.read(place) == own:
                urls.remove(place)


def _make_way_in_store(place: str, url: str, *, break_lock: bool) -> None:
    try:
        holder = _read(urls.read(place, stop=LIMIT))
    except FileNotFoundError:
        return  # released meanwhile
    if not break_lock and (holder is None or holder.is_alive):
        raise OutputError(_refusal(url, place, holder))
    urls.remove(place)


def _place(path: Path, content: bytes) -> bool:
    """Create the file with its content in one step; False where it is already there."""
    new = path.with_name(f"{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(new, flags, 0o666), "wb") as file:
            file.write(content)
        # Unlike a rename a link never replaces what is there, on network disks neither.
        os.link(new, path)
    except FileExistsError:
        return False
    finally:
        new.unlink(missing_ok=True)
    return True


def _sweep(path: Path) -> None:
    """Remove what processes that were killed while they took the lock left of theirs."""
    for other in path.parent.iterdir():
        if other.name.startswith(f"{path.name[:200]}.") and other.suffix == ".tmp":
            with suppress(OSError):
                holder = _read(other.read_bytes())
                if holder is not None and not holder.is_alive:
                    other.unlink()


def _make_way(path: Path, url: str, *, break_lock: bool) -> None:
    """Put the lock of a dead process aside; refuse where it may be alive."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return  # released meanwhile
    holder = _read(content)
    if not break_lock and (holder is None or holder.is_alive):
        raise OutputError(_refusal(url, path, holder))
    aside = path.with_name(f"{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    with _one_by_one(path.parent), suppress(FileNotFoundError):
        if path.read_bytes() != content:
            return  # another job was quicker
        path.rename(aside)
        if aside.read_bytes() != content:
            # A third job was quicker to put the dead one aside, and this lock is its own.
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


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


def _refusal(url: str, path: Path | str, holder: Holder | None) -> str:
    if holder is None:
        return (
            f"{path} must name the job that is at work there, got a file that does not; "
            "add --break-lock if no job is"
        )
    return (
        f"{url} must have one job at a time, got one on host {holder.host}, process {holder.pid}, "
        f"since {holder.since}; wait for it, name another output, or add --break-lock if you know "
        "that it is dead"
    )


def _read(content: bytes) -> Holder | None:
    try:
        found = json.loads(content[:LIMIT])
        holder = Holder(**found)
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
