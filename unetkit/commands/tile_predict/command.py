"""Predict images of any size, tile by tile, without a seam."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from unetkit.commands.tile_predict.blocks import network_call
from unetkit.commands.tile_predict.ensemble import (
    find_models,
    load_ensemble,
    read_header,
    torch_threads,
)
from unetkit.commands.tile_predict.environment import compare_workers, look_at
from unetkit.commands.tile_predict.output import Partial, Target, output_of
from unetkit.commands.tile_predict.plan import Wishes, absence, check_fit, make_plan, totals
from unetkit.commands.tile_predict.resources import share_cores
from unetkit.commands.tile_predict.run import PredictionRun
from unetkit.commands.tile_predict.skipping import open_mask
from unetkit.engine.input_shift import check_input_shift
from unetkit.engine.schedulers import open_scheduler
from unetkit.engine.signals import stoppable
from unetkit.models import hardware
from unetkit.progress import SILENT
from unetkit.storage import outputs
from unetkit.storage.datasets import open_dataset
from unetkit.views.overview import check_overview, draw_overview

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.commands.tile_predict.resources import Hands
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset


@dataclass(frozen=True)
class PredictionReport:
    """What `tile_predict` did, or with `dry_run` would do.

    Parameters
    ----------
    output : str
        The prediction.
    tiles_total, tiles_reused : int
        Tiles of all planes, and how many of them an earlier run had done.
    retries : int
        How often a disk or a network refused for a moment while tiles were done.
    tiles_constant : int
        Tiles of one value that were copied from another tile of that value.
    tiles_left_out : int
        Tiles left out by `skip_below` or `mask`; `.unetkit/left-out.jsonl` in the output lists
        them as SAMPLE/PLANE/TILE.
    input_chunks, input_chunks_absent : int
        Chunks of the input's grid, and how many of them are not stored and read as the fill value;
        `.unetkit/absent-input.jsonl` in the output lists them. Both 0 where a store lists nothing.
    tile, overlap, read : int
        Size of a tile, its context on each side, and what the network reads for it, in pixels.
    precision, device : str
        How and where the network computed.
    batch : int
        How many tiles, or windows of a block that is blended, it was to see at once.
    classes : tuple of str
        In the order of the channels of the output.
    objects : int or None
        Instances in all samples; None where the target has none.
    samples, filled : int
        Images predicted; NaN and Inf values that were read as 0.
    models, tta, merge : int and str
        How many networks are averaged, in how many ways each tile is turned, and how windows
        become one image.
    cost_factor : float
        How many times the work is that of one network that looks once at each tile.
    context_share : float
        The share of the networks' work that is context or overhangs the image.
    output_bytes, disk_free : int
        The most that the output can take on disk, and what is free there; None where a store
        does not say.
    memory_peak, memory_limit : int
        Bytes that all its processes on this machine are expected to take at most, and may.
    expected_seconds : float or None
        How long the networks are expected to take, reckoned from a small input and never longer
        for images with empty parts; None where another machine computes.
    audit : dict or None
        What a second look at some windows found, where it was asked for.
    seconds : float
        How long it took.
    status : {"done", "nothing to do", "planned"}
        What came of it.
    """

    output: str
    tiles_total: int
    tiles_reused: int
    retries: int
    tiles_constant: int
    tiles_left_out: int
    input_chunks: int
    input_chunks_absent: int
    tile: int
    overlap: int
    read: int
    precision: str
    device: str
    batch: int
    classes: tuple[str, ...]
    objects: int | None
    samples: int
    filled: int
    models: int
    tta: str
    merge: str
    cost_factor: float
    context_share: float
    output_bytes: int
    disk_free: int | None
    memory_peak: int
    memory_limit: int
    expected_seconds: float | None
    audit: dict[str, Any] | None
    seconds: float
    status: Literal["done", "nothing to do", "planned"]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "classes": list(self.classes)}


def summary(plan: Plan) -> str:
    """Say in one sentence what a plan is."""
    count = "1 tile" if plan.tiles_total == 1 else f"{plan.tiles_total} tiles"
    together = f", {plan.batch} at once" if plan.batch > 1 else ""
    return (
        f"{count} of {plan.tile} pixels, each read with {plan.overlap} pixels "
        f"of context as {plan.size}{together}, in {plan.precision}"
        f"{f' since {plan.reason}' if plan.reason else ''}{_averaged(plan)}"
    )


def _averaged(plan: Plan) -> str:
    averaging = plan.averaging
    looks = {"models": len(averaging.members), "turns": len(averaging.turns)}
    parts = [f"{count} {what}" for what, count in looks.items() if count > 1]
    parts += ["windows"] if averaging.merge == "gaussian" else []
    if not parts:
        return ""
    return f", averaged over {' and '.join(parts)} at {plan.cost_factor:.1f} times the work"


def planned(plan: Plan, output: str, *, device: str) -> PredictionReport:
    """Tell what a plan would do."""
    chunks, absent = totals(plan.censuses)
    return PredictionReport(
        output=output,
        tiles_total=plan.tiles_total,
        tiles_reused=0,
        retries=0,
        tiles_constant=0,
        tiles_left_out=0,
        input_chunks=chunks,
        input_chunks_absent=absent,
        tile=plan.tile,
        overlap=plan.overlap,
        read=plan.size,
        precision=plan.precision,
        device=device,
        batch=plan.batch,
        classes=plan.model.header.class_names,
        objects=None,
        samples=len(plan.samples),
        filled=0,
        models=len(plan.model.models),
        tta=plan.wishes.tta,
        merge=plan.wishes.merge,
        cost_factor=plan.cost_factor,
        context_share=plan.wasted,
        output_bytes=plan.output_bytes,
        disk_free=outputs.free_bytes(output),
        memory_peak=plan.memory.peak(plan.size),
        memory_limit=plan.memory.limit,
        expected_seconds=plan.seconds,
        audit=None,
        seconds=0.0,
        status="planned",
    )


# What holds several images; a prediction of one is a dataset again.
DATASETS = ("dataset", "stack")


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
        check_input_shift(
            plan.model.header,
            plan.samples,
            [each[0] for each in plan.normalizations],
            replace_nonfinite=self.wishes.nonfinite == "fill",
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
            run = PredictionRun(plan, work, call, scheduler, stop=stop, progress=progress)
            outcome = run.run()
            target.publish()
        return replace(report, **outcome.to_dict(), status="done")
