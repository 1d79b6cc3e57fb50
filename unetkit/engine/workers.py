"""Whether the workers of a cluster are like this process; it does not know what is to be alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetkit.errors import SurroundingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unetkit.engine.pools import Scheduler

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
    # Loaded where it is used, as `schedulers` does.
    from unetkit.engine import clusters

    found = clusters.ask_workers(scheduler, look)
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
