"""How far a training has come, as numbers that JSON can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Validation:
    """What the held-out data says of the network.

    Parameters
    ----------
    score : float
        What the best network has most of.
    loss : float
        Decides between equal scores.
    scores : dict
        All scores, for people.
    """

    score: float
    loss: float
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, float]:
        """The higher the better; scores that differ by less than a thousandth are equal."""
        return round(self.score, 3), -self.loss


@dataclass
class Position:
    """How far a training has come.

    Parameters
    ----------
    step : int
        Steps that are made.
    validated : int
        Steps that were made when the last validation was done.
    best_step : int
        Steps of the best network so far.
    best : Validation, optional
        Its scores.
    since_best : int
        Validations since then.
    """

    step: int = 0
    validated: int = 0
    best_step: int = 0
    best: Validation | None = None
    since_best: int = 0

    def judge(self, found: Validation) -> bool:
        """Take the scores of this step's network, and say whether it is the best so far."""
        self.validated = self.step
        better = self.best is None or found.rank > self.best.rank
        self.since_best = 0 if better else self.since_best + 1
        if better:
            self.best_step, self.best = self.step, found
        return better

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        best = found["best"]
        return cls(**{**found, "best": None if best is None else Validation(**best)})
