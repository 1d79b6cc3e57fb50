"""Where jobs run: this process, other processes, or a cluster; it does not know what a job does."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor

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
    if name.startswith(("local:", "tcp://", "tls://", "file:")):
        # Loaded where it is used: it takes as long as all the rest of this room.
        from unetkit.engine import clusters

        open_cluster = clusters.start if name.startswith("local:") else clusters.join
        return open_cluster(name, workers)
    raise UsageError(_unknown(name))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, LOCAL_NAMES, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else "leave it out to use threads"
    forms = ", ".join((*LOCAL_NAMES, *CLUSTER_FORMS))
    return f"scheduler must be one of {forms}, got '{name}'; {remedy}"
