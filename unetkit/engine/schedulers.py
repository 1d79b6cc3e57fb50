"""Where jobs run: this process, other processes, or a cluster; it does not know what a job does."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from unetkit.engine.pools import Scheduler, process_pool
from unetkit.errors import UsageError
from unetkit.machine import processor_count

LOCAL_NAMES = ("threads", "sync", "processes")
CLUSTER_FORMS = ("local:N", "tcp://HOST:PORT", "file:PATH")


def open_scheduler(name: str = "threads", workers: int | None = None) -> Scheduler:
    """Open the scheduler that a user names.

    `threads`, `processes`: on this machine. `sync`: one job after the other in the calling thread.
    `local:N`: a dask cluster of N processes on this machine, which share `workers` out.
    `tcp://HOST:PORT`: a running dask scheduler. `file:PATH`: the same, found by its scheduler file.
    Left out, there are as many workers as processors, or as the cluster has threads.
    """
    check_scheduler(name)
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}; leave it out to use all")
    if name == "sync":
        return Scheduler(name, "sync", 1)
    if name == "threads":
        count = workers or processor_count()
        return Scheduler(name, "threads", count, ThreadPoolExecutor(count))
    if name == "processes":
        count = workers or processor_count()
        return Scheduler(name, "processes", count, process_pool(count))
    # Loaded where it is used: it takes as long as all the rest of this room.
    from unetkit.engine import clusters

    open_cluster = clusters.start if name.startswith("local:") else clusters.join
    return open_cluster(name, workers)


def check_scheduler(name: str) -> None:
    """Refuse what names no scheduler; whether it is there is not asked."""
    kind, _, place = name.partition(":")
    if kind == "local":
        if not place.isdecimal() or int(place) < 1:
            raise UsageError(
                f"scheduler local:N must have N of at least 1, got '{name}'; use local:2"
            )
    elif name.startswith(("tcp://", "tls://")):
        try:
            complete = urlsplit(name).hostname and urlsplit(name).port
        except ValueError:
            complete = None
        if not complete:
            raise UsageError(
                f"scheduler must have a host and a port number, got '{name}'; "
                "give it as in tcp://HOST:8786"
            )
    elif name not in LOCAL_NAMES and not name.startswith("file:"):
        raise UsageError(_unknown(name))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, LOCAL_NAMES, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else "leave it out to use threads"
    forms = ", ".join((*LOCAL_NAMES, *CLUSTER_FORMS))
    return f"scheduler must be one of {forms}, got '{name}'; {remedy}"
