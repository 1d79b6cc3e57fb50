"""Learn from a dataset and write a model file."""

from __future__ import annotations

import math
import platform
import re
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from unetkit.engine.signals import stoppable
from unetkit.errors import UsageError
from unetkit.models import hardware
from unetkit.models.modelfile import make, parse_options
from unetkit.models.modelheader import ModelHeader
from unetkit.pipeline.train_data import choose_lesson, count_classes, materials
from unetkit.pipeline.train_validation import Examiner
from unetkit.pipeline.train_watch import Reporter
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import open_dataset
from unetkit.storage.urls import base_name
from unetkit.training.checkpoint import Workplace
from unetkit.training.loop import fit
from unetkit.training.recipes import choose_recipe
from unetkit.training.sampler import Sampler
from unetkit.training.split import split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.train_data import Lesson
    from unetkit.storage.datasets import Dataset
    from unetkit.training.recipes import Recipe
    from unetkit.training.split import Split

NORMALIZATION = "percentile"
# How many validations there are at most: each then sees a network that has changed.
VALIDATIONS = 10
# A step runs the network forward and back, a validation forward only.
PASSES = 3


@dataclass(frozen=True)
class TrainReport:
    """What was learned.

    Attributes
    ----------
    output : str
        The model file.
    log : str
        One JSON object a line: steps and validations.
    steps : int
        Steps that were made.
    best_step : int
        The step whose network was kept.
    stopped_early : bool
        Whether it ended since nothing became better.
    scores : dict
        What the kept network reached on the held-out data.
    trained_on, validated_on : int
        Samples with labels on each side of the split; a single image counts on both.
    skipped_unlabelled : int
        Samples without labels.
    model, device, precision : str
        What was trained, and how it was computed.
    seconds : float
        How long it took.
    """

    output: str
    log: str
    steps: int
    best_step: int
    stopped_early: bool
    scores: dict[str, Any]
    trained_on: int
    validated_on: int
    skipped_unlabelled: int
    model: str
    device: str
    precision: str
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class _Plan:
    """What is decided before the first step."""

    model: str
    options: dict[str, Any]
    recipe: str
    steps: int
    budget: float | None
    seed: int
    channels: str | None
    device: torch.device
    precision: str
    workers: int


def train(
    source: str,
    *,
    output: str = "model.safetensors",
    model: str = "unet",
    options: Sequence[str] = (),
    recipe: str = "default",
    steps: int = 1000,
    time_budget: str | None = None,
    target: str | None = None,
    seed: int = 0,
    channels: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    nonfinite: Literal["error", "fill"] = "error",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> TrainReport:
    """Train a network on the labelled samples of a dataset, and keep the best one.

    A part of the data is held out by what it was made from, and scored with the tiler that
    predicts slides: mean average precision for instances, mean Dice for class maps.

    Parameters
    ----------
    source : str
        A dataset with labels; weights are used where it has them, else computed.
    output : str
        The model file.
    model : str
        Registry name of the network.
    options : sequence of str
        Its options, such as ``width=16``.
    recipe : str
        ``default`` or ``paper``.
    steps : int
        Updates of the network.
    time_budget : str, optional
        ``90s``, ``20m`` or ``1h``; replaces `steps` once the pace is known.
    target : str, optional
        What is learned; left out, ``foreground`` from instances, ``classes`` from class maps.
    seed : int
        Of the first weights, the split, the tiles and the drop-out.
    channels : str, optional
        Which channels, in which order.
    device, precision : str
        As for `unetkit.models.hardware`; ``auto`` is the fastest that the device has.
    workers : int, optional
        Threads that draw tiles; they change nothing but the time.
    nonfinite : {"error", "fill"}
        What to do about NaN and Inf in images: refuse, or take them for 0.
    overwrite : bool
        Replace an earlier model.
    progress : Progress
        Told of every step.

    Returns
    -------
    TrainReport

    Raises
    ------
    InputError
        If there is nothing to learn from.
    OutputError
        If the model, or what an earlier training left, is there.
    NumbersError
        If images or the loss are not finite.
    StoppedError
        If a signal came; the best model so far is kept.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.
    """
    began = time.monotonic()
    plan = _plan(
        model,
        options,
        recipe=recipe,
        steps=steps,
        time_budget=time_budget,
        seed=seed,
        channels=channels,
        device=device,
        precision=precision,
        workers=workers,
    )
    workplace = Workplace(output, inputs=[source], overwrite=overwrite)
    dataset = open_dataset(source, channels=channels)
    lesson = count_classes(choose_lesson(dataset, target, progress), progress)
    network = _network(plan, dataset, lesson)
    contract = cast("SizeContract", network.contract)
    parts = split(lesson.origins(), gap=contract.need, seed=seed)
    for note in parts.notes:
        progress.note(note)
    names = [region.sample for region in (*parts.train, *parts.validation)]
    known = materials(
        lesson, names, normalization=NORMALIZATION, nonfinite=nonfinite, progress=progress
    )
    chosen = choose_recipe(recipe)
    sampler = Sampler(known, parts.train, contract=contract, recipe=chosen, seed=seed)
    examiner = Examiner(
        lesson, known, regions=parts.validation, contract=contract, precision=plan.precision
    )
    with ExitStack() as stack:
        stop = stack.enter_context(stoppable())
        stack.enter_context(workplace)
        batches = stack.enter_context(sampler.batches(workers=plan.workers))
        reporter = Reporter(
            progress,
            workplace,
            header=lambda step, scores: _header(
                plan, dataset, lesson=lesson, parts=parts, contract=contract, reached=(step, scores)
            ),
            stop=stop,
            options=plan.options,
        )
        reporter.start(plan.steps, _facts(plan, dataset, lesson=lesson, parts=parts))
        outcome = fit(
            network,
            batches,
            recipe=chosen,
            steps=plan.steps,
            budget=plan.budget,
            precision=plan.precision,
            every=_pace(sampler, examiner, chosen),
            validate=examiner,
            watcher=reporter,
        )
        workplace.publish()
    return TrainReport(
        output=output,
        log=workplace.log,
        steps=outcome.steps,
        best_step=outcome.best_step,
        stopped_early=outcome.stopped_early,
        scores={**outcome.best.scores, "loss": outcome.best.loss},
        trained_on=len(parts.train),
        validated_on=len(parts.validation),
        skipped_unlabelled=lesson.unlabelled,
        model=model,
        device=str(plan.device),
        precision=plan.precision,
        seconds=round(time.monotonic() - began, 1),
    )


def _plan(
    model: str,
    options: Sequence[str],
    *,
    device: str,
    precision: str,
    steps: int,
    time_budget: str | None,
    workers: int | None,
    recipe: str,
    seed: int,
    channels: str | None,
) -> _Plan:
    """Judge everything that can be judged before any data is opened."""
    if steps < 1:
        raise UsageError(f"steps must be at least 1, got {steps}; leave it out for 1000")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}; leave it out for 2")
    choose_recipe(recipe)
    where = hardware.pick_device(device)
    fitting = precision
    if precision == "auto":
        fitting = hardware.low_precision(where) or "float32"
    elif precision not in hardware.PRECISIONS:
        known = ", ".join(("auto", *hardware.PRECISIONS))
        raise UsageError(f"precision must be one of {known}, got {precision!r}")
    return _Plan(
        model=model,
        options=parse_options(options, model),
        recipe=recipe,
        steps=steps,
        budget=None if time_budget is None else seconds(time_budget),
        seed=seed,
        channels=channels,
        device=where,
        precision=fitting,
        workers=workers or 2,
    )


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``20m``, ``1.5h`` or ``120``.

    Raises
    ------
    UsageError
        If it is none, or not more than 0.

    Examples
    --------
    >>> seconds("20m")
    1200.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    value = float(found[1]) * {"m": 60, "min": 60, "h": 3600}.get(found[2], 1) if found else 0.0
    if value <= 0:
        raise UsageError(f"time-budget must be a time such as 90s, 20m or 1h, got {text!r}")
    return value


