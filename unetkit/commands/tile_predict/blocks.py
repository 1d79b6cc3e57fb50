"""The job of a prediction: one tile from the stored image through the network to stored classes.

A job opens what it names, owns the chunks that it writes, and reads nothing that others write.
What runs jobs, and in which order, is not known here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.arrays.boxes import read_tile
from unetkit.arrays.instances import object_class
from unetkit.arrays.uncertainty import stored_uncertainty
from unetkit.commands.tile_predict.averaging import Predictor, ReadBox
from unetkit.commands.tile_predict.ensemble import compute_slots, load_model, use_threads
from unetkit.commands.tile_predict.skipping import (
    CONSTANT_TILES,
    background_result,
    constant_values,
    is_background,
)
from unetkit.engine.block_io import write_tile
from unetkit.errors import NonFiniteError, OutOfMemoryError
from unetkit.models import hardware
from unetkit.models.inference import enough_memory, stored_and_classes
from unetkit.storage.chunks import box_checksum
from unetkit.storage.retry import count_attempts

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.averaging import Averaging
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.commands.tile_predict.resources import Parallelism
    from unetkit.commands.tile_predict.skipping import Mask, Result
    from unetkit.geometry.tiles import Tile
    from unetkit.storage.planes import PlaneArray


@dataclass(frozen=True)
class InferenceConfig:
    """How a worker gets at the network and runs it."""

    averaging: Averaging
    classes: int
    device: str
    precision: str
    threads: int | None  # torch threads for each network; None leaves the worker's own number
    concurrency: int | None  # how many jobs of one process may be in the network at the same time
    batch: int = 1  # tiles, or windows of a block that is blended, that it sees at once

    @property
    def max_batch(self) -> int:
        """How many tiles are one job; a block that is blended has a batch in itself."""
        return self.batch if self.averaging.merge == "crop" else 1

    def predictor(self, batch: int = 1) -> Predictor:
        """Return the networks of this process, ready to look at so much at once."""
        members = self.averaging.members
        fused = self.precision != "exact"
        load = partial(load_model, device=self.device, keep=len(members), fused=fused)
        modules = [load(member.path, sha256=member.sha256).module for member in members]
        return Predictor(
            self.averaging,
            modules,
            classes=self.classes,
            precision=self.precision,
            compute_slot=compute_slots(self.concurrency),
            windows=batch,
        )


def inference_config(plan: Plan, *, device: str, parallelism: Parallelism) -> InferenceConfig:
    """Say how workers run the networks of a plan."""
    return InferenceConfig(
        averaging=plan.averaging,
        classes=len(plan.model.header.class_names),
        device=device,
        precision=plan.precision,
        threads=parallelism.threads,
        concurrency=parallelism.concurrency,
        batch=plan.batch,
    )


class BatchLimit:
    """How much of the planned batch the memory of this process has room for."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._lock = threading.Lock()

    def halve(self, tried: int) -> None:
        """Take half of what was tried in vain from now on; a thread beside may have done so."""
        with self._lock:
            self.batch = max(1, min(self.batch, tried // 2))


@lru_cache(maxsize=8)
def batch_limit(inference: InferenceConfig) -> BatchLimit:
    """Return the room that this process has for a call, as earlier jobs left it."""
    return BatchLimit(inference.batch)


@dataclass(frozen=True)
class ImageTask:
    """What all tiles of an image share."""

    name: str  # of the sample
    inference: InferenceConfig
    data: PlaneArray  # is read
    probabilities: PlaneArray  # is written, as are the classes
    classes: PlaneArray
    normalizations: tuple[Normalization, ...]  # one for each network
    threshold: float  # as for `to_classes`
    target: str  # likewise
    nonfinite: Literal["error", "fill"]  # what to do about NaN and Inf in the image
    skip_below: float | None = None  # tiles that are darker everywhere are left out
    mask: Mask | None = None  # tiles that it does not cover are left out
    uncertainty: PlaneArray | None = None  # is written too, where it is wanted

    @property
    def arrays(self) -> tuple[PlaneArray, ...]:
        """All that is written of a tile."""
        both = self.probabilities, self.classes
        return both if self.uncertainty is None else (*both, self.uncertainty)


@dataclass(frozen=True)
class TileJob:
    """One tile of one plane."""

    task: ImageTask
    plane: int
    tile: Tile
    # Whether an earlier run stored it, so that it is only looked at with others of its batch.
    there: bool = False

    def __str__(self) -> str:
        return f"tile {self.key} at row {self.tile.y0}, column {self.tile.x0}"

    @property
    def key(self) -> str:
        """What the journal knows the tile by."""
        return job_key(self.task.name, self.plane, self.tile)


def job_key(sample: str, plane: int, tile: Tile) -> str:
    """Return what the journal knows a tile by."""
    return f"{sample}/{plane}/{tile.index}"


@dataclass(frozen=True)
class TileDone:
    """What is known of a finished tile."""

    checksum: int  # of the chunks as they lie on disk
    filled: int  # values of the image that were NaN or Inf and read as 0
    constant: bool = False  # whether it was copied from another tile of the same single value
    left_out: bool = False  # whether it was left out as empty


@dataclass(frozen=True)
class _Read:
    """A tile as each network is to see it, with the value of each block that has only one."""

    job: TileJob
    blocks: list[NDArray[np.float32]]
    filled: int
    values: tuple[Hashable, ...]

    @property
    def varied(self) -> bool:
        """Whether a network has to look at it."""
        return None in self.values


def predict_tiles(jobs: Sequence[TileJob], *, batch: int = 1) -> list[TileDone | None]:
    """Read tiles with their context, run the network, write probabilities and classes.

    The network sees at once those of them that have to be computed, whether they are there already
    or not, since other neighbours in a batch may round otherwise; of a tile that is blended, it
    sees `batch` windows at once. Of tiles that were there already, None is returned.
    """
    use_threads(jobs[0].task.inference.threads)
    tiles = [_read(job) for job in jobs]
    varied = [one for one in tiles if isinstance(one, _Read) and one.varied]
    computed = _compute(varied, batch=batch)
    done: list[TileDone | None] = []
    for one in tiles:
        if not isinstance(one, _Read):
            done.append(one)
            continue
        found, copied = (next(computed), False) if one.varied else _copy(one, batch=batch)
        done.append(None if one.job.there else _store(one, found, copied=copied))
    return done


def _read(job: TileJob) -> _Read | TileDone | None:
    """Read a tile, unless nobody has to look at it; what is empty is stored so at once."""
    task = job.task
    if task.mask is not None and not task.mask.covers(job.plane, job.tile):
        return None if job.there else _left_out(job)
    raw = read_tile(task.data, job.plane, job.tile)
    if is_background(raw, job.tile, task.skip_below):
        return None if job.there else _left_out(job)
    filled = _count_nonfinite(raw, job)
    blocks = normalized(task, raw)
    values = tuple(constant_values(block) for block in blocks)
    # Tiles of one value are in no batch.
    return None if job.there and None not in values else _Read(job, blocks, filled, values)


def _store(one: _Read, found: Result, *, copied: bool) -> TileDone:
    mask = one.job.task.mask
    if mask is not None:
        # What is beyond must not depend on where tiles end.
        near = mask.near(one.job.plane, one.job.tile)
        if not near.all():
            empty = _background(one.job)
            found = tuple(np.where(near, *pair) for pair in zip(found, empty, strict=True))
    _write(one.job, found)
    return TileDone(tile_checksum(one.job), one.filled, copied)


def _left_out(job: TileJob) -> TileDone:
    """Store background without a look at the network."""
    _write(job, _background(job))
    return TileDone(tile_checksum(job), 0, left_out=True)


def _background(job: TileJob) -> Result:
    task = job.task
    kinds = tuple(array.dtype for array in task.arrays)
    # Objects of the target `boundary` are what is inside, its first class.
    background = 0 if object_class(task.target) else 1
    classes = task.probabilities.channel_count
    return background_result(job.tile, classes=classes, background=background, kinds=kinds)


def _write(job: TileJob, found: Result) -> None:
    for array, values in zip(job.task.arrays, found, strict=True):
        write_tile(array, job.plane, job.tile, values)


def normalized(task: ImageTask, raw: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Return a read box as each network is to see it; one array for those that see it alike."""
    fill = task.nonfinite == "fill"
    found: dict[Normalization, NDArray[np.float32]] = {}
    for normalization in task.normalizations:
        if normalization not in found:
            found[normalization] = normalization.apply(raw, replace_nonfinite=fill)
    return [found[normalization] for normalization in task.normalizations]


def _compute(varied: Sequence[_Read], *, batch: int) -> Iterator[Result]:
    """Run the networks on read boxes; yield what is stored of the write box of each."""
    if not varied:
        return
    seen = []
    for one in varied:
        data = one.job.task.data
        seen.append(ReadBox(one.blocks, one.job.tile, (data.height, data.width)))
    found = varied[0].job.task.inference.predictor(batch).probabilities(seen)
    for one in varied:
        # What is not needed any more gives way to what writing takes.
        yield _as_stored(one.job.task, found.pop(0))


def _as_stored(task: ImageTask, seen: NDArray[np.float32]) -> Result:
    found = stored_and_classes(
        seen, task.probabilities.dtype, threshold=task.threshold, target=task.target
    )
    return found if task.uncertainty is None else (*found, stored_uncertainty(seen))


def _copy(one: _Read, *, batch: int) -> tuple[Result, bool]:
    """Return what is stored of a tile of one value, and whether it was computed for another."""
    task, tile = one.job.task, one.job.tile
    averaging = task.inference.averaging
    whole, windows = tile, None
    if averaging.merge == "crop":
        # The write box may end at the edge of the image; a whole tile's result serves all.
        whole = replace(tile, y1=tile.y0 + averaging.tile, x1=tile.x0 + averaging.tile)
    else:
        # At an edge of the image there are fewer windows.
        windows = averaging.layout(tile, shape=(task.data.height, task.data.width))
    key = (
        (task.inference, task.threshold, task.target, task.probabilities.dtype),
        task.uncertainty is not None,
        (windows, one.blocks[0].shape, one.values),
    )
    alone = replace(one, job=replace(one.job, tile=whole))
    found, known = CONSTANT_TILES.result(key, lambda: next(_compute([alone], batch=batch)))
    high, wide = tile.y1 - tile.y0, tile.x1 - tile.x0
    return tuple(values[..., :high, :wide] for values in found), known


def tile_checksum(job: TileJob) -> int:
    """Checksum what lies on disk of a tile, to tell later whether it still does; 0 where none."""
    if not job.task.classes.is_stored:
        return 0
    tile = job.tile
    box = {"y0": tile.y0, "y1": tile.y1, "x0": tile.x0, "x1": tile.x1}
    found = 0
    for array in job.task.arrays:
        found = box_checksum(array, job.plane, **box, start=found)
    return found


def _count_nonfinite(raw: NDArray[Any], job: TileJob) -> int:
    if raw.dtype.kind != "f":
        return 0
    rows, columns = job.tile.crop()
    bad = ~np.isfinite(raw)
    if job.task.nonfinite == "error" and bad.any():
        raise NonFiniteError(
            f"{job.task.data.url} must hold finite numbers, got {int(bad.sum())} NaN or Inf around "
            f"row {job.tile.y0}, column {job.tile.x0}; repair the image, or count them as 0 with "
            "--nonfinite fill"
        )
    # The context belongs to the neighbours' count.
    return int(bad[:, rows, columns].sum())


@dataclass(frozen=True)
class TileBatch:
    """Tiles that are one job; those of several planes and samples may be together."""

    jobs: tuple[TileJob, ...]

    def __str__(self) -> str:
        first, last = self.jobs[0], self.jobs[-1]
        return str(first) if first is last else f"tiles {first.key} to {last.key}"


@dataclass(frozen=True)
class BatchDone:
    """What is known of a finished batch."""

    tiles: tuple[TileDone | None, ...]  # as `predict_tiles` returns them
    batch: int  # how much the memory of its process has room for, at most what was planned
    retries: int  # how often a disk or a network refused for a moment


def batches(jobs: Iterable[TileJob], size: int) -> Iterator[tuple[TileJob, ...]]:
    """Yield jobs `size` at a time, in their order.

    >>> list(batches("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    left = iter(jobs)
    while some := tuple(islice(left, size)):
        yield some


def predict_batch(batch: TileBatch) -> BatchDone:
    """Predict the tiles of a batch; where memory runs out, half as many at once, and again."""
    inference = batch.jobs[0].task.inference
    room = batch_limit(inference)
    done: list[TileDone | None] = []
    with count_attempts() as tries:
        while len(done) < len(batch.jobs):
            now = room.batch
            found = _tried(batch.jobs[len(done) : len(done) + now], batch=now)
            if found is None:
                room.halve(now)
                hardware.free_unused(inference.device)
            else:
                done += found
    return BatchDone(tuple(done), room.batch, tries[0])


def _tried(jobs: tuple[TileJob, ...], *, batch: int) -> list[TileDone | None] | None:
    """Predict tiles at once; None where memory is too small for them, but less may fit.

    What the attempt took is free once this has returned, and not while its error is handled.
    """
    try:
        with enough_memory(jobs[0].tile, jobs[0].task.inference.device):
            return predict_tiles(jobs, batch=batch)
    except OutOfMemoryError:
        if batch == 1:
            raise
        return None
