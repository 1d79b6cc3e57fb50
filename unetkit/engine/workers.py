"""Whether the workers of a cluster are like this process; it does not know what is to be alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from unetkit.errors import SurroundingsError, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unetkit.engine.schedulers import Scheduler

# So many differences are named; the first is mostly the cause of the others.
NAMED = 3


def compare_workers(scheduler: Scheduler, look: Callable[[], Mapping[str, str]]) -> None:
    """Make sure that every worker of a cluster finds what this process finds.

    Workers of this machine's own pools share everything with this process and are not asked.

    Parameters
    ----------
    scheduler : Scheduler
        An open one.
    look : callable
        Takes nothing and returns what there is to be alike, in words; picklable.

    Raises
    ------
    SurroundingsError
        Naming the first worker that differs, and in what.
    TryAgainError
        If the cluster went away.
    """
    if scheduler.kind != "cluster":
        return
    here = look()
    try:
        found = scheduler.client.run(look, on_error="return")
    except (OSError, FutureCancelledError, CommClosedError) as error:
        raise TryAgainError(
            f"scheduler '{scheduler.name}' must stay reachable, but it went away; "
            "run the command again when it is back"
        ) from error
    for address in sorted(found):
        there = found[address]
        if isinstance(there, BaseException):
            raise SurroundingsError(
                f"worker {address} must be able to do what this process does, got "
                f"{type(there).__name__}: {there!s:.200}; install the same versions there"
            ) from there
        differences = [
            f"{name} {there.get(name, 'unknown')} instead of {value}"
            for name, value in here.items()
            if there.get(name) != value
        ]
        if differences:
            raise SurroundingsError(
                f"worker {address} must find what is found here, got "
                f"{', '.join(differences[:NAMED])}; install the same versions everywhere, and "
                "give paths that all machines share"
            )
