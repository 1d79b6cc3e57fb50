"""Learn from a dataset and write a model file."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch

from unetkit.commands.train.callbacks import check_tensorboard
from unetkit.commands.train.initial_weights import adapt, open_start, target_of
from unetkit.commands.train.mixing import join_datasets, split_sides
from unetkit.commands.train.output import claim_output
from unetkit.commands.train.plan import (
    TrainOptions,
    check_channels,
    choose_task,
    make_plan,
)
from unetkit.commands.train.report import TrainingDescription, TrainReport
from unetkit.commands.train.run import TrainingRun, is_comparable
from unetkit.engine.rescaling import at_pixel_size
from unetkit.errors import UsageError
from unetkit.models import hardware
from unetkit.models.build import build_model
from unetkit.models.model_file import check_content, with_decision
from unetkit.models.model_header import fold_paths
from unetkit.progress import (
    SILENT,
    Progress,
    WarningCollector,
    collects_warnings,
    warn,
    warnings_of,
)
from unetkit.storage.atomic import write_bytes
from unetkit.storage.datasets import open_dataset
from unetkit.storage.pixel_size import parse_pixel_size
from unetkit.storage.urls import base_name, exists
from unetkit.training.distributed import init_distributed
from unetkit.training.freezing import freeze
from unetkit.training.held_out_scores import held_out_scores
from unetkit.training.recipes import check_keep_old, check_mix
from unetkit.training.run_folder import RunFolder
from unetkit.training.split import Fold, split
from unetkit.training.tuning import fit_decision, rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from unetkit.commands.train.initial_weights import Start
    from unetkit.commands.train.mixing import Mix
    from unetkit.commands.train.output import TrainingOutput
    from unetkit.commands.train.plan import Plan
    from unetkit.geometry.sizes import SizeContract
    from unetkit.models.decision import Decision
    from unetkit.options import (
        Axes,
        BreakLock,
        Channels,
        Device,
        Init,
        LabelName,
        Loss,
        ModelName,
        NetworkOptions,
        Opt,
        PixelSize,
        Precision,
        RecipeChanges,
        RecipeName,
        Samplers,
        Seed,
        Steps,
        Store,
        Target,
        TimeBudget,
    )
    from unetkit.storage.datasets import Dataset
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.split import Split
    from unetkit.training.tuning import HeldOutMap


@dataclass(frozen=True)
class FoldsReport:
    """What was learned in all folds."""

    output: str  # of the first fold
    outputs: tuple[str, ...]
    folds: int
    # The mean of the folds, each on what it held out: what to expect of one such model on other
    # images like these.
    score: float
    spread: float  # the standard deviation
    report: tuple[dict[str, Any], ...]
    model: str
    device: str
    precision: str
    seconds: float = field(compare=False)
    decision: dict[str, Any] | None = None  # of all folds together, where there is one
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        lists = ("outputs", "report", "warnings")
        return {**asdict(self), **{name: list(getattr(self, name)) for name in lists}}


def folds_of(output: str, folds: int) -> list[tuple[str, Fold | None]]:
    """Name the model file of every fold; where there is one only, it is no fold."""
    if folds < 1:
        raise UsageError(f"folds must be at least 1, got {folds}; leave it out for one model")
    if folds == 1:
        return [(output, None)]
    return [(path, Fold(k, folds)) for k, path in enumerate(fold_paths(output, folds), start=1)]


def folds_report(reports: Sequence[TrainReport]) -> FoldsReport:
    """Sum up what the folds report; at least two."""
    first = reports[0]
    names = ("score", "best_step", "steps", "trained_on", "validated_on", "output")
    rows = [
        {"fold": number} | {name: getattr(report, name) for name in names}
        for number, report in enumerate(reports, start=1)
    ]
    return FoldsReport(
        output=first.output,
        outputs=tuple(report.output for report in reports),
        folds=len(reports),
        score=fmean(report.score for report in reports),
        spread=stdev(report.score for report in reports),
        report=tuple(rows),
        model=first.model,
        device=first.device,
        precision=first.precision,
        seconds=round(sum(report.seconds for report in reports), 1),
    )


@collects_warnings
def train(
    source: Store,
    *more: Annotated[str, Opt(check="unetkit.storage.urls:check_each_there")],
    output: Annotated[
        str,
        Opt(
            flags=("--output", "-o"),
            panel="Output",
            check="unetkit.models.model_header:check_suffix",
        ),
    ] = "model.safetensors",
    model: ModelName = None,
    options: NetworkOptions = (),
    recipe: RecipeName = "default",
    recipe_set: RecipeChanges = (),
    loss: Loss = None,
    steps: Steps = None,
    time_budget: TimeBudget = None,
    target: Target = None,
    init: Init = None,
    mix: Annotated[
        float | None,
        Opt(max=1, default="0.5 of two datasets", check="unetkit.training.recipes:check_mix"),
    ] = None,
    keep_old: Annotated[bool, Opt(check="unetkit.training.recipes:check_keep_old")] = False,
    folds: Annotated[int, Opt(metavar="K", min=1)] = 1,
    normalization: Annotated[
        Literal["percentile", "zscore", "range", "none"] | None, Opt(default="percentile")
    ] = None,
    tensorboard: Annotated[str | None, Opt(metavar="DIR", panel="Output")] = None,
    freeze_encoder: Annotated[int, Opt(min=0, panel="Model")] = 0,
    seed: Seed = 0,
    channels: Channels = None,
    labels: LabelName = None,
    axes: Axes = None,
    pixel_size: PixelSize = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Samplers = None,
    nonfinite: Literal["error", "fill"] = "error",
    accumulate: Annotated[int, Opt(min=1, panel="Hardware")] = 1,
    resume: bool = False,
    keep_state: Annotated[bool, Opt(panel="Output")] = False,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.models.model_header:check_new_models")
    ] = False,
    break_lock: BreakLock = False,
    progress: Progress = SILENT,
) -> TrainReport | FoldsReport:
    """Learn from a dataset and write a model file.

    A part of the data is held out by what it was made from, and scored with the tiler that
    predicts slides: mean average precision for instances, mean Dice for class maps. The best
    network is kept, with the threshold, least size and growth that score best there.

    Parameters
    ----------
    source : str
        A dataset with labels; weights are used where it has them, else computed.
    *more : str
        Further datasets. The last one is new, such as corrections, the others are old: each side
        is held out by source and scored by itself, and the network is kept whose two scores,
        weighted as their tiles are, are best.
    output : str
        Where the model file is written.
    model : str, optional
        Name of an installed model; left out, that of `init` where one is given.
    options : sequence of str
        An option of the model, such as ``width=16``; may be repeated.
    recipe : str
        How to learn: ``default``, or ``paper`` for the original's settings.
    recipe_set : sequence of str
        A number of the recipe, such as ``batch=4``; may be repeated.
    loss : str, optional
        What to make small, such as ``unet+0.5*dice``: unet, ce, dice, jaccard, tversky, focal,
        lovasz.
    steps : int, optional
        Updates of the network; with a time budget at most so many.
    time_budget : str, optional
        As many steps as fit: ``90s``, ``20m``, ``1h``; planned by the pace of the first 20 steps,
        and anew after each validation, unless the precision is exact.
    target : str, optional
        What to learn: foreground, foreground+boundary, foreground+distance, boundary or classes;
        or classes+boundary, objects of several classes.
    init : str, optional
        A model file to begin with, also for other channels or classes: its first and last layer
        are adapted. It is kept where no step does better.
    mix : float, optional
        The share of tiles from the new dataset, where there are several; the others are from the
        old ones. A step has two tiles at least, so that it sees both. With 1 the old ones are only
        scored.
    keep_old : bool
        Refuse to publish a network that scores worse on old held-out images than that of `init`,
        beyond the 95 % interval of the difference; the training's state stays.
    folds : int
        Train K models, each with another part held out: ``STEM.fold1.safetensors``, ...; a time
        budget is shared by them.
    normalization : str, optional
        How intensities become the network's input: percentile, zscore, range or none.
    tensorboard : str, optional
        Write curves and pictures for TensorBoard as well, where that is installed.
    freeze_encoder : int
        Steps at the start in which the encoder keeps its weights, for models that have one.
    seed : int
        Same seed, same result: of the first weights, the split, the tiles and the drop-out.
    channels : str, optional
        Channels to use, in this order, by name or number: ``DAPI`` or ``0,2``.
    labels : str, optional
        Which labels to learn, by name, or ``NAME=classes`` for class maps of other writers.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    pixel_size : str, optional
        Learn from all images at this pixel size in micrometres, such as ``0.5``, by resampling
        those of another; weights are computed anew there. Left out, images are taken as they are.
    device : str
        Where the network runs: auto, cpu, cuda, cuda:1 or mps.
    precision : {"auto", "exact", "float32", "bfloat16", "float16"}
        Numbers to compute with; ``exact`` gives the same bits on every run, slower.
    workers : int, optional
        Threads that draw samples; 0 draws them between the steps. They change nothing but the
        time.
    nonfinite : {"error", "fill"}
        What to do about NaN and infinite pixels: stop, or read them as 0.
    accumulate : int
        Compute a batch in so many parts, to take less memory.
    resume : bool
        Go on where a run with the same settings stopped.
    keep_state : bool
        Leave the training's state beside the finished model.
    overwrite : bool
        Replace an earlier result of unetkit.
    break_lock : bool
        Take the result over from another job that is known to be dead.
    progress : Progress
        Told of every step.

    Returns
    -------
    TrainReport, or FoldsReport

    Raises
    ------
    InputError
        If there is nothing to learn from.
    OutputError
        If the model, or what an earlier training left, is there, another job is making it, or
        what is to be resumed was made with other settings.
    NonFiniteError
        If images or the loss are not finite.
    CheckError
        If the network has unlearned, with `keep_old`.
    StoppedError
        If a signal came; the state is kept for `resume`, and the best model so far.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.
    """
    given = TrainOptions(
        model=model,
        options=options,
        recipe=recipe,
        recipe_set=recipe_set,
        loss=loss,
        steps=steps,
        time_budget=time_budget,
        target=target,
        normalization=normalization,
        tensorboard=tensorboard,
        freeze_encoder=freeze_encoder,
        seed=seed,
        channels=channels,
        device=device,
        precision=precision,
        workers=workers,
        nonfinite=nonfinite,
        accumulate=accumulate,
        keep_state=keep_state,
        keep_old=keep_old,
    )
    check_mix(mix, more=more)
    check_keep_old(keep_old, init=init, more=more)
    outputs = folds_of(output, folds)
    if more and folds > 1:
        raise UsageError(
            f"folds must be 1 for several datasets, got {folds}; leave it out, or the other dataset"
        )
    if tensorboard is not None:
        check_tensorboard()
    start = None if init is None else open_start(init)
    # A missing input is told first.
    opened = [
        open_dataset(url, axes=axes, channels=channels, labels=labels) for url in (source, *more)
    ]
    if pixel_size is not None:
        wanted = parse_pixel_size(pixel_size)
        opened = [at_pixel_size(one, wanted) for one in opened]
    dataset, mixed = join_datasets(opened, mix)
    check_channels(dataset, channels, progress)
    inputs = [source, *more] if init is None else [source, *more, init]
    if folds > 1:
        _check_all([path for path, _ in outputs], inputs, resume=resume, overwrite=overwrite)
    claim = partial(
        claim_output, inputs=inputs, resume=resume, overwrite=overwrite, break_lock=break_lock
    )
    # Once for all folds: processes find each other when they start, and never again.
    with init_distributed(hardware.pick_device(device)) as group:
        one = partial(train_one, dataset, given, start=start, mix=mixed, group=group)
        before = warnings_of(progress)
        done = [
            one(partial(claim, path), fold=fold, progress=WarningCollector(progress, before))
            for path, fold in outputs
        ]
        reports = [report for report, _ in done]
        if folds == 1:
            return reports[0]
        maps = [found for _, some in done for found in some]
        decision = _decide_together(reports, maps, seed=seed, progress=progress) if maps else None
    return replace(folds_report(reports), decision=None if decision is None else decision.to_dict())


def _decide_together(
    reports: Sequence[TrainReport], maps: Sequence[HeldOutMap], *, seed: int, progress: Progress
) -> Decision:
    """Fit one decision for all folds, each judged on what it held out, and write it into them."""
    contents = {report.output: Path(report.output).read_bytes() for report in reports}
    headers = [check_content(content, path=path) for path, content in contents.items()]
    target = headers[0].target
    progress.start("fitting the decision", total=rounds(target) * len(maps))
    fit = fit_decision(maps, target=target, advance=progress.advance, seed=seed)
    decision = replace(fit.decision, models=tuple(header.checksum for header in headers))
    held_out = held_out_scores(
        maps,
        decision,
        target=target,
        class_names=headers[0].class_names,
        data=str(headers[0].provenance["data"]),
        seed=seed,
    )
    for path, content in contents.items():
        changed = with_decision(content, decision, held_out=held_out, path=path)
        if changed != content:
            write_bytes(path, changed)
    progress.note(f"All folds together: {decision.sentence(reports[0].score_name)}")
    return decision


def _check_all(
    places: Sequence[str], inputs: Sequence[str], *, resume: bool, overwrite: bool
) -> None:
    """Look at the places of all folds, so that none turns out to be taken after hours."""
    for place in places:
        if not (resume and exists(place)):
            RunFolder(place, inputs=inputs, overwrite=overwrite, resume=resume)


def train_one(
    dataset: Dataset,
    given: TrainOptions,
    claim: Callable[..., AbstractContextManager[TrainingOutput]],
    *,
    fold: Fold | None,
    start: Start | None,
    mix: Mix | None,
    group: ProcessGroup,
    progress: Progress,
    parts: Split | None = None,
) -> tuple[TrainReport, list[HeldOutMap]]:
    """Train one network; with its report comes what it says of what it held out.

    It learns from `parts` where they are given, else from what `split` leaves to learn from.
    """
    began = time.monotonic()
    progress = progress if group.is_main else SILENT
    with claim(group=group, progress=progress) as claimed:
        given = replace(given, precision=claimed.precision(given.precision, group))
        plan = make_plan(
            given,
            start=None if start is None else start.header,
            fold=fold,
            sides=1 if mix is None or mix.share == 1 else 2,
        )
        network, description = prepare(
            plan, dataset, given.target, start=start, mix=mix, progress=progress
        )
        if parts is not None:
            description = replace(description, parts=parts)
        if given.keep_old and start is not None and not is_comparable(description):
            raise UsageError(
                "keep-old must compare with a model of the same channels, classes, target and"
                f" normalization, got another one in {base_name(start.path)!r}; leave --keep-old"
                " out"
            )
        tensorboard = given.tensorboard
        if tensorboard is not None and fold is not None:
            tensorboard = f"{tensorboard}/fold{fold.number}"
        run = TrainingRun(
            description,
            claimed,
            group=group,
            nonfinite=given.nonfinite,
            keep_state=given.keep_state,
            keep_old=given.keep_old,
            tensorboard=tensorboard,
        )
        return run.learn(network.to(group.device), progress, began=began)


def prepare(
    plan: Plan,
    dataset: Dataset,
    target: str | None,
    *,
    start: Start | None,
    mix: Mix | None,
    progress: Progress,
) -> tuple[nn.Module, TrainingDescription]:
    """Find what there is to learn, build the network, and hold a part of the data out."""
    if target is None and start is not None:
        target = target_of(start, dataset)
    task = choose_task(dataset, target, progress)
    hardware.tune_allocator()
    hardware.ask_for_large_pages()
    torch.manual_seed(plan.seed)
    in_channels, names = dataset.samples[0].data.channel_count, task.class_names
    network = build_model(
        plan.model, in_channels=in_channels, classes=len(names), options=plan.options
    )
    notes: Sequence[str] = ()
    if start is not None:
        notes = adapt(
            network, start, options=plan.options, in_channels=in_channels, class_names=names
        )
    freeze(network, model=plan.model, steps=plan.freeze_encoder)
    contract = cast("SizeContract", network.contract)
    apart: dict[str, Any] = {
        "gap": contract.need,
        "seed": plan.seed,
        "has_foreground": task.has_foreground,
    }
    if mix is None:
        parts = split(task.origins(), fold=plan.fold, **apart)
    else:
        parts = split_sides(task.origins(), mix, **apart)
    if plan.fold is not None:
        notes = (f"Fold {plan.fold.number} of {plan.fold.count}.", *notes)
    for note in notes:
        progress.note(note)
    if parts.summary:
        progress.note(parts.summary)
    for note in parts.notes:
        warn(progress, note)
    description = TrainingDescription(
        plan, dataset, task=task, parts=parts, contract=contract, start=start, mix=mix
    )
    notes = _seen_before(description)
    for note in notes:
        warn(progress, note)
    return network, description


def _seen_before(description: TrainingDescription) -> tuple[str, ...]:
    """Say how many of the old held-out samples the model at the start has learned from."""
    mix, start = description.mix, description.start
    if mix is None or start is None:
        return ()
    known = start.header.provenance
    learned, kept = (
        {str(name) for name in known.get(key) or ()} for key in ("trained_on", "validated_on")
    )
    held = {region.sample for region in description.parts.validation} - mix.new
    # A single image is on both sides.
    seen = (held & learned) - kept
    if not seen:
        return ()
    return (
        f"The model at the start has learned from {len(seen)} of the {len(held)} samples"
        f" of {mix.names[0]} that are held out now, so that its score on them is too good: the same"
        " --seed as then holds out the same.",
    )
