"""The rules that turn gradients into steps: made from a recipe, kept as tensors, read back."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from unetkit.training.recipes import Recipe

_PREFIX = "optimizer."


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return what makes the steps of a recipe.

    Its kernel goes over all weights at once where the device has such a one.
    """
    parameters = list(network.parameters())
    fused = parameters[0].device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=fused
        )
    return torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers of earlier steps, each tensor by its own name."""
    return {
        f"{_PREFIX}{number}.{name}": value
        for number, kept in optimizer.state_dict()["state"].items()
        for name, value in kept.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let an optimizer remember what `optimizer_tensors` returned; other names are left out.

    Every tensor gets the layout in memory of its weight, in which it was made.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if not key.startswith(_PREFIX):
            continue
        number, name = key.removeprefix(_PREFIX).split(".", maxsplit=1)
        weight = parameters[int(number)]
        laid = torch.empty_like(weight) if value.shape == weight.shape else torch.empty_like(value)
        kept.setdefault(int(number), {})[name] = laid.to(value.dtype).copy_(value).detach()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})


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


class Schedule:
    """Turns a time budget into a number of steps, and a number of steps into validations.

    `budget` is in seconds from now on; with one, `steps` are a first guess, and no plan has more
    than `most`. What a `validation` costs is in steps: counted in pixels and not measured in
    seconds, so that a slower machine does not keep another network; `ending` is what follows the
    last one, in validations. With `replans` a budget is looked at again after every validation,
    since machines become busy and idle; the bits of the result then depend on the clock.
    """

    def __init__(
        self,
        steps: int,
        *,
        budget: float | None,
        most: int | None = None,
        validation: float,
        ending: float = 0.0,
        replans: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps = steps
        self.seconds_a_step: float | None = None
        """Known once `found` was True."""
        self._budget = budget
        self._most = math.inf if most is None else most
        self._validation = validation
        self._ending = ending
        self._clock = clock
        self._began = self._last = clock()
        self._times: list[float] = []
        self.replans = replans and budget is not None
        """Whether the number of steps may change after it was found."""
        # When and at which step the last validation ended, when this one began, and what one takes.
        self._marked = self._began, 0
        self._validating = self._began
        self._cost = 0.0

    def begin_step(self) -> None:
        """Start measuring a step."""
        self._last = self._clock()

    def found(self, step: int) -> bool:
        """Say once, after the first steps, that the pace is known from now on."""
        if self.seconds_a_step is not None:
            return False
        now = self._clock()
        self._times.append(now - self._last)
        patience = SOON if self._budget is None else min(SOON, self._budget / 4)
        # What is paid once, a compilation or a pause, says nothing of the steps to come: as long as
        # the others are quick it is worth while to see more of them.
        waits = now - self._began < patience or (WARM - step) * min(self._times) < patience
        if len(self._times) < UNUSUAL or (step < WARM and waits):
            return False
        usual = sorted(self._times[min(UNUSUAL, len(self._times) - 1) :])
        self.seconds_a_step = max(usual[len(usual) // 2], 1e-6)
        if self._budget is not None:
            left = (self._budget * (1 - RESERVE) - (now - self._began)) / self.seconds_a_step
            # The last validation may come on top of the others' share.
            last = self._validation * (1 + self._ending)
            self.steps = self._at_most(step + max(0, math.floor((left - last) * (1 - SHARE))))
        self._marked = now, step
        return True

    def begin_validation(self) -> None:
        """Start measuring a validation."""
        self._validating = self._clock()

    def replan(self, step: int) -> bool:
        """Fit the steps that are left into the time that is left; a validation has just ended.

        Says whether that was done; near the end it is not, since more steps would be too few to
        learn anything.
        """
        if not self.replans or self.seconds_a_step is None or self._budget is None:
            return False
        now, (then, before) = self._clock(), self._marked
        self._cost = now - self._validating
        pace = (self._validating - then) / (step - before) if step > before else 0.0
        self._marked = now, step
        left = self._time_left(now)
        if step >= self._most or (step >= self.steps and left < self._budget * RESERVE):
            return False
        each = max(pace, 1e-6) + self._cost / self._interval
        self.steps = self._at_most(step + max(0, math.floor((left - self._cost) / each)))
        return True

    def _at_most(self, steps: int) -> int:
        return int(min(steps, self._most))

    def is_over(self) -> bool:
        """Say whether a validation is all that there is still time for."""
        if not self.replans or self.seconds_a_step is None:
            return False
        return self._time_left(self._clock()) < self._cost

    def _time_left(self, now: float) -> float:
        spent = now - self._began + self._ending * self._cost
        return (self._budget or math.inf) * (1 - RESERVE) - spent

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
        now = self._clock()
        self._began, self._marked = now - found["seconds"], (now, found.get("step", 0))

    def is_time_to_validate(self, step: int, *, since: int) -> bool:
        """Say whether a validation follows this step; one always follows the last.

        They are counted from the step `since`, that of the validation before: a new plan would have
        multiples of its own.
        """
        return step > since and (step >= self.steps or step - since >= self._interval)

    @property
    def _interval(self) -> int:
        return max(1, self.steps // VALIDATIONS, math.ceil(self._validation / SHARE))
