"""What a scheduler is, and the processes of this machine behind one; it does not know clusters."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import ResourceError

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from types import TracebackType

# How often a job is given to another worker when one died at it.
RETRIES = 2
# Children that have it do not import what lies in the current folder.
SAFE_PATH = "PYTHONSAFEPATH"


@dataclass
class Scheduler:
    """An open place for jobs; close it, or use it in a `with` statement."""

    name: str  # as the user gave it
    # The first three are dask's own schedulers of this machine.
    kind: Literal["threads", "sync", "processes", "cluster"]
    # How many jobs run at the same time; for a cluster as many as had joined when it was opened.
    workers: int
    pool: Executor | None = None  # what "threads" and "processes" run on
    client: Any = None  # the connection to a cluster
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def renew(self) -> None:
        """Start new processes in place of those that a death has made useless."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = process_pool(self.workers)

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


def worker_number() -> int | None:
    """Return which of this machine's workers this process is, from 0 on; None if it is none.

    It tells the processes of `processes` and `local:N` apart, so that each can take a part of the
    machine for itself.
    """
    if _CHILD:
        return _CHILD[0]
    name = getattr(_cluster_worker(), "name", None)
    # Elsewhere a worker is called by its address, or as whoever started it pleased.
    return name if isinstance(name, int) else None


def in_cluster() -> bool:
    """Tell whether this is a worker of a cluster."""
    return _cluster_worker() is not None


def _cluster_worker() -> Any:
    # A worker has loaded what makes it one; this room does without.
    distributed: Any = sys.modules.get("distributed")
    try:
        return distributed.get_worker() if distributed else None
    except ValueError:
        return None


# The number of this process where it is a child.
_CHILD: list[int] = []


def process_pool(count: int) -> ProcessPoolExecutor:
    """Return a pool of `count` processes that end with this one."""
    # A forked child of a process with threads may hang; a spawned one starts clean.
    context = get_context("spawn")
    # Its interpreter would look into the current folder before all others for what it imports.
    os.environ.setdefault(SAFE_PATH, "1")
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


def lost_worker(name: str, job: object, *, deaths: int = RETRIES + 1) -> ResourceError:
    """Return the error for a job at which one worker after the other died."""
    return ResourceError(
        f"every worker of scheduler '{name}' must stay alive, but {deaths} in a row were "
        f"killed at {job!s:.200}, perhaps for want of memory; use fewer --workers or a smaller "
        "--tile"
    )
