"""The training loop, to be read from top to bottom; it does not know files or datasets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from unetkit.errors import UsageError
from unetkit.training.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from unetkit.training.pace import Pace
    from unetkit.training.recipes import Recipe
    from unetkit.training.sampler import Batch

# Validations without a better score after which training ends.
PATIENCE = 5


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


class Watcher(Protocol):
    """Who is told what happens, and may end it by an exception."""

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        """Hear, after some steps, how many there will be and how long one takes."""

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Hear of a finished step, counted from 1; no loss: it was skipped."""

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Hear of a validation."""

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Take the best network so far; it will be changed by the next steps."""


@dataclass(frozen=True)
class Outcome:
    """How the training ended.

    Parameters
    ----------
    steps : int
        Steps that were made.
    best_step : int
        The step whose network was kept.
    best : Validation
        Its scores.
    stopped_early : bool
        Whether it ended since nothing became better.
    """

    steps: int
    best_step: int
    best: Validation
    stopped_early: bool


def fit(
    network: nn.Module,
    batches: Iterator[Batch],
    *,
    recipe: Recipe,
    pace: Pace,
    precision: str,
    validate: Callable[[nn.Module], Validation],
    watcher: Watcher,
) -> Outcome:
    """Train a network, and hand the best one to the watcher.

    Parameters
    ----------
    network : nn.Module
        On its device; trained in place.
    batches : iterator of Batch
        One a step.
    recipe : Recipe
        How to learn.
    pace : Pace
        How many steps to make, and when to validate.
    precision : str
        As for `hardware.forward`.
    validate : callable
        Scores a network on the held-out data.
    watcher : Watcher
        Told of everything.

    Returns
    -------
    Outcome

    Raises
    ------
    NumbersError
        If the loss was not finite for ten steps in a row.
    UsageError
        If there is no step to make.
    """
    learner = Learner(network, recipe, precision=precision)
    best: tuple[int, Validation] | None = None
    step = since_best = 0
    while step < pace.steps and since_best < PATIENCE:
        pace.begin_step()
        rate = recipe.rate(step, pace.steps)
        loss = learner.learn(next(batches), rate=rate)
        step += 1
        if pace.found(step):
            watcher.planned(step, steps=pace.steps, seconds_a_step=pace.seconds_a_step or 0.0)
        watcher.stepped(step, loss=loss, rate=rate)
        if not pace.is_time_to_validate(step):
            continue
        with learner.average.inside(network):
            found = validate(network)
            better = best is None or found.rank > best[1].rank
            watcher.validated(step, found, better=better)
            if better:
                best = step, found
                watcher.kept(step, network, found)
        since_best = 0 if better else since_best + 1
    if best is None:
        raise UsageError(f"steps must be at least 1, got {pace.steps}; leave it out for 1000")
    return Outcome(step, best[0], best[1], stopped_early=step < pace.steps)
