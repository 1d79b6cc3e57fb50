"""Several tiles in one job, so that a network sees them at once; fewer where memory falls short.

Kernels may round otherwise for a batch of another size. So which tiles are together depends on the
plan alone, never on what is done already or on who computes; only where memory runs out they are
fewer than planned, which changes nothing with precision `exact` on a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from unetkit.errors import ShortMemoryError
from unetkit.models import hardware
from unetkit.pipeline.tile_predict_call import room_for
from unetkit.pipeline.tile_predict_network import enough_memory
from unetkit.pipeline.tile_predict_tile import predict_tiles
from unetkit.storage.patience import counted_tries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unetkit.pipeline.tile_predict_tile import TileDone, TileJob


@dataclass(frozen=True)
class TileBatch:
    """Tiles that are one job; those of several planes and samples may be together."""

    jobs: tuple[TileJob, ...]

    def __str__(self) -> str:
        first, last = self.jobs[0], self.jobs[-1]
        return str(first) if first is last else f"tiles {first.key} to {last.key}"


@dataclass(frozen=True)
class BatchDone:
    """What is known of a finished batch.

    Parameters
    ----------
    tiles : tuple of TileDone or None
        As `predict_tiles` returns them.
    batch : int
        How much the memory of its process has room for, at most what was planned.
    retries : int
        How often a disk or a network refused for a moment.
    """

    tiles: tuple[TileDone | None, ...]
    batch: int
    retries: int


def batches(jobs: Iterable[TileJob], size: int) -> Iterator[tuple[TileJob, ...]]:
    """Yield jobs `size` at a time, in their order.

    >>> list(batches("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    left = iter(jobs)
    while some := tuple(islice(left, size)):
        yield some


def predict_batch(batch: TileBatch) -> BatchDone:
    """Predict the tiles of a batch; where memory runs out, half as many at once, and again.

    Raises
    ------
    ShortMemoryError
        If there is too little memory for a single one.
    Exception
        What `predict_tiles` raises.
    """
    call = batch.jobs[0].task.call
    room = room_for(call)
    done: list[TileDone | None] = []
    with counted_tries() as tries:
        while len(done) < len(batch.jobs):
            now = room.batch
            found = _tried(batch.jobs[len(done) : len(done) + now], batch=now)
            if found is None:
                room.halve(now)
                hardware.free_unused(call.device)
            else:
                done += found
    return BatchDone(tuple(done), room.batch, tries[0])


def _tried(jobs: tuple[TileJob, ...], *, batch: int) -> list[TileDone | None] | None:
    """Predict tiles at once; None where memory is too small for them, but less may fit.

    What the attempt took is free once this has returned, and not while its error is handled.
    """
    try:
        with enough_memory(jobs[0].tile, jobs[0].task.call.device):
            return predict_tiles(jobs, batch=batch)
    except ShortMemoryError:
        if batch == 1:
            raise
        return None
