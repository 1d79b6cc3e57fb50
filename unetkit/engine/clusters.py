"""Jobs on a dask cluster, one of this machine or one of many; everything that needs `distributed`.

A command that uses no cluster does not load this room.
"""

from __future__ import annotations

import itertools
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed, wait
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from unetkit.engine.pools import RETRIES, SAFE_PATH, Scheduler, lost_worker
from unetkit.errors import InputError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

J = TypeVar("J")
R = TypeVar("R")

# How long a cluster may take to answer; one that is up answers in milliseconds.
CONNECT_SECONDS = 5.0
# Starting worker processes means importing Python there, which can be slow on a network disk.
START_SECONDS = 60.0
# The allocator keeps large blocks in one of glibc's heaps only (models.hardware), and a worker has
# threads before it has anything to compute; so it starts with one.
ONE_HEAP = "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX"
SAFE = f"distributed.nanny.pre-spawn-environ.{SAFE_PATH}"
# What a worker of `local:N` runs when it starts.
LEAVE_SIGNALS = """
import signal
for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
"""


def run_jobs(
    function: Callable[[J], R],
    jobs: Iterator[J],
    scheduler: Scheduler,
    *,
    on_done: Callable[[J, R], None] | None,
) -> None:
    """Run `function` on every job: see `jobs.run_jobs`.

    One job more than there are workers is in flight, so that none waits for the next. Dask's
    callbacks say nothing about a cluster, hence the futures.
    """
    client = scheduler.client
    running: dict[Any, J] = {}
    lost: J | None = None

    def submit(job: J) -> Any:
        future = client.submit(function, job, pure=False)
        running[future] = job
        return future

    try:
        flight = as_completed(
            [submit(job) for job in itertools.islice(jobs, scheduler.workers + 1)]
        )
        for future in flight:
            lost = running[future]
            result = future.result()
            job = running.pop(future)
            if on_done is not None:
                on_done(job, result)
            for following in itertools.islice(jobs, 1):
                flight.add(submit(following))
    except KilledWorker as error:
        raise lost_worker(scheduler.name, lost) from error
    except (FutureCancelledError, CommClosedError) as error:
        message = f"scheduler '{scheduler.name}' must stay reachable, but it went away"
        raise UnavailableError(f"{message}; run the command again when it is back") from error
    finally:
        if client.status == "running":
            wait(list(running))


def ask_workers(
    scheduler: Scheduler, look: Callable[[], Mapping[str, str]]
) -> dict[str, Mapping[str, str] | BaseException]:
    """Call `look` on every worker; return what each found, or raised, by its address."""
    try:
        found: dict[str, Any] = scheduler.client.run(look, on_error="return")
    except (OSError, FutureCancelledError, CommClosedError) as error:
        raise UnavailableError(
            f"scheduler '{scheduler.name}' must stay reachable, but it went away; "
            "run the command again when it is back"
        ) from error
    return found


def start(name: str, workers: int | None) -> Scheduler:
    """Start a cluster `local:N` on this machine: see `schedulers.open_scheduler`."""
    count = name.removeprefix("local:")
    if not count.isdecimal() or int(count) < 1:
        raise UsageError(f"scheduler local:N must have N of at least 1, got '{name}'; use local:2")
    with ExitStack() as resources:
        settings = {"distributed.scheduler.allowed-failures": RETRIES, ONE_HEAP: 1, SAFE: 1}
        resources.enter_context(dask.config.set(settings))
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
                    # What a terminal sends to all its processes is for the parent, which ends the
                    # run; workers that died of it would be started again, and it would hang.
                    preload=[LEAVE_SIGNALS],
                )
            )
            client = resources.enter_context(Client(cluster, timeout=START_SECONDS))
            client.wait_for_workers(int(count), timeout=START_SECONDS)
        except (OSError, TimeoutError, RuntimeError) as error:
            message = f"scheduler '{name}' must start its workers, got: {error}; use threads"
            raise UnavailableError(message) from error
        return Scheduler(
            name, "cluster", workers or int(count), client=client, resources=resources.pop_all()
        )


def join(name: str, workers: int | None) -> Scheduler:
    """Connect to a cluster that runs, by its address or its scheduler file."""
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
            raise UnavailableError(message) from error
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
        raise UnavailableError(
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
