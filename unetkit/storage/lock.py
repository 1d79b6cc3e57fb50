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
from unetkit.signals import interruptible
from unetkit.storage import urls
from unetkit.storage.atomic import is_abandoned
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


# A longer file is none of ours.
LIMIT = 4096
# The file systems whose locks are kept by the kernel alone.
OWN_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay"}


# The number of the PID namespace that a machine starts with; containers have others.
FIRST_NAMESPACE = "4026531836"


@dataclass(frozen=True)
class Holder:
    """Who is at work: a process of a host, and since when, for people.

    What the system does not say is "", and so is what earlier versions did not write.
    """

    host: str
    pid: int
    since: str
    # What tells the process from a later one with the same number: the boot of the machine, and
    # the clock tick at which the process was started.
    birth: str
    # The PID namespace in which the process has its number.
    namespace: str = ""
    # Where the lock is a file that its holder keeps locked with the system too: the file system.
    disk: str = ""
    # The job of a batch system, and how many earlier lives it had there.
    job: str = ""
    lives: int = 0

    @property
    def boot(self) -> str:
        """The boot of its machine."""
        return self.birth.partition(" ")[0]

    def is_dead(self, here: Holder, *, free: Callable[[], bool]) -> bool:
        """Tell whether it is known to be dead, looked at from the process `here`.

        `free` says whether nobody keeps the file locked. What can't be seen from here, in another
        container or on another host, may always be at work.
        """
        near = self.host == here.host and self.namespace in ("", here.namespace)
        # Containers on two machines may have all this in common, but not the boot.
        if near and (self.boot in ("", here.boot) or self.namespace in ("", FIRST_NAMESPACE)):
            return not _is_running(self.pid, self.birth)
        if self.boot and self.disk and (self.boot, self.disk) == (here.boot, here.disk):
            return free()  # one kernel keeps the locks of all its containers
        # A batch system ends one life of a job before it begins the next.
        return bool(self.job) and self.job == here.job and self.lives < here.lives


_KINDS = {name: type(value) for name, value in asdict(Holder("", 0, "", "")).items()}


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
    here = _this_process(lock.disk)
    own = json.dumps(asdict(here)).encode()
    with interruptible():
        try:
            _take(lock, own, here, url=url, break_lock=break_lock)
            yield
        finally:
            # Another job may have broken the lock meanwhile and hold its own.
            with suppress(OSError):
                lock.release(own)


def _take(
    lock: _ObjectLock | _FileLock, own: bytes, here: Holder, *, url: str, break_lock: bool
) -> None:
    """Create the lock, in place of a dead holder's."""
    try:
        while not lock.create(own):
            content = lock.read()
            if content is None:
                continue  # released meanwhile
            holder = _parse(content)
            if not break_lock and (holder is None or not holder.is_dead(here, free=lock.is_free)):
                raise OutputError(_refusal(url, lock.place, holder, here))
            lock.put_aside(content)
    except OutputError:
        raise  # it is an OSError too
    except OSError as error:
        if is_remote(url):
            raise
        raise ResourceError(f"{lock.place} must be writable, got: {error}") from error


class _ObjectLock:
    """A lock in a store, which creates an object in one step but exchanges none."""

    disk = ""

    def __init__(self, place: str) -> None:
        self.place = place
        self._created = False

    def create(self, content: bytes) -> bool:
        self._created = True  # before it is sure, since a signal may come at any time
        try:
            urls.write(self.place, content, new=True)
        except FileExistsError:
            self._created = False
        return self._created

    def read(self) -> bytes | None:
        try:
            return urls.read(self.place, stop=LIMIT)
        except FileNotFoundError:
            return None

    def is_free(self) -> bool:
        return False

    def put_aside(self, content: bytes) -> None:
        urls.remove(self.place)

    def release(self, content: bytes) -> None:
        if self._created and self.read() == content:
            urls.remove(self.place)


