"""The training loop, to be read from top to bottom; it does not know files or datasets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unetkit.errors import StoppedError, UsageError
from unetkit.training.checkpoint import Position, Validation
from unetkit.training.distributed import ALONE
from unetkit.training.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from unetkit.training.checkpoint import Checkpoint
    from unetkit.training.distributed import Group
    from unetkit.training.optimizer import Pace
    from unetkit.training.recipes import Recipe
    from unetkit.training.sampler import Batch


class Store(Protocol):
    """Where states go."""

    def is_due(self) -> bool:
        """Say whether it is time for one."""

    def save(self, state: Checkpoint) -> None:
        """Take one, and write it beside the work."""

    def finish(self) -> None:
        """Wait until it is on the disk."""


class Checkpointer:
    """Copies what a training depends on now and then, and gives it back.

    Parameters
    ----------
    store : Store, optional
        Where copies go; None for processes that don't write, and for trainings that nobody goes
        on with.
    start : Checkpoint, optional
        From where to go on.
    more : callable
        Returns what else belongs to a state, as JSON can hold it.
    group : Group
        Who else trains the network: all copy at the same step.
    final : bool
        Whether the state at the end of the training is kept as well.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        start: Checkpoint | None = None,
        more: Callable[[], dict[str, Any]] = dict,
        group: Group = ALONE,
        final: bool = False,
    ) -> None:
        self._store = store
        self._start = start
        self._more = more
        self._group = group
        self._final = final

    def begin(self, learner: Learner, pace: Pace) -> Position:
        """Bring a training to where it goes on from."""
        position = Position()
        if self._start is not None:
            learner.restore(self._start)
            pace.restore(self._start.facts["pace"])
            position = Position.from_dict(self._start.facts["position"])
        learner.remember(self._start or self._copy(learner, pace, position))
        return position

    def follow(self, learner: Learner, pace: Pace, position: Position) -> None:
        """Keep the state of now where it is time for it."""
        due = self._store is not None and self._store.is_due()
        (due_for_all,) = self._group.first([due])
        if due_for_all:
            self._keep(self._copy(learner, pace, position), learner)

    def end(self, learner: Learner, pace: Pace, position: Position) -> None:
        """Keep the state of a finished training, where that is wanted."""
        if self._final:
            self.finish(learner, pace, position)

    def finish(self, learner: Learner, pace: Pace, position: Position) -> None:
        """Keep the state of now, and wait until it is on the disk."""
        self._keep(self._copy(learner, pace, position), learner)
        if self._store is not None:
            self._store.finish()

    def _keep(self, state: Checkpoint, learner: Learner) -> None:
        # With NaN or Inf in it nobody could go on; the state before it stays.
        if state.is_finite:
            learner.remember(state)
            if self._store is not None:
                self._store.save(state)

    def _copy(self, learner: Learner, pace: Pace, position: Position) -> Checkpoint:
        facts = {"position": position.to_dict(), "pace": pace.to_dict(), "more": self._more()}
        return learner.state(facts)


# Validations without a better score after which training ends, where its rate is constant. A rate
# that falls, and statistics that are frozen in the end, do their work in the last part of the way,
# before which the score may well stand still.
PATIENCE = 5


class Watcher(Protocol):
    """Who is told what happens, and may end it by an exception."""

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        """Hear, after some steps, how many there will be and how long one takes."""

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Hear of a finished step, counted from 1; no loss: it was skipped."""

    def went_back(self, step: int) -> None:
        """Hear that the network is as it was when its state was last kept."""

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Hear of a validation."""

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Take the best network so far; it will be changed by the next steps."""


@dataclass(frozen=True)
class TrainingResult:
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
    checkpointer: Checkpointer | None = None,
    group: Group = ALONE,
    accumulate: int = 1,
) -> TrainingResult:
    """Train a network, and hand the best one to the watcher.

    Parameters
    ----------
    network : nn.Module
        On its device; trained in place.
    batches : iterator of Batch
        One a step, from the first step that is still to be made.
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
    checkpointer : Checkpointer, optional
        Where to go on from, and who keeps the state.
    group : Group
        Who else trains the network.
    accumulate : int
        Parts in which a batch is computed, one after the other.

    Returns
    -------
    TrainingResult

    Raises
    ------
    NonFiniteError
        If the loss was not finite for ten steps in a row, and again after going back.
    StoppedError
        If the watcher ends it; the state is kept.
    UsageError
        If there is no step to make.
    """
    if pace.steps < 1:
        raise UsageError(f"steps must be at least 1, got {pace.steps}; leave it out for 1000")
    learner = Learner(network, recipe, precision=precision, group=group, accumulate=accumulate)
    checkpointer = checkpointer or Checkpointer(group=group)
    at = checkpointer.begin(learner, pace)
    patience = PATIENCE if recipe.schedule == "constant" else math.inf
    try:
        while True:
            if at.step > at.validated and pace.is_time_to_validate(at.step):
                with learner.average.inside(network):
                    _validate(network, at, validate=validate, watcher=watcher, group=group)
            if at.step >= pace.steps or at.since_best >= patience:
                break
            checkpointer.follow(learner, pace, at)
            pace.begin_step()
            rate, sound = recipe.rate(at.step, pace.steps), not learner.went_back
            frozen = recipe.freezes(at.step, pace.steps)
            loss = learner.learn(next(batches), rate=rate, frozen=frozen)
            at.step += 1
            if _found_pace(pace, at.step, group):
                seconds = pace.seconds_a_step or 0.0
                watcher.planned(at.step, steps=pace.steps, seconds_a_step=seconds)
            if sound and learner.went_back:
                watcher.went_back(at.step)
            watcher.stepped(at.step, loss=loss, rate=rate)
    except StoppedError:
        checkpointer.finish(learner, pace, at)
        raise
    checkpointer.end(learner, pace, at)
    best = at.best or Validation(0.0, loss=0.0)
    return TrainingResult(at.step, at.best_step, best, stopped_early=at.step < pace.steps)


def _validate(
    network: nn.Module,
    at: Position,
    *,
    validate: Callable[[nn.Module], Validation],
    watcher: Watcher,
    group: Group,
) -> None:
    """Score the network and keep it where it is the best so far; the others wait for the first."""
    found, stopped = None, None
    if group.leads:
        try:
            found = validate(network)
        except StoppedError as error:
            stopped = error
    number = float(stopped.signal if stopped else 0)
    own = [number, found.score, found.loss] if found else [number, 0.0, 0.0]
    number, score, loss = group.first(own)
    if number:
        raise stopped or StoppedError("the first process was stopped", signal=int(number))
    found = found or Validation(score, loss=loss)
    better = at.judge(found)
    watcher.validated(at.step, found, better=better)
    if better:
        watcher.kept(at.step, network, found)


def _found_pace(pace: Pace, step: int, group: Group) -> bool:
    """Say once that the pace is known; that of the first process holds for all."""
    if pace.seconds_a_step is not None:
        return False
    pace.found(step)
    steps, seconds = group.first([pace.steps, pace.seconds_a_step or 0.0])
    pace.settle(int(steps), seconds or None)
    return pace.seconds_a_step is not None
