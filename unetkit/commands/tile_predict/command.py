"""Predict images of any size, tile by tile, without a seam."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unetkit.arrays.instances import has_instances
from unetkit.commands.tile_predict import skipping
from unetkit.commands.tile_predict.blocks import inference_config
from unetkit.commands.tile_predict.ensemble import (
    find_models,
    load_ensemble,
    read_ensemble,
    read_header,
    torch_threads,
)
from unetkit.commands.tile_predict.environment import compare_workers, environment_of
from unetkit.commands.tile_predict.finished import find_finished, plan_like
from unetkit.commands.tile_predict.magnification import (
    at_model_size,
    described,
)
from unetkit.commands.tile_predict.output import (
    PredictionStore,
    layout_of,
    output_of,
    partial_in_place,
    stored_warnings,
    version_in_place,
)
from unetkit.commands.tile_predict.plan import (
    Plan,
    PredictOptions,
    count_missing_chunks,
    leave_out_unreadable,
)
from unetkit.commands.tile_predict.precision import choose_precision, fit_normalizations
from unetkit.commands.tile_predict.report import PredictionReport, decided_by, planned, summary
from unetkit.commands.tile_predict.resources import (
    candidates,
    choose_batch,
    fastest_tile,
    memory_for,
    plan_parallelism,
)
from unetkit.commands.tile_predict.run import PredictionRun
from unetkit.commands.tile_predict.skipping import open_mask
from unetkit.engine.input_shift import check_channel_names, check_input_shift
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import CheckError, NonFiniteError, StoppedError, UsageError
from unetkit.models import hardware
from unetkit.progress import SILENT, collects_warnings, format_bytes, keep_warnings, warn
from unetkit.signals import stoppable
from unetkit.storage.datasets import open_dataset
from unetkit.storage.partial import Partial, PartialLabels
from unetkit.storage.pixel_size import parse_pixel_size
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.finished import FinishedPrediction
    from unetkit.commands.tile_predict.resources import Parallelism
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.options import (
        Axes,
        BreakLock,
        Channels,
        Device,
        Opt,
        PixelSize,
        Precision,
        Resume,
        SchedulerName,
        Store,
        Workers,
    )
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset
    from unetkit.storage.partial import PreviousRun


def make_plan(
    model: Ensemble,
    dataset: Dataset,
    options: PredictOptions,
    *,
    parallelism: Parallelism,
    earlier: PreviousRun | None = None,
    mask: Mask | None = None,
) -> Plan:
    """Settle everything that decides about the pixels; reads the images, writes nothing.

    The automatic choices of an `earlier` run that is to be resumed are taken over.
    """
    samples = dataset.samples
    inventories = count_missing_chunks(samples, complete=options.require_complete_input)
    known = options.settled_before(earlier, header=model.header, sha256=model.sha256)
    memory = memory_for(model, samples, known, parallelism=parallelism)
    plan = Plan(
        *(model, samples, options),
        tile=known.tile or model.header.contract.step,
        precision=known.precision,
        batch=known.batch or 1,
        mask=mask,
        inventories=inventories,
    )
    tiles = [known.tile] if known.tile else candidates(plan, memory)
    memory.check(tiles[0], plan.overlap, contract=model.header.contract)
    normalizations = tuple(
        fit_normalizations(sample, model, nonfinite=options.nonfinite) for sample in samples
    )
    plan = replace(plan, normalizations=normalizations)
    if known.precision == "auto":
        chosen = choose_precision(plan, max_size=memory.largest)
        plan = replace(plan, precision=chosen.name, reason=chosen.reason)
    choice = fastest_tile(plan, tiles, fixed=known.tile is not None, max_size=memory.largest)
    plan = replace(plan, tile=choice.tile, remembered=choice.remembered)
    batch = known.batch or choose_batch(plan, memory)
    peak = replace(memory, batch=batch).peak(plan.size)
    plan = replace(plan, batch=batch, memory_peak=peak, memory_limit=memory.limit)
    if earlier is not None:
        earlier.check(plan.fingerprint())
    if parallelism.elsewhere:
        return plan
    return replace(plan, seconds=plan.tiles_total * choice.seconds / parallelism.networks)


# These say themselves how to go on; after these going on would end in the same way.
SAY_HOW_TO_GO_ON, NOT_MENDED = (StoppedError, CheckError), (UsageError, NonFiniteError)


@collects_warnings
def tile_predict(
    source: Store,
    *,
    model: Annotated[
        str | Sequence[str],
        Opt(default="model.safetensors", check="unetkit.models.model_header:check_models"),
    ] = (),
    output: Annotated[
        str | None, Opt(flags=("--output", "-o"), default="beside the input", panel="Output")
    ] = None,
    in_place: Annotated[bool, Opt(panel="Output")] = False,
    tile: Annotated[int | None, Opt(min=1, default="by the image", panel="Tiles")] = None,
    overlap: Annotated[int | None, Opt(min=0, default="by the model", panel="Tiles")] = None,
    tta: Annotated[Literal["none", "flips", "rotations"], Opt(panel="Tiles")] = "none",
    merge: Annotated[Literal["crop", "gaussian"], Opt(panel="Tiles")] = "crop",
    uncertainty: Annotated[bool, Opt(panel="Result")] = False,
    probabilities: Annotated[Literal["uint8", "float32"], Opt(panel="Result")] = "uint8",
    threshold: Annotated[
        float | None,
        Opt(
            min=0,
            max=1,
            default="by the model, else 0.5",
            panel="Result",
            check="unetkit.models.decision:check_threshold",
        ),
    ] = None,
    grow: Annotated[int | None, Opt(min=0, default="by the model, else 1", panel="Result")] = None,
    min_size: Annotated[
        int | None, Opt(min=0, default="by the model, else 0", panel="Result")
    ] = None,
    separate: Annotated[
        Literal["components", "watershed"] | None,
        Opt(default="by the model, else components", panel="Result"),
    ] = None,
    seed_level: Annotated[
        float | None,
        Opt(
            min=0,
            max=1,
            default="by the model, else 0.9",
            panel="Result",
            check="unetkit.models.decision:check_seeds",
        ),
    ] = None,
    seed_size: Annotated[
        int | None,
        Opt(
            min=0,
            default="by the model, else 20",
            panel="Result",
            check="unetkit.models.decision:check_seeds",
        ),
    ] = None,
    skip_below: Annotated[float | None, Opt(panel="Tiles")] = None,
    mask: Annotated[str | None, Opt(panel="Tiles")] = None,
    require_complete_input: Annotated[bool, Opt(panel="Tiles")] = False,
    strict: bool = False,
    channels: Channels = None,
    axes: Axes = None,
    pixel_size: PixelSize = None,
    no_rescale: Annotated[bool, Opt(panel="Size")] = False,
    scale: Annotated[
        float | None, Opt(min=0.015625, max=8, default="by the pixel sizes", panel="Size")
    ] = None,
    at: Annotated[Literal["slide", "model"], Opt(panel="Size")] = "slide",
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[
        int | None, Opt(min=1, default="1, or what a GPU holds, up to 8", panel="Hardware")
    ] = None,
    max_memory: Annotated[
        str | None,
        Opt(
            metavar="SIZE",
            default="half of what is free",
            panel="Hardware",
            check="unetkit.progress:parse_size",
        ),
    ] = None,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    nonfinite: Literal["error", "fill"] = "error",
    resume: Resume = False,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_prediction")
    ] = False,
    break_lock: BreakLock = False,
    dry_run: bool = False,
    audit: Annotated[int, Opt(min=0, panel="Result")] = 0,
    ome_version: Annotated[Literal["0.5", "0.4"], Opt(panel="Result")] = "0.5",
    overview: Annotated[
        str | None, Opt(panel="Result", check="unetkit.storage.urls:check_png")
    ] = None,
    progress: Progress = SILENT,
) -> PredictionReport:
    """Segment images of any size in tiles, without seams.

    The result does not depend on the tiles: each is read with as much mirrored or real context
    as the network needs, and tiles lie on the grid of the network's pooling.

    Parameters
    ----------
    source : str
        An image or a dataset; the output of a dataset is a dataset with the same sample names, that
        of a plate a plate.
    model : str or sequence of str
        The model file; repeated, the mean of several. Where a file is absent, its folds
        (``model.fold1.safetensors`` and so on) are taken.
    output : str, optional
        Where the result is written.
    in_place : bool
        Write labels, and no probabilities, into the image itself, or into every field of a plate.
    tile : int, optional
        Side of a tile, in pixels; a multiple of the model's step. Left out, what computes least
        and fits into memory.
    overlap : int, optional
        Pixels of context that a tile sees on each side.
    tta : {"none", "flips", "rotations"}
        Average over turned tiles: 4 flips, or 8 rotations and flips.
    merge : {"crop", "gaussian"}
        Crop tiles, or blend their windows, for padded models whose tiles can't be exact; what is
        blended depends on the tile.
    uncertainty : bool
        Store how unsure models or turns are together as one more layer, ``uncertainty``: the
        entropy of their mean, 0 to 255. Takes folds or several models, or ``--tta``.
    probabilities : {"uint8", "float32"}
        How class probabilities are stored; uint8 holds 0 to 255.
    threshold : float, optional
        Probability from which it is foreground, with two classes or with distances. This and the
        next five are fitted by training, or by ``unetkit tune``, and remembered by the model.
    grow : int, optional
        Pixels by which objects grow into the gaps that were cut between them for training.
    min_size : int, optional
        Drop objects of fewer pixels than this, before they grow.
    separate : {"components", "watershed"}, optional
        What is one object: all that touches, or what a watershed of the probabilities floods from
        one seed, which parts cells that touch; a model of distances does so by itself.
    seed_level : float, optional
        Probability, or expected distance, from which pixels are seeds of a watershed; what has none
        of them stays whole.
    seed_size : int, optional
        Pixels that a seed has at least.
    skip_below : float, optional
        Leave out tiles that are darker than this everywhere.
    mask : str, optional
        Where to look: a Zarr image or an image file of any scale over the whole source, other than
        0 there, or outlines, such as a GeoJSON of QuPath. Objects that touch it stay whole, up to
        256 pixels beyond it; others are left out.
    require_complete_input : bool
        Refuse an image of which a chunk is absent; else it reads as the fill value, and the output
        lists it.
    strict : bool
        Refuse an image that is far from what the model was trained on, in the size of its pixels,
        its intensities or its details; else a warning says so.
    channels : str, optional
        Channels to use, in this order, by name or number: ``DAPI`` or ``0,2``; left out, those
        that the model was trained with.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    pixel_size : str, optional
        Micrometres a pixel, where the image does not say it or is wrong: ``0.25``, ``250nm``, or
        y,x as ``0.5,0.25``.
    no_rescale : bool
        Read images as they are; left out, images whose pixels have another size than the model's
        are read at the model's pixel size.
    scale : float, optional
        Read images at so many times their size, whatever their pixel size is: 0.5 is fast.
    at : {"slide", "model"}
        The size of the result where images are rescaled: that of the slide, or of what the model
        read.
    device : str
        Where the network runs: auto, cpu, cuda, cuda:1 or mps.
    precision : {"auto", "exact", "float32", "bfloat16", "float16"}
        Numbers to compute with; ``exact`` gives the same bits on every run, slower.
    batch : int, optional
        Tiles, or windows that are blended, that the network sees at once.
    max_memory : str, optional
        The most memory to take, such as ``8G``.
    scheduler : str
        Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH.
    workers : int, optional
        How many work at once; on this machine's threads, left out, one network at a time has all
        cores.
    nonfinite : {"error", "fill"}
        What to do about NaN and infinite pixels: stop, or read them as 0.
    resume : bool
        Go on where a run with the same settings stopped.
    overwrite : bool
        Replace an earlier result of unetkit.
    break_lock : bool
        Take the result over from another job that is known to be dead.
    dry_run : bool
        Say what would be done, and do nothing.
    audit : int
        Predict N windows across seams again, before the result is published; end with code 7 if
        they differ.
    ome_version : {"0.5", "0.4"}
        Version of the OME-Zarr; 0.4 for viewers that know no Zarr v3.
    overview : str, optional
        Also draw a PNG of the images with outlines.
    progress : Progress
        Told what happens.

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
    ResourceError
        If there is too little memory or disk, or a worker was lost again and again.
    NonFiniteError
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
    began = time.monotonic()
    hardware.tune_allocator()
    decisive: dict[str, Any] = {"threshold": threshold, "grow": grow, "min_size": min_size}
    decisive |= {"separate": separate, "seed_level": seed_level, "seed_size": seed_size}
    asked: dict[str, Any] = {name: one for name, one in decisive.items() if one is not None}
    options = PredictOptions(
        tile=tile,
        overlap=overlap,
        precision=precision,
        batch=batch,
        probabilities=probabilities,
        **asked,
        nonfinite=nonfinite,
        max_memory=max_memory,
        skip_below=skip_below,
        require_complete_input=require_complete_input,
        strict=strict,
        tta=tta,
        merge=merge,
        uncertainty=uncertainty,
        audit=audit,
        ome_version=ome_version,
        pixel_size=pixel_size,
        no_rescale=no_rescale,
        scale=scale,
        at=at,
    )
    options.check()
    models = find_models(model, progress=progress)
    options.check_looks(len(models))
    partial = Partial(
        output_of(source, output, in_place=in_place),
        inputs=(source, *models),
        resume=resume,
        overwrite=overwrite,
        break_lock=break_lock,
        dry_run=dry_run,
    )
    header = read_header(models)
    broken: dict[str, str] = {}
    dataset = open_dataset(
        source, axes=axes, channels=channels, trained=header.channels, broken=broken
    )
    if channels is None:
        check_channel_names(
            header.channels, dataset.samples, strict=options.strict, progress=progress
        )
    if pixel_size is not None:
        dataset = dataset.with_pixel_size(parse_pixel_size(pixel_size))
    stored = dataset
    if not no_rescale:
        dataset = at_model_size(dataset, header, scale=scale)
    options.check_fit(header, dataset)
    options = options.decided(header, asked=asked)
    options.check_separation(header, asked=asked)
    # Without objects there is nothing to follow beyond the mask.
    reach = skipping.REACH if has_instances(header.target) else 0
    places = None
    if mask is not None:
        places = open_mask(mask, dataset, stored=stored, reach=reach, progress=progress)
    if in_place:
        options = replace(options, ome_version=version_in_place(stored, progress, at=at))
        partial = partial_in_place(partial, stored, header.target, uncertainty=uncertainty)
    # Whether all labels are in their places is known only without what can't be read.
    if not (in_place and resume):
        partial.check_writable()
    if overview is not None:
        # Loaded where it is used: drawing takes a library that predicting does without.
        from unetkit.views.overview import check_overview

        check_overview(overview, inputs=partial.inputs, overwrite=overwrite or resume)
    stored = leave_out_unreadable(stored, broken, nonfinite=nonfinite, progress=progress)
    readable = set(stored.names)
    dataset = replace(dataset, samples=tuple(s for s in dataset.samples if s.name in readable))
    if in_place:
        partial = partial_in_place(partial, stored, header.target, uncertainty=uncertainty)
    place = hardware.pick_device(device)
    parallelism = plan_parallelism(scheduler, workers, device=place)
    job = _Job(source, dataset, models, options, places, str(place), parallelism, progress)
    with (
        partial.locked(),
        open_scheduler(scheduler, parallelism.jobs) as opened,
        torch_threads(parallelism.threads),
    ):
        report = job.run(partial, opened)
    if overview is not None and not dry_run:
        made = open_dataset(report.output, broken={})
        if in_place:
            made = replace(made, samples=tuple(made[s.name] for s in stored.samples))
        from unetkit.views.overview import draw_overview

        draw_overview(overview, stored, made)
    report = replace(report, broken=tuple(broken))
    done = report.status == "done"
    return replace(report, seconds=time.monotonic() - began) if done else report


