"""What a training says of itself: the first line of its log, and the header of its model."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unetkit.models.modelheader import ModelHeader
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.train_data import Lesson
    from unetkit.pipeline.train_init import Start
    from unetkit.pipeline.train_plan import Plan
    from unetkit.storage.datasets import Dataset
    from unetkit.training.split import Split


@dataclass(frozen=True)
class Facts:
    """What is known of a training before its first step; nothing in it tells the time.

    Parameters
    ----------
    plan : Plan
        How it is done.
    dataset : Dataset
        What it reads.
    lesson : Lesson
        What is learned.
    parts : Split
        What is learned from, and what validates.
    contract : SizeContract
        The network's.
    start : Start, optional
        The model whose weights were the first ones.
    intensities : dict, optional
        What the images look like that are learned from, once it is known.
    """

    plan: Plan
    dataset: Dataset
    lesson: Lesson
    parts: Split
    contract: SizeContract
    start: Start | None = None
    intensities: dict[str, Any] | None = None

    @property
    def samples(self) -> list[str]:
        """Names of the samples that are used."""
        regions = (*self.parts.train, *self.parts.validation)
        return sorted({region.sample for region in regions})

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: what is trained, on what, and how."""
        plan = self.plan
        return {
            "unetkit": version("unetkit"),
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
            "seed": plan.seed,
            "fold": None if plan.fold is None else asdict(plan.fold),
            "init": None if self.start is None else self.start.to_dict(),
            "normalization": plan.normalization,
            "freeze_encoder": plan.freeze_encoder,
            "device": plan.device,
            "precision": plan.precision,
            "target": self.lesson.target,
            "trained_on": sorted({region.sample for region in self.parts.train}),
            "validated_on": sorted({region.sample for region in self.parts.validation}),
        }

    def header(self, step: int, scores: Mapping[str, Any], *, steps: int) -> ModelHeader:
        """Describe the model that was reached.

        Parameters
        ----------
        step : int
            The step after which it was kept.
        scores : mapping of str
            What it reached on the held-out data.
        steps : int
            Steps of the whole training, as far as is known.
        """
        first = self.dataset.samples[0]
        return ModelHeader(
            model=self.plan.model,
            options=self.plan.options,
            in_channels=first.data.channel_count,
            class_names=self.lesson.class_names,
            target=self.lesson.target,
            contract=self.contract,
            normalization=self.plan.normalization,
            channels=self.plan.channels,
            pixel_size=first.image.pixel_size,
            intensities=self.intensities,
            scores=dict(scores),
            provenance={**self.to_dict(), "command": "train", "steps": steps, "best_step": step},
        )