def _network(plan: _Plan, dataset: Dataset, lesson: Lesson) -> nn.Module:
    """Build the network with its first weights."""
    hardware.tune_allocator()
    torch.manual_seed(plan.seed)
    network = make(
        plan.model,
        in_channels=dataset.samples[0].data.channel_count,
        classes=len(lesson.class_names),
        options=plan.options,
    )
    return network.to(plan.device)


def _pace(sampler: Sampler, examiner: Examiner, recipe: Recipe) -> Callable[[int], int]:
    """Validate a tenth of the time at most.

    Pixels are counted, not seconds: a slower machine must not keep another network.
    """
    step = PASSES * recipe.batch * sampler.size**2
    rarest = math.ceil(10 * examiner.pixels_read / step)
    return lambda steps: min(steps, max(1, steps // VALIDATIONS, rarest))


def _facts(plan: _Plan, dataset: Dataset, *, lesson: Lesson, parts: Split) -> dict[str, Any]:
    """Say what is trained, on what and how: the first line of the log."""
    return {
        "unetkit": version("unetkit"),
        "torch": version("torch"),
        "machine": platform.machine(),
        "data": base_name(dataset.url),
        "model": plan.model,
        "options": plan.options,
        "recipe": plan.recipe,
        "steps": plan.steps,
        "time_budget": plan.budget,
        "seed": plan.seed,
        "device": plan.device.type,
        "precision": plan.precision,
        "target": lesson.target,
        "trained_on": sorted({region.sample for region in parts.train}),
        "validated_on": sorted({region.sample for region in parts.validation}),
    }


def _header(
    plan: _Plan,
    dataset: Dataset,
    *,
    lesson: Lesson,
    parts: Split,
    contract: SizeContract,
    reached: tuple[int, Mapping[str, Any]],
) -> ModelHeader:
    step, scores = reached
    first = dataset.samples[0]
    return ModelHeader(
        model=plan.model,
        options=plan.options,
        in_channels=first.data.channel_count,
        class_names=lesson.class_names,
        target=lesson.target,
        contract=contract,
        normalization=NORMALIZATION,
        channels=plan.channels,
        pixel_size=first.image.pixel_size,
        scores=dict(scores),
        provenance={
            **_facts(plan, dataset, lesson=lesson, parts=parts),
            "command": "train",
            "best_step": step,
        },
    )