@dataclass(frozen=True)
class _Job:
    """What is predicted by what, where, and by how many."""

    source: str
    dataset: Dataset
    models: tuple[str, ...]
    options: PredictOptions
    mask: Mask | None
    device: str
    parallelism: Parallelism
    progress: Progress

    def run(self, partial: Partial, scheduler: Scheduler) -> PredictionReport:
        """Settle the plan and, unless it was only to be told, carry it out."""
        earlier = partial.recheck()
        finished = self._finished(partial, scheduler, earlier)
        plan = finished.plan if finished else self._plan(partial, scheduler, earlier)
        report = planned(plan, partial.output, device=self.device, dry_run=partial.dry_run)
        if finished is not None:
            report = replace(report, tiles_taken_over=report.tiles_total)
            keep_warnings(self.progress, stored_warnings(finished.url))
        if earlier is not None:
            keep_warnings(self.progress, stored_warnings(earlier.place))
        self._note(plan, report, finished)
        if partial.dry_run:
            return report
        if earlier is not None and earlier.finished:
            if self.options.audit:
                warn(
                    self.progress,
                    "it is published already and was not audited now; an audit takes place before"
                    " that",
                )
            return replace(report, tiles_reused=report.tiles_total, status="nothing to do")
        if isinstance(partial, PartialLabels) and earlier is not None and partial.is_complete:
            with partial.opened(fresh=False, lost=()):
                return replace(report, tiles_reused=report.tiles_total, status="done")
        inference = inference_config(plan, device=self.device, parallelism=self.parallelism)
        layout = layout_of(self.dataset)
        store = PredictionStore(partial, plan, self.source, layout, self.progress)
        making = partial.opened(
            fresh=earlier is None, kept=SAY_HOW_TO_GO_ON, lost=NOT_MENDED, note=self.progress.note
        )
        with stoppable() as stop, making as journal:
            run = PredictionRun(
                *(plan, store, inference, scheduler),
                stop=stop,
                progress=self.progress,
                finished=finished,
            )
            outcome = run.run(journal)
        return replace(report, **outcome.to_dict(), status="done")

    def _finished(
        self, partial: Partial, scheduler: Scheduler, earlier: PreviousRun | None
    ) -> FinishedPrediction | None:
        """Find out whether what is to be replaced has the probabilities that are wanted."""
        resumed = earlier is not None and not earlier.finished
        previous = partial.replaced() if partial.overwrite or resumed else None
        if previous is None:
            return None
        ensemble = read_ensemble(self.models)
        samples = self.dataset.samples
        plan = plan_like(previous, ensemble, samples, self.options, mask=self.mask)
        if plan is None:
            return None
        found, reasons = find_finished(previous, plan, layout=layout_of(self.dataset))
        if reasons:
            self.progress.note(
                f"{previous.place} is predicted anew, and not only decided again, since it differs "
                f"otherwise: {'; '.join(reasons[:2])}"
            )
        if found is not None and earlier is not None:
            earlier.check(plan.fingerprint())
        if found is not None:
            self._compare_workers(partial, scheduler, ensemble)
        return found

    def _compare_workers(self, partial: Partial, scheduler: Scheduler, ensemble: Ensemble) -> None:
        """Make sure that all workers can do what this process can."""
        if not partial.dry_run:
            headers = [file.header for file in ensemble.files]
            needed = environment_of(self.models, headers, self.dataset, partial_url=partial.folder)
            compare_workers(scheduler, needed)

    def _plan(self, partial: Partial, scheduler: Scheduler, earlier: PreviousRun | None) -> Plan:
        """Load the networks, and settle the plan."""
        fused = self.options.precision != "exact"
        ensemble = load_ensemble(self.models, device=self.device, fused=fused)
        self._compare_workers(partial, scheduler, ensemble)
        return make_plan(
            ensemble,
            self.dataset,
            self.options,
            parallelism=self.parallelism,
            earlier=earlier,
            mask=self.mask,
        )

    def _note(
        self, plan: Plan, report: PredictionReport, finished: FinishedPrediction | None
    ) -> None:
        """Say what will be done, and what about the images or the disk may be in its way."""
        note = self.progress.note
        note(str(finished) if finished else f"{summary(plan)} on {self.device}")
        if told := decided_by(plan):
            note(told)
        for told in described(plan.rescaled, at=plan.options.at):
            note(told)
        if plan.mask is not None and plan.mask.reach:
            note(
                "objects that touch the mask stay whole, up to "
                f"{plan.mask.reach} pixels beyond it; the others are left out"
            )
        # Of several models the first, which has learned from what the others have.
        header = plan.model.header
        check_input_shift(
            # Who says the scale knows about the size.
            header if plan.options.scale is None else replace(header, pixel_size=None),
            plan.samples,
            [each[0] for each in plan.normalizations],
            replace_nonfinite=self.options.replace_nonfinite,
            strict=self.options.strict,
            progress=self.progress,
        )
        if told := plan.model.told_of_learned(base_name(self.source), plan.samples):
            warn(self.progress, told)
        if absent := report.input_chunks_absent:
            warn(
                self.progress,
                f"{absent} of {report.input_chunks} input chunks {'is' if absent == 1 else 'are'} "
                "absent, read as the fill value",
            )
        if report.disk_free is not None and report.disk_free < report.output_bytes:
            note(
                f"the output can take {format_bytes(report.output_bytes)}, and "
                f"{format_bytes(report.disk_free)} are free on its disk"
            )
