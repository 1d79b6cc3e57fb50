"""Predict images of any size, tile by tile, without a seam."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from unetkit.engine.schedulers import open_scheduler
from unetkit.engine.signals import stoppable
from unetkit.errors import NumbersError, OutputError, StoppedError, UsageError
from unetkit.models import hardware, modelfile
from unetkit.pipeline.tile_predict_empty import open_mask
from unetkit.pipeline.tile_predict_hands import share_cores
from unetkit.pipeline.tile_predict_input import absence
from unetkit.pipeline.tile_predict_network import predict_array
from unetkit.pipeline.tile_predict_output import Partial
from unetkit.pipeline.tile_predict_plan import Wishes, check_fit, make_plan
from unetkit.pipeline.tile_predict_report import PredictionReport, planned
from unetkit.pipeline.tile_predict_resume import Earlier, find_earlier
from unetkit.pipeline.tile_predict_run import Run
from unetkit.pipeline.tile_predict_tile import network_call
from unetkit.pipeline.tile_predict_worker import load_model, torch_threads
from unetkit.progress import SILENT
from unetkit.storage import files, urls
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect
from unetkit.storage.journal import Journal
from unetkit.storage.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.progress import Progress

# What holds several images; a prediction of one is a dataset again.
DATASETS = ("dataset", "stack")

__all__ = ["PredictionReport", "predict_array", "tile_predict"]


def tile_predict(
    source: str,
    *,
    model: str = "model.safetensors",
    output: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    probabilities: Literal["uint8", "float32"] = "uint8",
    threshold: float = 0.5,
    grow: int = 1,
    min_size: int = 0,
    skip_below: float | None = None,
    mask: str | None = None,
    require_complete_input: bool = False,
    channels: str | None = None,
    axes: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_memory: str | None = None,
    scheduler: str = "threads",
    workers: int | None = None,
    nonfinite: Literal["error", "fill"] = "error",
    resume: bool = False,
    overwrite: bool = False,
    break_lock: bool = False,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> PredictionReport:
    """Segment an image, or every sample of a dataset, of any size.

    The result does not depend on the tiles: each is read with as much mirrored or real context
    as the network needs, and tiles lie on the grid of the network's pooling.

    Parameters
    ----------
    source : str
        An image or a dataset.
    model : str
        A model file.
    output : str, optional
        Where to write; left out, `NAME.prediction.zarr` beside the source. The output of a dataset
        is a dataset with the same sample names.
    tile : int, optional
        Size of a tile in pixels, a multiple of the model's step; left out, what computes least
        and fits into memory.
    overlap : int, optional
        Context on each side in pixels; left out, what the model needs.
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
    channels : str, optional
        Which channels, in which order; left out, those that the model was trained with.
    axes : str, optional
        Axes of a bare array.
    device : str
        As for `hardware.pick_device`.
    precision : str
        `auto`, or as for `hardware.forward`.
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
    StoppedError
        If a signal came; what was done is kept for `resume`.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, figure 2: the overlap-tile strategy.
    """
    began = time.monotonic()
    wishes = Wishes(
        tile,
        overlap,
        precision,
        probabilities,
        threshold,
        grow,
        min_size,
        nonfinite,
        max_memory,
        skip_below,
        require_complete_input,
    )
    wishes.check()
    target = _target(source, output)
    header = modelfile.read_header(model)
    dataset = open_dataset(source, axes=axes, channels=channels or header.channels)
    check_fit(header, dataset, wishes)
    places = None if mask is None else open_mask(mask, dataset)
    look = partial(
        _look,
        target,
        inputs=(source, model),
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    look()
    place = hardware.pick_device(device)
    hands = share_cores(scheduler, workers, device=place)
    folder = files.partial_url(target)
    alone = nullcontext() if dry_run else locked(folder, break_lock=break_lock)
    with alone, open_scheduler(scheduler, hands.jobs) as opened, torch_threads(hands.threads):
        earlier = look()  # once more: another job may have ended before this one was alone
        if not (resume or overwrite or dry_run):
            _refuse_begun(target)
        network = load_model(model, device=str(place))
        plan = make_plan(network, dataset, wishes, hands=hands, earlier=earlier, mask=places)
        progress.note(f"{plan.summary()} on {place}")
        if (absent := absence(plan.censuses)) is not None:
            progress.note(absent)
        report = planned(plan, target, device=str(place))
        if dry_run:
            return report
        if earlier is not None and earlier.finished:
            return replace(report, tiles_reused=report.tiles_total, status="nothing to do")
        call = network_call(plan, model, device=str(place), hands=hands)
        work = Partial(folder, plan, source, dataset.kind in DATASETS)
        with stoppable() as stop, _in_partial(work.url, progress, fresh=earlier is None):
            run = Run(plan, work, call, scheduler=opened, stop=stop, progress=progress)
            outcome = run.carry_out()
            files.publish(work.url, target, overwrite=overwrite)
    return replace(report, **asdict(outcome), seconds=time.monotonic() - began, status="done")


def _target(source: str, output: str | None) -> str:
    """Say where the prediction goes, once it is known that there is something to predict."""
    detect(source)
    target = output or files.output_name(source, ".prediction.zarr")
    if urls.is_remote(target):
        raise UsageError(f"output must be a local path for now, got {target}; name one with -o")
    return target


def _look(
    output: str, *, inputs: tuple[str, str], resume: bool, overwrite: bool, dry_run: bool
) -> Earlier | None:
    """Make sure that the output may be written; return what there is to be resumed."""
    if resume and overwrite:
        raise UsageError("resume must be given without overwrite, got both; choose one of them")
    if resume:
        return find_earlier(output, inputs=inputs)
    if dry_run:
        # It says what would be done once there is room for it.
        return None
    files.check_output(output, inputs=inputs, overwrite=overwrite)
    return None


def _refuse_begun(output: str) -> None:
    """Refuse to throw away what a stopped run did, unless that is asked for."""
    if Journal(files.partial_url(output)).read_fingerprint() is not None:
        raise OutputError(
            f"output {output} must not have been begun, got the tiles of a run that was stopped; "
            "--resume goes on with them, --overwrite starts afresh"
        )


@contextmanager
def _in_partial(folder: str, progress: Progress, *, fresh: bool) -> Iterator[None]:
    """Keep what is done when the work ends early, unless going on could not mend it."""
    if fresh and urls.exists(folder):
        progress.note("an unfinished prediction is started afresh")
        files.discard(folder)
    try:
        yield
    except (UsageError, NumbersError):
        files.discard(folder)
        raise
    except StoppedError:
        raise  # it says itself how to go on
    except Exception:
        progress.note("the tiles that are done are kept; --resume goes on with them")
        raise
