"""Jobs on a dask cluster, one of this machine or one of many; everything that needs `distributed`.

A command that uses no cluster does not load this room.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, wait
from distributed.comm import CommClosedError

from unetkit.engine.pools import RETRIES, SAFE_PATH, Scheduler, lost_worker
from unetkit.errors import InputError, ResourceError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

J = TypeVar("J")
R = TypeVar("R")

# How long a cluster may take to answer; one that is up answers in milliseconds.
CONNECT_SECONDS = 5.0
# Starting worker processes means importing Python there, which can be slow on a network disk.
START_SECONDS = 60.0
# How often it is asked whether a cluster has workers while jobs take their time, and how long it
# may have none: here while one that was killed starts again, elsewhere while others are queued.
LOOK_SECONDS = 5.0
DESERTED_SECONDS = {"here": START_SECONDS, "elsewhere": 900.0}
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

    One job more than there are workers is in flight, so that none waits for the next.
    """
    flight = _Flight(function, scheduler)
    try:
        while True:
            # Every job that a dead worker held is a suspect; which one killed it shows alone.
            if not flight.suspects:
                for job in itertools.islice(jobs, scheduler.workers + 1 - len(flight.running)):
                    flight.add(job)
            elif not flight.running:
                flight.add(*flight.suspects.pop())
            if not flight.running:
                return
            for job, result in flight.landed():
                if on_done is not None:
                    on_done(job, result)
    except (CancelledError, CommClosedError) as error:
        raise _gone(scheduler) from error
    finally:
        flight.end()


class _Flight:
    """The jobs that a cluster has in hand; dask's callbacks say nothing about it, hence futures."""

    def __init__(self, function: Callable[[Any], Any], scheduler: Scheduler) -> None:
        self._function = function
        self._scheduler = scheduler
        self._client = scheduler.client
        self._deserted: float | None = None  # since when there has been no worker
        # Each with the number of workers that have died at it so far.
        self.running: dict[Any, tuple[Any, int]] = {}
        self.suspects: list[tuple[Any, int]] = []

    def add(self, job: Any, deaths: int = 0) -> None:
        """Hand a job over; one at which a worker died must be the only one."""
        future = self._client.submit(self._function, job, pure=False)
        self.running[future] = job, deaths

    def landed(self) -> Iterator[tuple[Any, Any]]:
        """Wait for the next jobs that are done, and yield each with its result."""
        self._wait("FIRST_COMPLETED")
        for future in [one for one in self.running if one.done()]:
            job, deaths = self.running[future]
            try:
                result = future.result(timeout=LOOK_SECONDS)
            except KilledWorker as error:
                alone, deaths = deaths > 0, deaths + error.allowed_failures + 1
                if alone and deaths > RETRIES:
                    raise lost_worker(self._scheduler.name, job, deaths=deaths) from error
                del self.running[future]
                self.suspects.append((job, deaths))
                # The least suspect comes first, so that none is named while others may be done.
                self.suspects.sort(key=itemgetter(1), reverse=True)
            except TimeoutError:
                if future.status == "error":
                    raise  # the job's own
                # The worker died that had the result, and the job is done once more.
                self._check_workers()
            else:
                del self.running[future]
                yield job, result

    def end(self) -> None:
        """Let what runs come to its end, or take it back where nobody is left to run it."""
        try:
            while self.running and self._client.status == "running" and self._client.nthreads():
                with suppress(TimeoutError):
                    wait(list(self.running), timeout=LOOK_SECONDS)
                    return
            self._client.cancel(list(self.running))
        except (OSError, CancelledError):
            return  # the cluster is gone, and with it what ran there

    def _wait(self, what: str) -> None:
        while True:
            try:
                wait(list(self.running), timeout=LOOK_SECONDS, return_when=what)
            except TimeoutError:
                self._check_workers()
            else:
                return

    def _check_workers(self) -> None:
        """End the run where no worker has been left for long: a job would wait for ever."""
        now = time.monotonic()
        if self._client.nthreads():
            self._deserted = None
        elif self._deserted is None:
            self._deserted = now
        else:
            _check_deserted(self._scheduler, now - self._deserted)


def _gone(scheduler: Scheduler) -> UnavailableError:
    return UnavailableError(
        f"scheduler '{scheduler.name}' must stay reachable, but it went away; "
        "run the command again when it is back"
    )


def _check_deserted(scheduler: Scheduler, seconds: float) -> None:
    """End a run that has had no worker for some time; those of elsewhere may still come."""
    is_here = scheduler.name.startswith("local:")
    if seconds < DESERTED_SECONDS["here" if is_here else "elsewhere"]:
        return
    rule = f"scheduler '{scheduler.name}' must have a worker, but "
    if is_here:
        raise ResourceError(
            f"{rule}all were killed and none came back within {seconds:.0f} seconds; use fewer "
            "--workers, or --scheduler threads"
        )
    raise UnavailableError(
        f"{rule}had none for {seconds / 60:.0f} minutes; run the command again when it has one"
    )


def ask_workers(
    scheduler: Scheduler, look: Callable[[], Mapping[str, str]]
) -> dict[str, Mapping[str, str] | BaseException]:
    """Call `look` on every worker; return what each found, or raised, by its address."""
    try:
        found: dict[str, Any] = scheduler.client.run(look, on_error="return")
    except (OSError, CancelledError) as error:
        raise _gone(scheduler) from error
    return found


def start(name: str, workers: int | None) -> Scheduler:
    """Start a cluster `local:N` on this machine: see `schedulers.open_scheduler`."""
    count = name.removeprefix("local:")
    with ExitStack() as resources:
        settings = {
            # Jobs are tried again here, where each can be alone.
            "distributed.scheduler.allowed-failures": 0,
            # A worker that takes longer to start again would be given up without a word.
            "distributed.deploy.lost-worker-timeout": "1 day",
            ONE_HEAP: 1,
            SAFE: 1,
        }
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
