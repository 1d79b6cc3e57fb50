"""Where a path really lies, by whatever links, mounts and spellings it is named."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from unetkit.remote import is_remote

# What tells a folder that exists from all others; of one that does not, its name.
Identity = tuple[int, int] | str


@dataclass(frozen=True)
class Mount:
    """What a line of /proc/self/mountinfo says.

    Parameters
    ----------
    number : str
        Of the mount.
    device : str
        The file system that it shows, as major:minor.
    root : Path
        The folder of the file system that it shows.
    point : Path
        Where it shows it.
    """

    number: str
    device: str
    root: Path
    point: Path


def collide(first: str, second: str) -> bool:
    """Tell whether two paths are the same or one lies inside the other.

    Folders are compared by device and inode, so that links, `..`, mounts and, where a disk does
    not mind it, upper and lower case make no difference; URLs by their words.
    """
    if is_remote(first) or is_remote(second):
        words = [f"{url.rstrip('/')}/" for url in (first, second)]
        return words[0].startswith(words[1]) or words[1].startswith(words[0])
    one, other = Path(first).resolve(), Path(second).resolve()
    return _identity(one) in _above(other) or _identity(other) in _above(one)


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
        mounts = _mounts(Path("/proc/self/mountinfo").read_text("utf-8", errors="surrogateescape"))
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


def _mount_of(path: Path) -> str:
    """Return the number of the mount through which a path is seen."""
    handle = os.open(path, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii").splitlines()
    finally:
        os.close(handle)
    return next(line.split()[1] for line in lines if line.startswith("mnt_id:"))


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
