"""How long a step takes, how many there will be, and how often to validate; it knows numbers."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Steps after which the pace is known, and seconds after which it is taken as it is.
WARM = 20
SOON = 20.0
# The first steps compile kernels and fill caches, and would be taken for the usual pace; in a hurry
# only the first two are left out.
UNUSUAL = 3
# Share of the time that validation may take.
SHARE = 0.1
# How many validations there are at most: each then sees a network that has changed.
VALIDATIONS = 10
# Share of a time budget that is left for writing, and for steps that take longer than usual.
RESERVE = 0.05


class Pace:
    """Turns a time budget into a number of steps, and a number of steps into validations.

    Parameters
    ----------
    steps : int
        Steps to make; with a budget a first guess.
    budget : float, optional
        Seconds from now on.
    validation : float
        What a validation costs, in steps. Counted in pixels and not measured in seconds, so that a
        slower machine does not keep another network.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        steps: int,
        *,
        budget: float | None,
        validation: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps = steps
        self.seconds_a_step: float | None = None
        """Known once `found` was True."""
        self._budget = budget
        self._validation = validation
        self._clock = clock
        self._began = self._last = clock()
        self._times: list[float] = []

    def begin_step(self) -> None:
        """Start measuring a step."""
        self._last = self._clock()

    def found(self, step: int) -> bool:
        """Say once, after the first steps, that the pace is known from now on.

        Parameters
        ----------
        step : int
            Steps that are made; the last began with `begin_step`.
        """
        if self.seconds_a_step is not None:
            return False
        now = self._clock()
        self._times.append(now - self._last)
        patience = SOON if self._budget is None else min(SOON, self._budget / 4)
        if len(self._times) < UNUSUAL or (step < WARM and now - self._began < patience):
            return False
        usual = sorted(self._times[min(UNUSUAL, len(self._times) - 1) :])
        self.seconds_a_step = max(usual[len(usual) // 2], 1e-6)
        if self._budget is not None:
            left = (self._budget * (1 - RESERVE) - (now - self._began)) / self.seconds_a_step
            # The last validation may come on top of the others' share.
            self.steps = step + max(0, math.floor((left - self._validation) * (1 - SHARE)))
        return True

    def settle(self, steps: int, seconds_a_step: float | None) -> None:
        """Take what another one found."""
        self.steps, self.seconds_a_step = steps, seconds_a_step

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: what was found, and the seconds that it took until now."""
        return {
            "steps": self.steps,
            "seconds_a_step": self.seconds_a_step,
            "seconds": self._clock() - self._began,
        }

    def restore(self, found: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` returned, with what is left of the budget."""
        self.settle(found["steps"], found["seconds_a_step"])
        self._began = self._clock() - found["seconds"]

    def is_time_to_validate(self, step: int) -> bool:
        """Say whether a validation follows this step; one always follows the last."""
        often = self.steps // VALIDATIONS
        rarest = math.ceil(self._validation / SHARE)
        return step >= self.steps or step % max(1, often, rarest) == 0
