"""What this process may use of the machine: processors and memory; it knows no GPU."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Where the kernel says what a container may use (version 2 of control groups).
CONTAINER = Path("/sys/fs/cgroup")


def processor_count(container: Path = CONTAINER) -> int:
    """Count the processors that this process may use: its affinity and its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        share, period = (container / "cpu.max").read_text("ascii").split()
        return min(count, max(1, math.ceil(int(share) / int(period))))
    except (OSError, ValueError):
        return count


def free_memory(container: Path = CONTAINER) -> int:
    """Return the bytes that are free on this machine and within the container's limit."""
    # Loaded where it is used: counting processors needs none of it.
    import psutil  # type: ignore[import-untyped]

    # Unlike the free pages it counts the file cache, which gives way.
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((container / "memory.max").read_text("ascii"))
        return min(free, max(0, limit - int((container / "memory.current").read_text("ascii"))))
    except (OSError, ValueError):
        return free


def held_memory() -> int:
    """Return the bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)
