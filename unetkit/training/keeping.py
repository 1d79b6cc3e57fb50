"""When the state of a training is kept, and what it consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from unetkit.training.parallel import ALONE
from unetkit.training.position import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.training.learner import Learner
    from unetkit.training.pace import Pace
    from unetkit.training.parallel import Group
    from unetkit.training.states import State


class Store(Protocol):
    """Where states go."""

    def is_due(self) -> bool:
        """Say whether it is time for one."""

    def save(self, state: State) -> None:
        """Take one, and write it beside the work."""

    def finish(self) -> None:
        """Wait until it is on the disk."""


class Keeper:
    """Copies what a training depends on now and then, and gives it back.

    Parameters
    ----------
    store : Store, optional
        Where copies go; None for processes that don't write, and for trainings that nobody goes
        on with.
    start : State, optional
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
        start: State | None = None,
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

    def _keep(self, state: State, learner: Learner) -> None:
        # With NaN or Inf in it nobody could go on; the state before it stays.
        if state.is_finite:
            learner.remember(state)
            if self._store is not None:
                self._store.save(state)

    def _copy(self, learner: Learner, pace: Pace, position: Position) -> State:
        facts = {"position": position.to_dict(), "pace": pace.to_dict(), "more": self._more()}
        return learner.state(facts)
