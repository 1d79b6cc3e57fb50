"""Who computes: how the cores of a machine are shared out among the tiles in work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.models import hardware

if TYPE_CHECKING:
    import torch


# Threads that read, write and turn logits into probabilities while one GPU computes: it is so much
# faster than a core that one could not keep it busy. More would only wait for it.
BESIDE_GPU = 8


@dataclass(frozen=True)
class Hands:
    """How the cores of a machine are shared out.

    Parameters
    ----------
    jobs : int or None
        Tiles in work at the same time; None leaves it to the scheduler.
    networks : int
        How many of them may be in a network at once on one machine.
    threads : int or None
        Torch threads for each network; None leaves a worker's own number.
    at_once : int or None
        How many networks may run at once in one process; None for all its jobs.
    """

    jobs: int | None
    networks: int
    threads: int | None
    at_once: int | None

    @property
    def elsewhere(self) -> bool:
        """Whether the tiles go to workers of whom this process knows nothing."""
        return self.threads is None and self.at_once is None


def share_cores(scheduler: str, workers: int | None, *, device: torch.device) -> Hands:
    """Share out the cores of this machine, or leave them to the workers of a cluster.

    Parameters
    ----------
    scheduler : str
        As for `open_scheduler`.
    workers : int, optional
        As the user gave it.
    device : torch.device
        Where networks compute.
    """
    everything = hardware.thread_count(1)
    on_gpu = device.type != "cpu"
    if scheduler == "sync":
        return Hands(1, networks=1, threads=everything, at_once=1)
    if scheduler == "threads" and (workers is None or on_gpu):
        # One network has all cores, while the next tile is read and the last one written.
        jobs = max(2, min(BESIDE_GPU, everything)) if on_gpu else 2
        return Hands(workers or jobs, networks=1, threads=everything, at_once=1)
    if scheduler == "threads" and workers:
        threads = hardware.thread_count(workers)
        return Hands(workers, networks=workers, threads=threads, at_once=None)
    if scheduler == "processes":
        count = workers or everything
        return Hands(count, networks=count, threads=hardware.thread_count(count), at_once=1)
    if scheduler.startswith("local:"):
        count = int(scheduler.removeprefix("local:"))
        threads = hardware.thread_count(count)
        several = count * max(2, min(BESIDE_GPU, threads)) if on_gpu else None
        return Hands(workers or several, networks=count, threads=threads, at_once=1)
    # Whoever starts a worker says how many threads it has.
    return Hands(workers, networks=1, threads=None, at_once=None)
