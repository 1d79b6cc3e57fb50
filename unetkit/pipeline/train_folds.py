"""Several models of one dataset, each with another part of it held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from unetkit.errors import UsageError
from unetkit.training.split import Fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.pipeline.train_report import TrainReport

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FoldsReport:
    """What was learned in all folds.

    Attributes
    ----------
    output : str
        The model file of the first fold.
    outputs : tuple of str
        The model files of all folds; `tile-predict` averages what they say.
    folds : int
        How many there are.
    score : float
        The mean of the folds' scores, each on what it held out: what can be expected of one such
        model on other images like these.
    spread : float
        The standard deviation of the folds' scores.
    report : tuple of dict
        Of every fold its score, its steps, and how many regions are on each side.
    model, device, precision : str
        What was trained, and how it was computed.
    seconds : float
        How long it took.
    """

    output: str
    outputs: tuple[str, ...]
    folds: int
    score: float
    spread: float
    report: tuple[dict[str, Any], ...]
    model: str
    device: str
    precision: str
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "outputs": list(self.outputs), "report": list(self.report)}


def folds_of(output: str, folds: int) -> list[tuple[str, Fold | None]]:
    """Name the model file of every fold; where there is one only, it is no fold.

    Raises
    ------
    UsageError
        If there is less than one fold.

    Examples
    --------
    >>> [place for place, _ in folds_of("model.safetensors", 2)]
    ['model.fold1.safetensors', 'model.fold2.safetensors']
    """
    if folds < 1:
        raise UsageError(f"folds must be at least 1, got {folds}; leave it out for one model")
    if folds == 1:
        return [(output, None)]
    stem = output.removesuffix(SUFFIX)
    # What has another suffix is refused where it is about to be made.
    suffix = output[len(stem) :]
    return [(f"{stem}.fold{k}{suffix}", Fold(k, folds)) for k in range(1, folds + 1)]


def folds_report(reports: Sequence[TrainReport]) -> FoldsReport:
    """Sum up what the folds report; at least two."""
    first = reports[0]
    rows = [
        {
            "fold": number,
            "score": one.score,
            "best_step": one.best_step,
            "steps": one.steps,
            "trained_on": one.trained_on,
            "validated_on": one.validated_on,
            "output": one.output,
        }
        for number, one in enumerate(reports, start=1)
    ]
    return FoldsReport(
        output=first.output,
        outputs=tuple(one.output for one in reports),
        folds=len(reports),
        score=fmean(one.score for one in reports),
        spread=stdev(one.score for one in reports),
        report=tuple(rows),
        model=first.model,
        device=first.device,
        precision=first.precision,
        seconds=round(sum(one.seconds for one in reports), 1),
    )
