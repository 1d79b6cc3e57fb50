"""The training loop, to be read from top to bottom; it does not know files or datasets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from unetkit.errors import StoppedError, UsageError
from unetkit.training.checkpoint import Position, Validation, damaged_state
from unetkit.training.distributed import SINGLE
from unetkit.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from unetkit.training.checkpoint import Checkpoint
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.optimizer import Schedule
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

    Without a store, as for processes that don't write, nothing is saved; all of a group copy at the
    same step. `more` returns what else belongs to a state, as JSON can hold it; `final` keeps the
    state at the end of the training as well.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        start: Checkpoint | None = None,
        more: Callable[[], dict[str, Any]] = dict,
        group: ProcessGroup = SINGLE,
        final: bool = False,
    ) -> None:
        self._store = store
        self._start = start
        self._more = more
        self._group = group
        self._final = final

    def begin(self, trainer: Trainer, schedule: Schedule) -> Position:
        """Bring a training to where it goes on from."""
        position = Position()
        if self._start is not None:
            try:
                trainer.restore(self._start)
                position = Position.from_dict(self._start.facts["position"])
                schedule.restore({**self._start.facts["pace"], "step": position.step})
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                found = f"{type(error).__name__}: {error!s:.80}"
                raise damaged_state("of the earlier training", found) from error
        trainer.remember(self._start or self._copy(trainer, schedule, position))
        return position

    def follow(self, trainer: Trainer, schedule: Schedule, position: Position) -> None:
        """Keep the state of now where it is time for it."""
        due = self._store is not None and self._store.is_due()
        (due_for_all,) = self._group.first([due])
        if due_for_all:
            self._keep(self._copy(trainer, schedule, position), trainer)

    def end(self, trainer: Trainer, schedule: Schedule, position: Position) -> None:
        """Keep the state of a finished training, where that is wanted."""
        if self._final:
            self.finish(trainer, schedule, position)

    def finish(self, trainer: Trainer, schedule: Schedule, position: Position) -> None:
        """Keep the state of now, and wait until it is on the disk."""
        self._keep(self._copy(trainer, schedule, position), trainer)
        if self._store is not None:
            self._store.finish()

    def _keep(self, state: Checkpoint, trainer: Trainer) -> None:
        # With NaN or Inf in it nobody could go on; the state before it stays.
        if state.is_finite:
            trainer.remember(state)
            if self._store is not None:
                self._store.save(state)

    def _copy(self, trainer: Trainer, schedule: Schedule, position: Position) -> Checkpoint:
        facts = {"position": position.to_dict(), "pace": schedule.to_dict(), "more": self._more()}
        return trainer.state(facts)


# Validations without a better score after which training ends, where its rate is constant. A rate
# that falls, and statistics that are frozen in the end, do their work in the last part of the way,
# before which the score may well stand still.
PATIENCE = 5
# The share of the score at the start that a network must have to take its place; our own choice.
SHARE_OF_START = 0.8


class Callback:
    """Is told what happens, and may end the training by an exception."""

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        """Hear, after some steps, how many there will be and how long one takes."""

    def replanned(self, step: int, *, steps: int) -> None:
        """Hear after a validation that there will be another number of steps."""

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Hear of a finished step, counted from 1; no loss: it was skipped."""

    def on_restore(self, step: int) -> None:
        """Hear that the network is as it was when its state was last kept."""

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Hear of a validation."""

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Take the best network so far; it will be changed by the next steps."""

    def ended(self, outcome: TrainingResult) -> None:
        """Hear that it is over."""


@dataclass(frozen=True)
class TrainingResult:
    """How the training ended."""

    steps: int
    best_step: int  # whose network was kept
    best: Validation
    stopped_early: bool  # since nothing became better


