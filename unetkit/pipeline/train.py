"""Learn from a dataset and write a model file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, cast

import torch

from unetkit.engine.signals import stoppable
from unetkit.models import hardware
from unetkit.models.modelfile import make
from unetkit.pipeline.train_data import choose_lesson
from unetkit.pipeline.train_facts import NORMALIZATION, Facts
from unetkit.pipeline.train_materials import materials
from unetkit.pipeline.train_plan import make_plan
from unetkit.pipeline.train_report import TrainReport, report
from unetkit.pipeline.train_validation import Examiner
from unetkit.pipeline.train_watch import Reporter
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import open_dataset
from unetkit.training.blocks import BlockCache
from unetkit.training.checkpoint import Workplace
from unetkit.training.freezing import freeze, thaw_after
from unetkit.training.loop import fit
from unetkit.training.pace import Pace
from unetkit.training.sampler import Sampler
from unetkit.training.split import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.train_plan import Plan
    from unetkit.storage.datasets import Dataset
    from unetkit.training.loop import Outcome

__all__ = ["TrainReport", "train"]

# A step runs the network forward and back, a validation forward only.
PASSES = 3


def train(
    source: str,
    *,
    output: str = "model.safetensors",
    model: str = "unet",
    options: Sequence[str] = (),
    recipe: str = "default",
    recipe_set: Sequence[str] = (),
    loss: str | None = None,
    steps: int = 1000,
    time_budget: str | None = None,
    target: str | None = None,
    freeze_encoder: int = 0,
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
    recipe_set : sequence of str
        Numbers of the recipe that are changed, such as ``batch=4``.
    loss : str, optional
        Such as ``unet+0.5*dice``; left out, that of the recipe.
    steps : int
        Updates of the network.
    time_budget : str, optional
        ``90s``, ``20m`` or ``1h``; replaces `steps` once the pace is known.
    target : str, optional
        What is learned; left out, ``foreground`` from instances, ``classes`` from class maps.
    freeze_encoder : int
        Steps at the start in which the encoder keeps its weights; for models that have one.
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
    plan = make_plan(
        model=model,
        options=options,
        recipe=recipe,
        recipe_set=recipe_set,
        loss=loss,
        steps=steps,
        time_budget=time_budget,
        seed=seed,
        channels=channels,
        device=device,
        precision=precision,
        workers=workers,
        freeze_encoder=freeze_encoder,
    )
    dataset = open_dataset(source, channels=channels)
    workplace = Workplace(output, inputs=[source], overwrite=overwrite)
    network, facts = _prepare(plan, dataset, target, progress)
    outcome = _learn(
        network, facts, workplace=workplace, nonfinite=nonfinite, progress=progress, began=began
    )
    if outcome.stopped_early:
        progress.note(f"Ended after {outcome.steps} steps: the score did not rise any more.")
    return report(workplace, facts, outcome, seconds=round(time.monotonic() - began, 1))


def _prepare(
    plan: Plan, dataset: Dataset, target: str | None, progress: Progress
) -> tuple[nn.Module, Facts]:
    """Find what there is to learn, build the network, and hold a part of the data out."""
    lesson = choose_lesson(dataset, target, progress)
    hardware.tune_allocator()
    torch.manual_seed(plan.seed)
    network = make(
        plan.model,
        in_channels=dataset.samples[0].data.channel_count,
        classes=len(lesson.class_names),
        options=plan.options,
    )
    freeze(network, model=plan.model, steps=plan.freeze_encoder)
    contract = cast("SizeContract", network.contract)
    parts = split(
        lesson.origins(), gap=contract.need, seed=plan.seed, has_foreground=lesson.has_foreground
    )
    for note in parts.notes:
        progress.note(note)
    facts = Facts(plan, dataset, lesson=lesson, parts=parts, contract=contract)
    return network.to(plan.device), facts


def _learn(
    network: nn.Module,
    facts: Facts,
    *,
    workplace: Workplace,
    nonfinite: Literal["error", "fill"],
    progress: Progress,
    began: float,
) -> Outcome:
    """Read the samples, train, and publish the best model."""
    plan, cache = facts.plan, BlockCache()
    known = materials(
        facts.lesson,
        facts.samples,
        balance=plan.numbers.balance,
        normalization=NORMALIZATION,
        nonfinite=nonfinite,
        progress=progress,
    )
    sampler = Sampler(
        known,
        facts.parts.train,
        contract=facts.contract,
        recipe=plan.numbers,
        cache=cache,
        seed=plan.seed,
    )
    with stoppable() as stop, workplace, sampler.batches(workers=plan.workers) as batches:
        reporter = Reporter(progress, workplace, facts=facts, stop=stop)
        examiner = Examiner(facts, known, cache=cache, before_each=reporter.examining)
        reporter.start()
        pace = Pace(
            plan.steps,
            budget=None if plan.budget is None else plan.budget - (time.monotonic() - began),
            validation=examiner.pixels_read / (PASSES * sampler.pixels_read),
        )
        outcome = fit(
            network,
            thaw_after(network, batches, steps=plan.freeze_encoder),
            recipe=plan.numbers,
            pace=pace,
            precision=plan.precision,
            validate=examiner,
            watcher=reporter,
        )
        workplace.publish()
    return outcome
