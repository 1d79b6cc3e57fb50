"""The job of a prediction: one tile from the stored image through the network to stored classes.

A job opens what it names, owns the chunks that it writes, and reads nothing that others write.
What runs jobs, and in which order, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.engine.tileio import read_tile, write_tile
from unetkit.errors import NumbersError
from unetkit.pipeline.tile_predict_constant import computed_once, constant
from unetkit.pipeline.tile_predict_empty import nothing, too_dark
from unetkit.pipeline.tile_predict_network import (
    check_finite,
    tile_logits,
    to_classes,
    to_probabilities,
)
from unetkit.pipeline.tile_predict_worker import load_model, turns, use_threads
from unetkit.storage.chunks import box_checksum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.tiles import Tile
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
    path, sha256 : str
        The model file.
    device, precision : str
        Where and how to compute.
    margin : int
        Pixels that the network takes off each side.
    threads : int or None
        Torch threads for each network; None leaves the worker's own number.
    at_once : int or None
        How many tiles of one process may be in the network at the same time.
    """

    path: str
    sha256: str
    device: str
    precision: str
    margin: int
    threads: int | None
    at_once: int | None


def network_call(plan: Plan, path: str, *, device: str, hands: Hands) -> NetworkCall:
    """Say how workers run the network of a plan."""
    return NetworkCall(
        # A worker may have another working folder.
        path=str(Path(path).absolute()),
        sha256=plan.model.sha256,
        device=device,
        precision=plan.precision,
        margin=plan.model.header.contract.margin,
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
    normalization : Normalization
        Of the image.
    threshold : float
        As for `to_classes`.
    positive : int
        As for `to_classes`.
    side : int
        Size of a tile, in pixels.
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
    normalization: Normalization
    threshold: float
    positive: int
    side: int
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
        return f"{self.task.name}/{self.plane}/{self.tile.index}"


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
    """

    checksum: int
    filled: int
    constant: bool = False
    left_out: bool = False


def predict_tile(job: TileJob) -> TileDone:
    """Read a tile with its context, run the network, write probabilities and classes.

    Raises
    ------
    NumbersError
        If the image has NaN or Inf there and they are not to be filled, or the network's output
        has.
    """
    task, call = job.task, job.task.call
    use_threads(call.threads)
    if task.mask is not None and not task.mask.covers(job.plane, job.tile):
        return _left_out(job)
    raw = read_tile(task.data, job.plane, job.tile)
    if too_dark(raw, job.tile, task.skip_below):
        return _left_out(job)
    filled = _count_nonfinite(raw, job)
    block = task.normalization.apply(raw, fill=task.nonfinite == "fill")
    del raw  # the network needs the room
    values = constant(block)
    if values is None:
        found, copied = _compute(task, block, job.tile), False
    else:
        found, copied = _copy(task, block, job.tile, values)
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


def _compute(task: ImageTask, block: NDArray[np.float32], tile: Tile) -> Result:
    """Run the network on a read box; return what is stored of its write box."""
    call = task.call
    module = load_model(call.path, device=call.device, sha256=call.sha256).module
    with turns(call.at_once):
        logits = tile_logits(module, block, tile, margin=call.margin, precision=call.precision)
    check_finite(logits, tile)
    probabilities = to_probabilities(logits)
    classes = to_classes(probabilities, threshold=task.threshold, positive=task.positive)
    return _stored(probabilities, task.probabilities), classes


def _copy(
    task: ImageTask, block: NDArray[np.float32], tile: Tile, values: tuple[float, ...]
) -> tuple[Result, bool]:
    """Return what is stored of a tile of one value, and whether it was computed for another."""
    # The write box may end at the edge of the image; a whole tile's result serves all.
    whole = replace(tile, y1=tile.y0 + task.side, x1=tile.x0 + task.side)
    overlap = tile.y0 - tile.read_y0
    settings = (task.call, task.threshold, task.positive, task.probabilities.dtype)
    key = (settings, task.side, overlap, block.shape, values)
    (probabilities, classes), known = computed_once(key, partial(_compute, task, block, whole))
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


def _stored(probabilities: NDArray[np.float32], array: PlaneArray) -> NDArray[Any]:
    if array.dtype == np.uint8:
        return np.rint(probabilities * 255).astype(np.uint8)
    return probabilities