def fit(
    network: nn.Module,
    batches: Iterator[Batch],
    *,
    recipe: Recipe,
    schedule: Schedule,
    precision: str,
    validate: Callable[[nn.Module], Validation],
    callback: Callback,
    checkpointer: Checkpointer | None = None,
    group: ProcessGroup = SINGLE,
    accumulate: int = 1,
    start_counts: bool = False,
    doubt: Callable[[], float] = lambda: 0.0,
) -> TrainingResult:
    """Train a network in place, and hand the best one to the callback.

    With `start_counts` that may be the network before its first step, unless a later one scores at
    most so much less as `doubt` says of its score, and no less than `SHARE_OF_START` of it.
    `batches` begin with the first step that is still to be made; `accumulate` is the number of
    parts in which each is computed. Where the callback ends it, the state is kept. A
    NonFiniteError tells of a loss that was not finite in ten steps in a row, and again after going
    back.
    """
    if schedule.steps < 1:
        raise UsageError(f"steps must be at least 1, got {schedule.steps}; leave it out for 1000")
    trainer = Trainer(network, recipe, precision=precision, group=group, accumulate=accumulate)
    checkpointer = checkpointer or Checkpointer(group=group)
    at = checkpointer.begin(trainer, schedule)
    patience = PATIENCE if recipe.schedule == "constant" else math.inf
    judge = partial(_validate, network, at, validate=validate, callback=callback, group=group)
    try:
        if start_counts and at.step == 0 and at.best is None:
            judge()
            (at.doubt,) = group.first([doubt()])
            assert at.best is not None
            at.doubt = min(at.doubt, (1 - SHARE_OF_START) * at.best.score)
        while True:
            if schedule.is_time_to_validate(at.step, since=at.validated):
                schedule.begin_validation()
                with trainer.average.inside(network):
                    judge()
                if _replanned(schedule, at.step, group):
                    callback.replanned(at.step, steps=schedule.steps)
            if at.step >= schedule.steps or at.since_best >= patience:
                break
            checkpointer.follow(trainer, schedule, at)
            schedule.begin_step()
            rate, sound = recipe.rate(at.step, schedule.steps), not trainer.restored
            frozen = recipe.freezes(at.step, schedule.steps)
            loss = trainer.learn(next(batches), rate=rate, frozen=frozen)
            at.step += 1
            if _measured(schedule, at.step, group):
                seconds = schedule.seconds_a_step or 0.0
                callback.planned(at.step, steps=schedule.steps, seconds_a_step=seconds)
            elif schedule.replans and group.first([schedule.is_over()])[0]:
                if schedule.steps > at.step:
                    callback.replanned(at.step, steps=at.step)
                schedule.steps = at.step
            if sound and trainer.restored:
                callback.on_restore(at.step)
            callback.stepped(at.step, loss=loss, rate=rate)
    except StoppedError:
        checkpointer.finish(trainer, schedule, at)
        raise
    checkpointer.end(trainer, schedule, at)
    best = at.best or Validation(0.0, loss=0.0)
    return TrainingResult(at.step, at.best_step, best, stopped_early=at.step < schedule.steps)


def _validate(
    network: nn.Module,
    at: Position,
    *,
    validate: Callable[[nn.Module], Validation],
    callback: Callback,
    group: ProcessGroup,
) -> None:
    """Score the network and keep it where it is the best so far; the others wait for the first."""
    found, stopped = None, None
    if group.is_main:
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
    callback.validated(at.step, found, better=better)
    if better:
        callback.kept(at.step, network, found)


def _replanned(schedule: Schedule, step: int, group: ProcessGroup) -> bool:
    """Plan the rest anew where that is wanted; what the first process finds holds for all."""
    if not schedule.replans:
        return False
    before = schedule.steps
    schedule.replan(step)
    (steps,) = group.first([schedule.steps])
    schedule.steps = int(steps)
    return schedule.steps != before


def _measured(schedule: Schedule, step: int, group: ProcessGroup) -> bool:
    """Say once that the pace is known; that of the first process holds for all."""
    if schedule.seconds_a_step is not None:
        return False
    schedule.found(step)
    steps, seconds = group.first([schedule.steps, schedule.seconds_a_step or 0.0])
    schedule.settle(int(steps), seconds or None)
    return schedule.seconds_a_step is not None
