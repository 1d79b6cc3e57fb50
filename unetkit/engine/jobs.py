"""Run many small jobs as dask tasks, a bounded number at a time.

A job is a small picklable record, and `function` a module-level function of one job. Only jobs
that are about to run exist at all, so a slide of a million tiles needs no more memory than one of
a hundred. Nothing is shared between jobs: each opens what it names.
"""

from __future__ import annotations

import itertools
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from unetkit.engine.pools import RETRIES, Scheduler, lost_worker
from unetkit.engine.schedulers import open_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

J = TypeVar("J")
R = TypeVar("R")

# Jobs a worker that are handed to a local scheduler in one go. Between two goes workers wait for
# the slowest of them, so a go has to be long; records are small, so it may be.
JOBS_PER_WORKER = 64


def run_jobs(
    function: Callable[[J], R],
    jobs: Iterable[J],
    *,
    scheduler: str | Scheduler | None = "threads",
    workers: int | None = None,
    on_done: Callable[[J, R], None] | None = None,
) -> None:
    """Run `function` on every job, drawn as it is needed.

    Without a `scheduler` they run one after the other in the calling thread, as parts of a job do.

    `scheduler` is a name as for `open_scheduler`, or one that is already open; it stays so unless
    the run fails. `on_done` is called with a job and its result in the calling thread as each
    finishes. What it or a job raises first ends the run, as it was raised: jobs that are running by
    then come to their end before this function does; no other one is started.
    """
    if scheduler is None:
        for job in jobs:
            result = function(job)
            if on_done is not None:
                on_done(job, result)
        return None
    if not isinstance(scheduler, Scheduler):
        with open_scheduler(scheduler, workers) as opened:
            return run_jobs(function, jobs, scheduler=opened, on_done=on_done)
    try:
        return _runner(scheduler)(function, iter(jobs), scheduler, on_done=on_done)
    except BaseException:
        # Nothing may still be writing when the caller clears up.
        scheduler.close()
        raise


def _runner(scheduler: Scheduler) -> Callable[..., None]:
    if scheduler.kind != "cluster":
        return _run_locally
    # Loaded where it is used: it takes as long as all the rest of this room.
    from unetkit.engine import clusters

    return clusters.run_jobs


def _run_locally(
    function: Callable[[J], R],
    jobs: Iterator[J],
    scheduler: Scheduler,
    *,
    on_done: Callable[[J, R], None] | None,
) -> None:
    # Of tasks alike dask takes the highest key first; counting down keeps the order of the jobs.
    keys = (f"job-{number}" for number in itertools.count(10**12 - 1, -1))
    wave_size = JOBS_PER_WORKER * scheduler.workers
    while wave := dict(zip(keys, itertools.islice(jobs, wave_size), strict=False)):
        if len(wave) == 1 and scheduler.kind != "processes":
            (job,) = wave.values()
            _run_one(function, job, scheduler, on_done=on_done)
            continue
        while wave:
            try:
                _compute(function, wave, scheduler, on_done=on_done)
            except BrokenProcessPool:
                scheduler.renew()
                # One of those that were running killed it; which one shows when each is alone.
                for key in list(wave)[: scheduler.workers]:
                    _compute_alone(function, {key: wave.pop(key)}, scheduler, on_done=on_done)


def _run_one(
    function: Callable[[J], R],
    job: J,
    scheduler: Scheduler,
    *,
    on_done: Callable[[J, R], None] | None,
) -> None:
    """Run a job that has no other beside it, which takes no scheduler; loading Dask's would."""
    pool = scheduler.pool
    result = function(job) if pool is None else pool.submit(function, job).result()
    if on_done is not None:
        on_done(job, result)


def _compute(
    function: Callable[[J], R],
    wave: dict[str, J],
    scheduler: Scheduler,
    *,
    on_done: Callable[[J, R], None] | None,
) -> None:
    """Run a wave; what is done is taken out of it."""
    import dask
    from dask import multiprocessing, threaded
    from dask.callbacks import Callback
    from dask.local import get_sync

    def hand_over(key: str, result: Any, dsk: Any, state: dict[str, Any], worker: Any) -> None:
        job = wave.pop(key)
        if on_done is not None:
            on_done(job, result)
        # Dask would keep every result until the last task of the graph is done.
        state["cache"][key] = None

    # Dask's schedulers of this machine. By their names it would look for a cluster first, and load
    # what that takes.
    get = {"threads": threaded.get, "sync": get_sync, "processes": multiprocessing.get}
    # A job that is an argument would be searched for dask collections and rebuilt.
    tasks = [
        dask.delayed(partial(function, job), pure=False, traverse=False)(dask_key_name=key)
        for key, job in wave.items()
    ]
    with Callback(posttask=hand_over):
        # Dask sends six tasks at a time to a process unless told otherwise.
        dask.compute(*tasks, scheduler=get[scheduler.kind], pool=scheduler.pool, chunksize=1)


def _compute_alone(
    function: Callable[[J], R],
    wave: dict[str, J],
    scheduler: Scheduler,
    *,
    on_done: Callable[[J, R], None] | None,
) -> None:
    """Run a job that may have killed its process, with no other job beside it."""
    (job,) = wave.values()
    for _ in range(RETRIES):
        try:
            _compute(function, wave, scheduler, on_done=on_done)
        except BrokenProcessPool:
            scheduler.renew()
        else:
            return
    raise lost_worker(scheduler.name, job)
