"""Where jobs run: this process, other processes, or a cluster; it does not know what a job does."""

from __future__ import annotations

import difflib
import json
import logging
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster, get_worker

from unetkit.errors import InputError, TryAgainError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from types import TracebackType

LOCAL_NAMES = ("threads", "sync", "processes")
CLUSTER_FORMS = ("local:N", "tcp://HOST:PORT", "file:PATH")

# How long a cluster may take to answer; one that is up answers in milliseconds.
CONNECT_SECONDS = 5.0
# Starting worker processes means importing Python there, which can be slow on a network disk.
START_SECONDS = 60.0
# What a worker of `local:N` runs when it starts.
LEAVE_SIGNALS = """
import signal
for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
"""
# How often a job is given to another worker when one died at it.
RETRIES = 2


@dataclass
class Scheduler:
    """An open place for jobs; close it, or use it in a `with` statement.

    Parameters
    ----------
    name : str
        As the user gave it.
    kind : {"threads", "sync", "processes", "cluster"}
        The first three are dask's own schedulers of this machine.
    workers : int
        How many jobs run at the same time; for a cluster as many as had joined when it was opened.
    pool : Executor or None
        What "threads" and "processes" run on.
    client : distributed.Client or None
        The connection to a cluster.
    """

    name: str
    kind: Literal["threads", "sync", "processes", "cluster"]
    workers: int
    pool: Executor | None = None
    client: Any = None
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def renew(self) -> None:
        """Start new processes in place of those that a death has made useless."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = _process_pool(self.workers)

    def close(self) -> None:
        """Wait for running jobs, drop the others, and free what was started."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.resources.close()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_scheduler(name: str = "threads", workers: int | None = None) -> Scheduler:
    """Open the scheduler that a user names.

    Parameters
    ----------
    name : str
        `threads`, `processes`: on this machine. `sync`: one job after the other in the calling
        thread. `local:N`: a dask cluster of N processes on this machine, which share `workers`
        out. `tcp://HOST:PORT`: a running dask scheduler. `file:PATH`: the same, found by its
        scheduler file.
    workers : int, optional
        How many jobs run at once; left out, as many as there are cores, or as many as the cluster
        has threads. `sync` always runs one.

    Raises
    ------
    UsageError
        If no scheduler has that name, or `workers` is below 1.
    TryAgainError
        If the cluster doesn't answer.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}; leave it out to use all")
    if name == "sync":
        return Scheduler(name, "sync", 1)
    if name == "threads":
        count = workers or cores()
        return Scheduler(name, "threads", count, ThreadPoolExecutor(count))
    if name == "processes":
        count = workers or cores()
        return Scheduler(name, "processes", count, _process_pool(count))
    if name.startswith("local:"):
        return _local_cluster(name, workers)
    if name.startswith(("tcp://", "tls://", "file:")):
        return _remote_cluster(name, workers)
    raise UsageError(_unknown(name))


def worker_number() -> int | None:
    """Return which of this machine's workers this process is, from 0 on; None if it is none.

    It tells the processes of `processes` and `local:N` apart, so that each can take a part of the
    machine for itself.
    """
    if _CHILD:
        return _CHILD[0]
    try:
        name = get_worker().name
    except ValueError:
        return None
    # Elsewhere a worker is called by its address, or as whoever started it pleased.
    return name if isinstance(name, int) else None


# The number of this process where it is a child.
_CHILD: list[int] = []


def _process_pool(count: int) -> ProcessPoolExecutor:
    # A forked child of a process with threads may hang; a spawned one starts clean.
    context = get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=_be_a_child, initargs=(context.Value("i", 0),)
    )


def _be_a_child(born: Any) -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the parent; end with it."""
    with born:
        _CHILD[:] = [born.value]
        born.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End when the parent was killed, which tells its children nothing."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, LOCAL_NAMES, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else "leave it out to use threads"
    forms = ", ".join((*LOCAL_NAMES, *CLUSTER_FORMS))
    return f"scheduler must be one of {forms}, got '{name}'; {remedy}"


def _local_cluster(name: str, workers: int | None) -> Scheduler:
    count = name.removeprefix("local:")
    if not count.isdecimal() or int(count) < 1:
        raise UsageError(f"scheduler local:N must have N of at least 1, got '{name}'; use local:2")
    with ExitStack() as resources:
        resources.enter_context(
            dask.config.set({"distributed.scheduler.allowed-failures": RETRIES})
        )
        try:
            cluster = resources.enter_context(
                LocalCluster(
                    n_workers=int(count),
                    threads_per_worker=-(-(workers or 1) // int(count)),
                    host="127.0.0.1",
                    # Any free port; left out, it would be one that another run may hold.
                    dashboard_address="127.0.0.1:0",
                    # A job's error is raised here; the workers need not print it as well.
                    silence_logs=logging.CRITICAL,
                    # The allocator keeps freed memory on purpose (models.hardware), which a
                    # memory limit would take for a leak and answer by pausing the worker.
                    memory_limit=0,
                    # It keeps large blocks in one of glibc's heaps only, and a worker has threads
                    # before it has anything to compute.
                    env={"MALLOC_ARENA_MAX": "1"},
                    # What a terminal sends to all its processes is for the parent, which ends the
                    # run; workers that died of it would be started again, and it would hang.
                    preload=[LEAVE_SIGNALS],
                )
            )
            client = resources.enter_context(Client(cluster, timeout=START_SECONDS))
            client.wait_for_workers(int(count), timeout=START_SECONDS)
        except (OSError, TimeoutError, RuntimeError) as error:
            message = f"scheduler '{name}' must start its workers, got: {error}; use threads"
            raise TryAgainError(message) from error
        return Scheduler(
            name, "cluster", workers or int(count), client=client, resources=resources.pop_all()
        )


def _remote_cluster(name: str, workers: int | None) -> Scheduler:
    where = _address(name)
    with ExitStack() as resources:
        try:
            client = resources.enter_context(Client(where, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            message = (
                f"scheduler '{name}' must answer and have a worker within "
                f"{CONNECT_SECONDS:.0f} seconds, got: {type(error).__name__}; "
                "start it, or use --scheduler threads"
            )
            raise TryAgainError(message) from error
        count = workers or sum(client.nthreads().values())
        return Scheduler(name, "cluster", count, client=client, resources=resources.pop_all())


def _address(name: str) -> str:
    """Take the cluster's address as given, or from its scheduler file.

    The file is read here since distributed waits for an absent file without end.
    """
    if not name.startswith("file:"):
        _check_address(name)
        return name
    path = Path(name.removeprefix("file:"))
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TryAgainError(
            f"scheduler file must be readable, got '{path}' ({error.strerror}); "
            "start 'dask scheduler --scheduler-file' first, or use --scheduler threads"
        ) from error
    try:
        return str(json.loads(text)["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"scheduler file must be JSON with an address, got '{path}'; "
            "name the file that 'dask scheduler --scheduler-file' wrote"
        ) from error


def _check_address(name: str) -> None:
    try:
        complete = urlsplit(name).hostname and urlsplit(name).port
    except ValueError:
        complete = None
    if not complete:
        raise UsageError(
            f"scheduler must have a host and a port number, got '{name}'; "
            "give it as in tcp://HOST:8786"
        )
