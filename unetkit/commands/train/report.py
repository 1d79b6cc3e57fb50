"""What a training reports at its end."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unetkit.commands.train.plan import channels_of
from unetkit.models.model_header import ModelHeader
from unetkit.storage.urls import base_name
from unetkit.training.run_folder import log_of
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unetkit.commands.train.comparison import Comparison
    from unetkit.commands.train.initial_weights import Start
    from unetkit.commands.train.mixing import Mix
    from unetkit.commands.train.plan import LearningTask, Plan
    from unetkit.geometry.sizes import SizeContract
    from unetkit.models.decision import Decision
    from unetkit.storage.datasets import Dataset
    from unetkit.training.loop import TrainingResult
    from unetkit.training.split import Split


@dataclass(frozen=True)
class TrainingDescription:
    """What is known of a training before its first step; nothing in it tells the time."""

    plan: Plan
    dataset: Dataset
    task: LearningTask
    parts: Split
    contract: SizeContract
    start: Start | None = None  # the model whose weights were the first ones
    intensities: dict[str, Any] | None = None  # of the images that are learned from, once known
    mix: Mix | None = None  # what of it is new, where there are several datasets

    @property
    def samples(self) -> list[str]:
        """Names of the samples that are used."""
        regions = (*self.parts.train, *self.parts.validation)
        return sorted({region.sample for region in regions})

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that it learns from."""
        return (base_name(self.dataset.url),) if self.mix is None else tuple(self.mix.names)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: what is trained, on what, and how."""
        plan = self.plan
        return {
            "unetkit": __version__,
            "torch": version("torch"),
            "machine": platform.machine(),
            "data": base_name(self.dataset.url),
            "model": plan.model,
            "options": plan.options,
            "recipe": plan.recipe,
            "recipe_changed": plan.changed,
            "loss_function": plan.numbers.loss,
            "steps": plan.steps,
            "time_budget": plan.budget,
            # Descriptions of earlier versions lack it: there a budget had no such bound.
            **({} if plan.most_steps is None else {"most_steps": plan.most_steps}),
            "seed": plan.seed,
            "fold": None if plan.fold is None else asdict(plan.fold),
            "init": None if self.start is None else self.start.to_dict(),
            "normalization": plan.normalization,
            "freeze_encoder": plan.freeze_encoder,
            "device": plan.device,
            "precision": plan.precision,
            "target": self.task.target,
            "trained_on": sorted({region.sample for region in self.parts.train}),
            "validated_on": sorted({region.sample for region in self.parts.validation}),
            **({} if self.mix is None else {**self.mix.to_dict(), "datasets": self.mix.names}),
        }

    def header(
        self, step: int, scores: Mapping[str, Any], *, steps: int, warnings: Sequence[str] = ()
    ) -> ModelHeader:
        """Describe the model that was reached after `step` of `steps`, as far as is known."""
        first = self.dataset.samples[0]
        return ModelHeader(
            model=self.plan.model,
            options=self.plan.options,
            in_channels=first.data.channel_count,
            class_names=self.task.class_names,
            target=self.task.target,
            contract=self.contract,
            normalization=self.plan.normalization,
            channels=channels_of(self.dataset, self.plan.channels),
            pixel_size=first.image.pixel_size,
            intensities=self.intensities,
            scores=dict(scores),
            provenance={
                **self.to_dict(),
                "command": "train",
                "steps": steps,
                "best_step": step,
                **({"warnings": list(warnings)} if warnings else {}),
            },
        )


@dataclass(frozen=True)
class TrainReport:
    """What was learned."""

    output: str
    log: str  # one JSON object a line: steps and validations
    steps: int
    best_step: int  # whose network was kept
    stopped_early: bool  # since nothing became better
    score: float  # of the kept network: mean average precision for instances, mean Dice for classes
    score_name: str  # "AP" or "Dice"
    scores: dict[str, Any]
    trained_on: int  # regions on each side of the split; a single image counts on both
    validated_on: int
    skipped_unlabelled: int
    model: str
    device: str
    precision: str
    seconds: float = field(compare=False)  # of a training that was resumed: since then
    steps_total: int  # planned, in the place of a `--time-budget`
    resumed_at_step: int | None = None
    decision: dict[str, Any] | None = None  # how objects and classes are decided, where fitted
    warnings: tuple[str, ...] = ()  # with those of before it was resumed
    # The scores of old and new held-out images, and what they were before, of several datasets.
    comparison: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {**asdict(self), "warnings": list(self.warnings)}
        return {k: v for k, v in told.items() if k != "comparison" or v is not None}


def report(
    description: TrainingDescription,
    outcome: TrainingResult,
    *,
    output: str,
    seconds: float,
    steps_total: int,
    resumed_at_step: int | None,
    decision: Decision | None = None,
    comparison: Comparison | None = None,
) -> TrainReport:
    """Say how a training ended."""
    return TrainReport(
        output=output,
        log=log_of(output),
        steps=outcome.steps,
        best_step=outcome.best_step,
        stopped_early=outcome.stopped_early,
        score=outcome.best.score,
        score_name=description.task.score,
        scores={**outcome.best.scores, "loss": outcome.best.loss},
        trained_on=len(description.parts.train),
        validated_on=len(description.parts.validation),
        skipped_unlabelled=description.task.unlabelled,
        model=description.plan.model,
        device=description.plan.device,
        precision=description.plan.precision,
        seconds=seconds,
        steps_total=steps_total,
        resumed_at_step=resumed_at_step,
        decision=None if decision is None else decision.to_dict(),
        comparison=None if comparison is None else comparison.to_dict(),
    )
