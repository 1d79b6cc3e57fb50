"""What an evaluation found, for one prediction and for several, and the bounds it is held to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.arrays import catalogue
from unetkit.errors import CheckError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.arrays.scores import Scores
    from unetkit.pipeline.evaluate_reasons import Facts
    from unetkit.pipeline.evaluate_sure import Certainty, Comparison

# The version of the report; `unetkit/data/eval.schema.json` describes it.
VERSION = 2


@dataclass(frozen=True)
class EvaluateReport:
    """How well a prediction meets the truth.

    Attributes
    ----------
    prediction, truth : str
        What was compared.
    kind : str
        `instances` or `classes`: which labels.
    overall : Scores
        Of all samples as one: their tables pooled, each object and pixel counting once.
    mean : Scores
        The mean of the samples' scores, over those to which a score applies.
    samples : dict of str to Scores
        By the sample's name in the truth, in its order.
    certainty : Certainty
        Intervals of the overall scores.
    facts : Facts
        What decides which scores there can be.
    sweep : tuple of dict
        Scores of thin borders at each threshold of a probability map, where these were asked for.
    curve : tuple of dict
        Scores of pixels at each threshold of a probability map, label by label, where there is one.
    unlabelled, unpaired : tuple of str
        Samples that were left out: of the truth, because they have no labels, and of the
        prediction, because the truth has no labels for them.
    tiles_total, tiles_reused : int
        Blocks and planes that were scored, and those of them that an earlier run had done.
    """

    prediction: str
    truth: str
    kind: str
    overall: Scores
    mean: Scores
    samples: dict[str, Scores]
    certainty: Certainty
    facts: Facts
    sweep: tuple[dict[str, float | None], ...] = ()
    curve: tuple[dict[str, Any], ...] = ()
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    tiles_total: int = 0
    tiles_reused: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold; a score that is not there is None.

        `reasons` says why, by score; those of a sample only where they are not those overall.
        """
        overall = self.facts.reasons(self.overall)
        return {
            "version": VERSION,
            "prediction": self.prediction,
            "truth": self.truth,
            "kind": self.kind,
            "overall": {**self.overall.to_dict(), "reasons": overall},
            "mean": {**self.mean.to_dict(), "reasons": self.facts.reasons(self.mean)},
            "samples": [
                {
                    "name": name,
                    **one.to_dict(),
                    "reasons": _without(self.facts.reasons(one), overall),
                }
                for name, one in self.samples.items()
            ],
            "certainty": self.certainty.to_dict(),
            "sweep": list(self.sweep),
            "curve": list(self.curve),
            "unlabelled": list(self.unlabelled),
            "unpaired": list(self.unpaired),
            "tiles_total": self.tiles_total,
            "tiles_reused": self.tiles_reused,
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold the overall scores to bounds.

        Parameters
        ----------
        bounds : sequence of str
            Such as `dice=0.9`. A score of which 0 is best must not be above its bound, any other
            not below; one that does not apply does not hold.

        Raises
        ------
        UsageError
            If a bound names no score, or no number.
        CheckError
            If one does not hold.
        """
        overall = self.overall.to_dict()
        for name, bound in map(parse_bound, bounds):
            found = catalogue.value_of(name, overall)
            score = catalogue.score_named(name)
            if score is None or score.fails(found, bound):
                side = "at most" if score and score.best == 0 else "at least"
                got = "none" if found is None else f"{found:.6g}"
                raise CheckError(
                    f"{name} of {self.prediction} must be {side} {bound:g}, got {got}; "
                    "see which samples are worst"
                )


@dataclass(frozen=True)
class CompareReport:
    """Several predictions of one truth, side by side.

    Attributes
    ----------
    truth : str
    reports : tuple of EvaluateReport
        One a prediction.
    comparisons : tuple of Comparison
        Of every two, in every score that has intervals.
    reason : str or None
        Why there are none.
    """

    truth: str
    reports: tuple[EvaluateReport, ...]
    comparisons: tuple[Comparison, ...]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        rows = [asdict(row) for row in self.comparisons]
        return {
            "version": VERSION,
            "truth": self.truth,
            "predictions": [report.to_dict() for report in self.reports],
            "comparisons": [
                row | {"interval": None if row["interval"] is None else list(row["interval"])}
                for row in rows
            ],
            "reason": self.reason,
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold each prediction to bounds; see `EvaluateReport.check`."""
        for report in self.reports:
            report.check(bounds)


def _without(reasons: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in reasons.items() if known.get(name) != text}


def parse_bound(text: str) -> tuple[str, float]:
    """Read a bound such as `dice=0.9`.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of str and float

    Raises
    ------
    UsageError
        If it names no score, or no number.
    """
    name, _, number = text.partition("=")
    if catalogue.score_named(name) is None:
        raise UsageError(
            f"--fail-under must name a score, got {name!r}; 'unetkit eval --list' shows them"
        )
    try:
        return name, float(number)
    except ValueError as error:
        raise UsageError(
            f"--fail-under must give a number after '=', got {text!r}; try {name}=0.9"
        ) from error