class _FileLock:
    """A lock on a disk, which its holder keeps locked with the system too, where that can be."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._path = Path(place)
        self._created = False
        self._held: int | None = None

    @property
    def disk(self) -> str:
        """Where a lock of the system is seen, "" where it is not one of this machine's own.

        On network disks it may be seen nowhere else, and taking it may never end.
        """
        with suppress(OSError, IndexError):
            number = self._path.parent.stat().st_dev
            found = f"{os.major(number)}:{os.minor(number)}"
            for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
                if line.split()[2] == found and line.partition(" - ")[2].split()[0] in OWN_DISKS:
                    return found
        return ""

    def create(self, content: bytes) -> bool:
        """Create the file with its content in one step; False where it is already there."""
        new = self._temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            with os.fdopen(os.open(new, flags, 0o666), "wb") as file:
                file.write(content)
            with _one_by_one(self._path.parent):
                self._created = True  # before it is sure, since a signal may come at any time
                # Unlike a rename a link never replaces what is there, on network disks neither.
                os.link(new, self._path)
                self._hold()
        except FileExistsError:
            self._created = False
            return False
        finally:
            new.unlink(missing_ok=True)
        self._sweep()
        return True

    def _hold(self) -> None:
        """Keep the file locked as long as this process lives."""
        if fcntl is not None and self.disk:
            self._held = os.open(self._path, os.O_RDWR)
            with suppress(OSError):
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def is_free(self) -> bool:
        """Tell whether nobody keeps the file locked."""
        if fcntl is None:
            return False
        try:
            with _one_by_one(self._path.parent), self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

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

    def release(self, content: bytes) -> None:
        """Remove the lock if it is this process's."""
        try:
            if self._created and self._path.read_bytes() == content:
                self._path.unlink()
        finally:
            if self._held is not None:
                os.close(self._held)

    def _temporary(self) -> Path:
        return self._path.with_name(f"{self._path.name[:200]}.{secrets.token_hex(8)}.tmp")

    def _sweep(self) -> None:
        """Remove what processes that were killed while they took the lock left of theirs."""
        here = _this_process()
        for other in self._path.parent.iterdir():
            if other.name.startswith(f"{self._path.name[:200]}.") and other.suffix == ".tmp":
                with suppress(OSError):
                    holder = _parse(other.read_bytes())
                    dead = holder is not None and holder.is_dead(here, free=lambda: False)
                    # Whoever was killed before it said its name is known by the time.
                    if dead or (holder is None and is_abandoned(other, now=self._path)):
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


def _refusal(url: str, place: str, holder: Holder | None, here: Holder) -> str:
    if holder is None:
        return (
            f"{place} must name the job that is at work there, got a file that does not; "
            "add --break-lock if no job is"
        )
    where = "" if holder.namespace in ("", here.namespace) else " of another container"
    return (
        f"{url} must have one job at a time, got one on host {holder.host}, process {holder.pid}"
        f"{where}, since {holder.since}; wait for it, name another output, or add --break-lock if "
        "you know that it is dead"
    )


def _parse(content: bytes) -> Holder | None:
    try:
        holder = Holder(**json.loads(content[:LIMIT]))
    except (ValueError, TypeError, RecursionError):
        return None
    return holder if {k: type(v) for k, v in asdict(holder).items()} == _KINDS else None


def _this_process(disk: str = "") -> Holder:
    now = datetime.now(UTC).isoformat(" ", "seconds")
    job = os.environ.get("SLURM_JOB_ID", "")
    lives = os.environ.get("SLURM_RESTART_COUNT", "")
    return Holder(
        platform.node(),
        os.getpid(),
        now,
        _birth(os.getpid()),
        namespace=_namespace(),
        disk=disk,
        # Two clusters may number alike.
        job=job and f"slurm {os.environ.get('SLURM_CLUSTER_NAME', '')} {job}",
        lives=int(lives) if lives.isdecimal() else 0,
    )


def _is_running(pid: int, birth: str) -> bool:
    """Tell whether a process of this namespace runs, and is not a later one of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is there, and another user's
    return not birth or _birth(pid) in ("", birth)


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """Return the boot and the start of a process as the kernel tells them; "" where it does not."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # The name of the program may hold blanks and brackets; 19 fields on comes the start.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""
