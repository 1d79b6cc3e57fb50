"""The job of a prediction: one tile from the stored image through the network to stored classes.

A job opens what it names, owns the chunks that it writes, and reads nothing that others write.
What runs jobs, and in which order, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.engine.tileio import read_tile, write_tile
from unetkit.errors import NumbersError
from unetkit.pipeline.tile_predict_constant import computed_once, constant
from unetkit.pipeline.tile_predict_empty import nothing, too_dark
from unetkit.pipeline.tile_predict_network import enough_memory, to_classes
from unetkit.pipeline.tile_predict_passes import Looks
from unetkit.pipeline.tile_predict_worker import load_model, turns, use_threads
from unetkit.storage.chunks import box_checksum
from unetkit.storage.patience import counted_tries

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.tiles import Tile
    from unetkit.pipeline.tile_predict_average import Averaging
    from unetkit.pipeline.tile_predict_constant import Result
    from unetkit.pipeline.tile_predict_empty import Mask
    from unetkit.pipeline.tile_predict_hands import Hands
    from unetkit.pipeline.tile_predict_plan import Plan
    from unetkit.storage.planes import PlaneArray


@dataclass(frozen=True)
class NetworkCall:
    """How a worker gets at the network and runs it.

    Parameters
    ----------
    averaging : Averaging
        The networks, and where they look.
    classes : int
        How many they tell apart.
    device, precision : str
        Where and how to compute.
    threads : int or None
        Torch threads for each network; None leaves the worker's own number.
    at_once : int or None
        How many tiles of one process may be in the network at the same time.
    """

    averaging: Averaging
    classes: int
    device: str
    precision: str
    threads: int | None
    at_once: int | None

    def looks(self) -> Looks:
        """Return the networks of this process, ready to look at tiles."""
        members = self.averaging.members
        fused = self.precision != "exact"
        load = partial(load_model, device=self.device, keep=len(members), fused=fused)
        modules = [load(member.path, sha256=member.sha256).module for member in members]
        return Looks(
            self.averaging,
            modules,
            classes=self.classes,
            precision=self.precision,
            turn=turns(self.at_once),
        )


def network_call(plan: Plan, *, device: str, hands: Hands) -> NetworkCall:
    """Say how workers run the networks of a plan."""
    return NetworkCall(
        averaging=plan.averaging,
        classes=len(plan.model.header.class_names),
        device=device,
        precision=plan.precision,
        threads=hands.threads,
        at_once=hands.at_once,
    )


@dataclass(frozen=True)
class ImageTask:
    """What all tiles of an image share.

    Parameters
    ----------
    name : str
        Of the sample.
    call : NetworkCall
        The network.
    data : PlaneArray
        The image.
    probabilities, classes : PlaneArray
        What is written.
    normalizations : tuple of Normalization
        Of the image, one for each network.
    threshold : float
        As for `to_classes`.
    positive : int
        As for `to_classes`.
    nonfinite : {"error", "fill"}
        What to do about NaN and Inf in the image.
    skip_below : float, optional
        Tiles that are darker everywhere are left out.
    mask : Mask, optional
        Tiles that it does not cover are left out.
    """

    name: str
    call: NetworkCall
    data: PlaneArray
    probabilities: PlaneArray
    classes: PlaneArray
    normalizations: tuple[Normalization, ...]
    threshold: float
    positive: int
    nonfinite: Literal["error", "fill"]
    skip_below: float | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class TileJob:
    """One tile of one plane."""

    task: ImageTask
    plane: int
    tile: Tile

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
    """What is known of a finished tile.

    Parameters
    ----------
    checksum : int
        Of the chunks as they lie on disk.
    filled : int
        Values of the image that were NaN or Inf and read as 0.
    constant : bool
        Whether it has one value, and was copied from another tile of that value.
    left_out : bool
        Whether it was left out as empty.
    retries : int
        How often a disk or a network refused for a moment.
    """

    checksum: int
    filled: int
    constant: bool = False
    left_out: bool = False
    retries: int = 0


def predict_tile(job: TileJob) -> TileDone:
    """Read a tile with its context, run the network, write probabilities and classes.

    Raises
    ------
    NumbersError
        If the image has NaN or Inf there and they are not to be filled, or the network's output
        has.
    SurroundingsError
        If there is too little memory for the tile.
    """
    with counted_tries() as tries, enough_memory(job.tile, job.task.call.device):
        done = _predict_tile(job)
    return replace(done, retries=tries[0])


def _predict_tile(job: TileJob) -> TileDone:
    """Do a tile: see `predict_tile`."""
    task, call = job.task, job.task.call
    use_threads(call.threads)
    if task.mask is not None and not task.mask.covers(job.plane, job.tile):
        return _left_out(job)
    raw = read_tile(task.data, job.plane, job.tile)
    if too_dark(raw, job.tile, task.skip_below):
        return _left_out(job)
    filled = _count_nonfinite(raw, job)
    blocks = normalized(task, raw)
    del raw  # the network needs the room
    values = [constant(block) for block in blocks]
    if None in values:
        found, copied = _compute(task, blocks, job.tile), False
    else:
        found, copied = _copy(task, blocks, job.tile, values=tuple(values))
    _write(job, found)
    return TileDone(tile_checksum(job), filled, copied)


def _left_out(job: TileJob) -> TileDone:
    """Store background without a look at the network."""
    task = job.task
    kinds = (task.probabilities.dtype, task.classes.dtype)
    # Objects of the target `boundary` are what is inside, its first class.
    background = 1 - task.positive if task.positive == 0 else 0
    classes = task.probabilities.channel_count
    _write(job, nothing(job.tile, classes=classes, background=background, kinds=kinds))
    return TileDone(tile_checksum(job), 0, left_out=True)


def _write(job: TileJob, found: Result) -> None:
    write_tile(job.task.probabilities, job.plane, job.tile, found[0])
    write_tile(job.task.classes, job.plane, job.tile, found[1])


def normalized(task: ImageTask, raw: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Return a read box as each network is to see it; one array for those that see it alike."""
    fill = task.nonfinite == "fill"
    found: dict[Normalization, NDArray[np.float32]] = {}
    for normalization in task.normalizations:
        if normalization not in found:
            found[normalization] = normalization.apply(raw, fill=fill)
    return [found[normalization] for normalization in task.normalizations]


