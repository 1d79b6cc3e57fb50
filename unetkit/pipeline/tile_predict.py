"""Predict images of any size, tile by tile, without a seam."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from unetkit.engine.schedulers import open_scheduler
from unetkit.engine.signals import stoppable
from unetkit.engine.workers import compare_workers
from unetkit.models import hardware
from unetkit.pipeline.likeness import check_likeness
from unetkit.pipeline.tile_predict_alike import look_at
from unetkit.pipeline.tile_predict_call import network_call
from unetkit.pipeline.tile_predict_empty import open_mask
from unetkit.pipeline.tile_predict_ensemble import find_models, load_ensemble, read_header
from unetkit.pipeline.tile_predict_hands import share_cores
from unetkit.pipeline.tile_predict_input import absence
from unetkit.pipeline.tile_predict_network import predict_array
from unetkit.pipeline.tile_predict_output import Partial
from unetkit.pipeline.tile_predict_overview import check_overview, draw_overview
from unetkit.pipeline.tile_predict_plan import make_plan
from unetkit.pipeline.tile_predict_report import PredictionReport, planned, summary
from unetkit.pipeline.tile_predict_run import Run
from unetkit.pipeline.tile_predict_target import Target, output_of
from unetkit.pipeline.tile_predict_wishes import Wishes, check_fit
from unetkit.pipeline.tile_predict_worker import torch_threads
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.engine.pools import Scheduler
    from unetkit.pipeline.tile_predict_empty import Mask
    from unetkit.pipeline.tile_predict_hands import Hands
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset

# What holds several images; a prediction of one is a dataset again.
DATASETS = ("dataset", "stack")

__all__ = ["PredictionReport", "predict_array", "tile_predict"]


def tile_predict(
    source: str,
    *,
    model: str | Sequence[str] = (),
    output: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tta: Literal["none", "flips", "rotations"] = "none",
    merge: Literal["crop", "gaussian"] = "crop",
    probabilities: Literal["uint8", "float32"] = "uint8",
    threshold: float = 0.5,
    grow: int = 1,
    min_size: int = 0,
    skip_below: float | None = None,
    mask: str | None = None,
    require_complete_input: bool = False,
    strict: bool = False,
    channels: str | None = None,
    axes: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    max_memory: str | None = None,
    scheduler: str = "threads",
    workers: int | None = None,
    nonfinite: Literal["error", "fill"] = "error",
    resume: bool = False,
    overwrite: bool = False,
    break_lock: bool = False,
    dry_run: bool = False,
    audit: int = 0,
    ome_version: Literal["0.5", "0.4"] = "0.5",
    overview: str | None = None,
    progress: Progress = SILENT,
) -> PredictionReport:
    """Segment an image, or every sample of a dataset, of any size.

    The result does not depend on the tiles: each is read with as much mirrored or real context
    as the network needs, and tiles lie on the grid of the network's pooling.

    Parameters
    ----------
    source : str
        An image or a dataset.
    model : str or sequence of str
        A model file, or several whose probabilities are averaged; left out, `model.safetensors`.
        Where a file is absent, its folds (`model.fold1.safetensors` and so on) are taken.
    output : str, optional
        Where to write; left out, `NAME.prediction.zarr` beside the source. The output of a dataset
        is a dataset with the same sample names.
    tile : int, optional
        Size of a tile in pixels, a multiple of the model's step; left out, what computes least
        and fits into memory.
    overlap : int, optional
        Context on each side in pixels; left out, what the model needs.
    tta : {"none", "flips", "rotations"}
        Test-time augmentation: average the probabilities of 1, 4 or all 8 ways of laying a tile
        upon itself.
    merge : {"crop", "gaussian"}
        Crop each tile out of the window that the network sees, or blend all windows that reach a
        pixel, for padded models whose tiles can't be exact. Blended results depend on the tile.
    probabilities : {"uint8", "float32"}
        How class probabilities are stored; uint8 holds 0 to 255.
    threshold : float
        With two classes, from which probability a pixel is foreground.
    grow : int
        Pixels by which objects grow into the gaps that were cut between them for training.
    min_size : int
        Objects with fewer pixels, before they grow, are left out.
    skip_below : float, optional
        Tiles whose pixels are all below this intensity are left out as background.
    mask : str, optional
        An image of any scale over the whole source; tiles in which it is 0 are left out as
        background.
    require_complete_input : bool
        Refuse an image of which a chunk is absent; else it reads as the fill value, and the output
        lists it.
    strict : bool
        Refuse an image that is far from what the model was trained on, in the size of its pixels,
        in its intensities or its details; else a note says so.
    channels : str, optional
        Which channels, in which order; left out, those that the model was trained with.
    axes : str, optional
        Axes of a bare array.
    device : str
        As for `hardware.pick_device`.
    precision : str
        `auto`, or as for `hardware.forward`.
    batch : int, optional
        How many tiles (blended: windows of a block) the network sees at once; left out, 1 on the
        processor, on a GPU as many as fit, up to 8.
    max_memory : str, optional
        The most memory to take, such as `8G`; left out, half of what is free.
    scheduler, workers
        As for `open_scheduler`. On this machine's threads, left out, one network at a time has
        all cores.
    nonfinite : {"error", "fill"}
        What to do about NaN and Inf in the image: refuse, or read them as 0.
    resume : bool
        Go on where an earlier run with the same settings stopped.
    overwrite : bool
        Replace an earlier output.
    break_lock : bool
        Take the output over from another job that is known to be dead.
    dry_run : bool
        Settle the plan, report it, and do nothing.
    audit : int
        Predict this many windows across seams once more from scratch and compare them with what
        is stored, before it is published.
    ome_version : {"0.5", "0.4"}
        Of the output's OME-Zarr; 0.4, on format 2 of Zarr, is for viewers that know no other.
    overview : str, optional
        A PNG file to draw: the images, small, with outlines around what was found.
    progress : Progress
        Who is told.

    Returns
    -------
    PredictionReport

    Raises
    ------
    UsageError
        If an option can't be used.
    InputError
        If image or model are missing, damaged, or don't fit each other.
    OutputError
        If the output exists, another job is making it, or the partial was made with other
        settings.
    SurroundingsError
        If there is too little memory or disk, or a worker was lost again and again.
    NumbersError
        If the image or the network's output has NaN or Inf.
    CheckError
        If the audit found more than the precision allows; nothing is published.
    StoppedError
        If a signal came; what was done is kept for `resume`.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, figure 2: the overlap-tile strategy; section 4
    averages seven rotations of the image.
    """
    options, began = locals(), time.monotonic()
    hardware.tune_allocator()
    wishes = Wishes.among(options)
    wishes.check()
    models = find_models(model, progress=progress)
    target = Target.among(options, output=output_of(source, output), inputs=(source, *models))
    dataset, places = _open(source, models, wishes, axes=axes, channels=channels, mask=mask)
    target.look()
    if overview is not None:
        check_overview(overview, inputs=target.inputs, overwrite=overwrite or resume)
    place = hardware.pick_device(device)
    hands = share_cores(scheduler, workers, device=place)
    job = _Job(source, dataset, models, wishes=wishes, mask=places, device=str(place), hands=hands)
    with target.alone(), job.scheduler(scheduler) as opened:
        report = job.run(target, opened, progress=progress)
    if overview is not None and not dry_run:
        draw_overview(overview, dataset, open_dataset(report.output))
    done = report.status == "done"
    return replace(report, seconds=time.monotonic() - began) if done else report


def _open(
    source: str,
    models: Sequence[str],
    wishes: Wishes,
    *,
    axes: str | None,
    channels: str | None,
    mask: str | None,
) -> tuple[Dataset, Mask | None]:
    """Open what is to be predicted, once it is known that the models can."""
    header = read_header(models)
    dataset = open_dataset(source, axes=axes, channels=channels or header.channels)
    check_fit(header, dataset, wishes)
    return dataset, None if mask is None else open_mask(mask, dataset)


@dataclass(frozen=True)
class _Job:
    """What is predicted by what, where, and by how many."""

    source: str
    dataset: Dataset
    models: tuple[str, ...]
    wishes: Wishes
    mask: Mask | None
    device: str
    hands: Hands

    @contextmanager
    def scheduler(self, name: str) -> Iterator[Scheduler]:
        """Open the scheduler, with as many torch threads as each network is to have."""
        with open_scheduler(name, self.hands.jobs) as opened, torch_threads(self.hands.threads):
            yield opened

    def run(self, target: Target, scheduler: Scheduler, *, progress: Progress) -> PredictionReport:
        """Settle the plan and, unless it was only to be told, carry it out."""
        earlier = target.look_alone()
        fused = self.wishes.precision != "exact"
        ensemble = load_ensemble(self.models, device=self.device, fused=fused)
        if not target.dry_run:
            headers = [model.header for model in ensemble.models]
            needed = look_at(self.models, headers, self.dataset, partial_url=target.partial)
            compare_workers(scheduler, needed)
        plan = make_plan(
            ensemble,
            self.dataset,
            self.wishes,
            hands=self.hands,
            earlier=earlier,
            mask=self.mask,
        )
        progress.note(f"{summary(plan)} on {self.device}")
        # Of several models the first, which has learned from what the others have.
        check_likeness(
            plan.model.header,
            plan.samples,
            [each[0] for each in plan.normalizations],
            fill=self.wishes.nonfinite == "fill",
            strict=self.wishes.strict,
            progress=progress,
        )
        if (absent := absence(plan.censuses)) is not None:
            progress.note(absent)
        report = planned(plan, target.output, device=self.device)
        if report.disk_free is not None and report.disk_free < report.output_bytes:
            progress.note(
                f"the output can take {report.output_bytes / 2**20:.1f} MiB, and "
                f"{report.disk_free / 2**20:.1f} MiB are free on its disk"
            )
        if target.dry_run:
            return report
        if earlier is not None and earlier.finished:
            if self.wishes.audit:
                progress.note("it is published already; an audit takes place before that")
            return replace(report, tiles_reused=report.tiles_total, status="nothing to do")
        call = network_call(plan, device=self.device, hands=self.hands)
        work = Partial(target.partial, plan, self.source, self.dataset.kind in DATASETS)
        with stoppable() as stop, target.making(progress, fresh=earlier is None):
            run = Run(plan, work, call, scheduler, stop=stop, progress=progress)
            outcome = run.carry_out()
            target.publish()
        return replace(report, **outcome.to_dict(), status="done")
