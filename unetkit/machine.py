"""What this process may use of the machine: processors and memory; it knows no GPU."""

from __future__ import annotations

import math
import os
import platform
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

# Where the kernel says which control group a process is in, and what groups may use.
OWN_GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
PROCESSORS = Path("/proc/cpuinfo")


def processor_count(container: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """Count the processors that this process may use: its affinity and the quotas of its groups.

    A batch job's limit may lie on any group above its own, of version 1 or 2.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for group in _groups("cpu", container, own):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        quota = quota or _text(group / "cpu.cfs_quota_us")
        period = period or _text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


def processor_name(facts: Path = PROCESSORS) -> str:
    """Return what the processor calls itself, or its architecture where nothing says more."""
    named = re.search(r"^model name\s*:\s*(.+)$", _text(facts), flags=re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Make each item in a thread of its own while the one before is used."""
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(_following, source)
        while found := following.result():
            following = pool.submit(_following, source)
            yield found.pop()


def _following(source: Iterator[Item]) -> list[Item]:
    return list(islice(source, 1))


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], *, alone: Callable[[Item], bool]
) -> Iterator[Result]:
    """Apply a function in as many threads as there are processors, and yield in the items' order.

    No more results are held than there are processors; `alone` tells of items that need so much
    memory that only one of them may be worked on at a time.
    """
    count = processor_count()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                if alone(item):
                    while waiting:
                        yield waiting.popleft().result()
                    yield function(item)
                    continue
                waiting.append(pool.submit(copy_context().run, function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def check_device(name: str) -> None:
    """Refuse what names no kind of device; whether it is there is not asked."""
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (
        colon and (kind != "cuda" or not (number.isascii() and number.isdigit()))
    ):
        raise UsageError(
            f"device must be auto, cpu, cuda, cuda:NUMBER or mps, got {name!r}; leave it out for"
            " auto"
        )


def free_memory(container: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """Return the bytes that are free on this machine and within the limits of its groups."""
    # Loaded where it is used: counting processors needs none of it.
    import psutil  # type: ignore[import-untyped]

    # Unlike the free pages it counts the file cache, which gives way.
    free = int(psutil.virtual_memory().available)
    for group in _groups("memory", container, own):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _text(group / limit), _text(group / used)
            if most.isdecimal() and taken.isdecimal():
                given = _file_cache(_text(group / "memory.stat"), cache)
                free = min(free, max(0, int(most) - int(taken) + min(given, int(taken))))
    return free


def _groups(controller: str, container: Path, own: Path) -> list[Path]:
    """List the folders of this process's groups and of all above them, to the mount."""
    found = [container, container / controller]
    for line in _text(own).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = container / controllers if controllers else container
        # Inside a container the path may be that of the machine, of which only the end is there.
        place = Path(path.lstrip("/"))
        for above in (place, *place.parents):
            found += [root / above, *([] if controllers else [container / "unified" / above])]
            if controllers:
                found.append(container / controller / above)
    return list(dict.fromkeys(found))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _file_cache(statistics: str, name: str) -> int:
    """Return the bytes of files that the kernel keeps and gives up before it refuses memory."""
    for line in statistics.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def held_memory() -> int:
    """Return the bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)
