"""What a training reports at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unetkit.training.checkpoint import log_of

if TYPE_CHECKING:
    from unetkit.pipeline.train_facts import Facts
    from unetkit.training.loop import Outcome


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
    score : float
        What the kept network reached on the held-out data: the mean average precision for
        instances, the mean Dice for classes.
    score_name : str
        ``AP`` or ``Dice``.
    scores : dict
        All of its scores there.
    trained_on, validated_on : int
        Samples with labels on each side of the split; a single image counts on both.
    skipped_unlabelled : int
        Samples without labels.
    model, device, precision : str
        What was trained, and how it was computed.
    seconds : float
        How long it took; of a training that was resumed since then.
    steps_total : int
        Steps that were planned, by which a `--time-budget` was replaced.
    resumed_at_step : int, optional
        Steps that were made before this training went on with them.
    """

    output: str
    log: str
    steps: int
    best_step: int
    stopped_early: bool
    score: float
    score_name: str
    scores: dict[str, Any]
    trained_on: int
    validated_on: int
    skipped_unlabelled: int
    model: str
    device: str
    precision: str
    seconds: float = field(compare=False)
    steps_total: int
    resumed_at_step: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def report(
    facts: Facts,
    outcome: Outcome,
    *,
    output: str,
    seconds: float,
    steps_total: int,
    resumed_at_step: int | None,
) -> TrainReport:
    """Say how a training ended.

    Parameters
    ----------
    facts : Facts
        What was learned, and how.
    outcome : Outcome
        What came of it.
    output : str
        The model file.
    seconds : float
        How long it took.
    steps_total : int
        Steps that were planned.
    resumed_at_step : int, optional
        The step from which it went on.
    """
    return TrainReport(
        output=output,
        log=log_of(output),
        steps=outcome.steps,
        best_step=outcome.best_step,
        stopped_early=outcome.stopped_early,
        score=outcome.best.score,
        score_name=facts.lesson.score,
        scores={**outcome.best.scores, "loss": outcome.best.loss},
        trained_on=len(facts.parts.train),
        validated_on=len(facts.parts.validation),
        skipped_unlabelled=facts.lesson.unlabelled,
        model=facts.plan.model,
        device=facts.plan.device,
        precision=facts.plan.precision,
        seconds=seconds,
        steps_total=steps_total,
        resumed_at_step=resumed_at_step,
    )