def _compute(task: ImageTask, blocks: Sequence[NDArray[np.float32]], tile: Tile) -> Result:
    """Run the networks on a read box; return what is stored of its write box."""
    shape = (task.data.height, task.data.width)
    probabilities = task.call.looks().probabilities(blocks, tile, shape=shape)
    classes = to_classes(probabilities, threshold=task.threshold, positive=task.positive)
    return stored(probabilities, task.probabilities.dtype), classes


def _copy(
    task: ImageTask, blocks: Sequence[NDArray[np.float32]], tile: Tile, *, values: Hashable
) -> tuple[Result, bool]:
    """Return what is stored of a tile of one value, and whether it was computed for another."""
    averaging = task.call.averaging
    whole, windows = tile, None
    if averaging.merge == "crop":
        # The write box may end at the edge of the image; a whole tile's result serves all.
        whole = replace(tile, y1=tile.y0 + averaging.tile, x1=tile.x0 + averaging.tile)
    else:
        # At an edge of the image there are fewer windows.
        windows = averaging.layout(tile, shape=(task.data.height, task.data.width))
    key = (
        (task.call, task.threshold, task.positive, task.probabilities.dtype),
        (windows, blocks[0].shape, values),
    )
    (probabilities, classes), known = computed_once(key, partial(_compute, task, blocks, whole))
    high, wide = tile.y1 - tile.y0, tile.x1 - tile.x0
    return (probabilities[:, :high, :wide], classes[:high, :wide]), known


def tile_checksum(job: TileJob) -> int:
    """Checksum what lies on disk of a tile, to tell later whether it still does."""
    tile = job.tile
    box = {"y0": tile.y0, "y1": tile.y1, "x0": tile.x0, "x1": tile.x1}
    first = box_checksum(job.task.probabilities, job.plane, **box)
    return box_checksum(job.task.classes, job.plane, **box, start=first)


def _count_nonfinite(raw: NDArray[Any], job: TileJob) -> int:
    if raw.dtype.kind != "f":
        return 0
    rows, columns = job.tile.crop()
    bad = ~np.isfinite(raw)
    if job.task.nonfinite == "error" and bad.any():
        raise NumbersError(
            f"{job.task.data.url} must hold finite numbers, got {int(bad.sum())} NaN or Inf around "
            f"row {job.tile.y0}, column {job.tile.x0}; repair the image, or count them as 0 with "
            "--nonfinite fill"
        )
    # The context belongs to the neighbours' count.
    return int(bad[:, rows, columns].sum())


def stored(probabilities: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return probabilities as an array of `dtype` holds them; uint8 counts 255ths."""
    return np.rint(probabilities * 255).astype(dtype) if dtype == np.uint8 else probabilities
