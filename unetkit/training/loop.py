"""The training loop, to be read from top to bottom; it does not know files or datasets."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from unetkit.errors import NumbersError
from unetkit.models import hardware
from unetkit.models.losses import weighted_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from unetkit.training.recipes import Recipe
    from unetkit.training.sampler import Batch

# Steps after which a time budget becomes a number of steps.
WARM = 20
# The first steps compile kernels and fill caches, and would be taken for the usual pace.
UNUSUAL = 3
# Validations without a better score after which training ends.
PATIENCE = 5
# Steps in a row without a finite loss after which the data or the learning rate is at fault.
HOPELESS = 10
# Share of a time budget that is left to validation and writing.
RESERVE = 0.12


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
        """The higher the better."""
        return self.score, -self.loss


class Watcher(Protocol):
    """Who is told what happens, and may end it."""

    def planned(self, steps: int, *, seconds_a_step: float) -> None:
        """Hear how many steps there will be, and how long one takes."""

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Hear of a finished step, counted from 1; no loss: it was skipped. May raise to end."""

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
    steps: int,
    budget: float | None,
    precision: str,
    every: Callable[[int], int],
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
    steps : int
        Steps to make; with a budget a first guess.
    budget : float, optional
        Seconds; turned into a number of steps after the first 20.
    precision : str
        As for `hardware.forward`.
    every : callable
        Says, for a number of steps, how many lie between two validations.
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
    """
    began = time.monotonic()
    optimizer = _optimizer(network, recipe)
    scaler = torch.amp.GradScaler(_device(network).type, enabled=precision == "float16")
    average = _Average(network, recipe.averaging)
    best: tuple[int, Validation] | None = None
    step = since_best = unfit = 0
    paces: list[float] = []
    while step < steps:
        clock = time.monotonic()
        rate = recipe.rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(batches)
        loss = _learn(network, batch, optimizer, scaler=scaler, clip=recipe.clip, how=precision)
        unfit = 0 if loss is not None else unfit + 1
        if unfit >= HOPELESS:
            raise NumbersError(_hopeless(batch))
        if loss is not None:
            average.follow(network)
        step += 1
        paces.append(time.monotonic() - clock)
        if step in (UNUSUAL, WARM):
            pace = min(paces) if step == UNUSUAL else sorted(paces[UNUSUAL:])[len(paces) // 2 - 1]
            if budget is not None and step == WARM:
                left = budget * (1 - RESERVE) - (time.monotonic() - began)
                steps = WARM + max(0, math.floor(left / pace))
            watcher.planned(steps, seconds_a_step=pace)
        watcher.stepped(step, loss=loss, rate=rate)
        if step % every(steps) and step != steps:
            continue
        with average.put_into(network):
            found = validate(network)
            better = best is None or found.rank > best[1].rank
            watcher.validated(step, found, better=better)
            if better:
                best, since_best = (step, found), 0
                watcher.kept(step, network, found)
            else:
                since_best += 1
        if since_best >= PATIENCE:
            break
    if best is None:
        raise NumbersError("training must make at least one step, got none; use --steps 1 or more")
    return Outcome(step, best[0], best[1], stopped_early=step < steps)


def _learn(
    network: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    scaler: torch.amp.GradScaler,
    clip: float,
    how: str,
) -> float | None:
    """Make one step, or none where loss or gradient is not finite; return the loss."""
    device = _device(network)
    images, targets, weights = (
        torch.from_numpy(array).to(device) for array in (batch.images, batch.targets, batch.weights)
    )
    network.train()
    optimizer.zero_grad(set_to_none=True)
    logits = hardware.forward(network, images, precision=how)
    loss: Tensor = weighted_cross_entropy(logits, targets, weights)
    if not bool(torch.isfinite(loss)):
        return None
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    if not scaler.is_enabled() and not bool(torch.isfinite(norm)):
        return None
    # With a scaler this is where steps without finite gradients are skipped.
    scaler.step(optimizer)
    scaler.update()
    return float(loss.detach())


class _Average:
    """The running average of a network's weights, which is steadier than any single step's.

    Early steps count for little: the share that is kept grows from a tenth.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self._keep = keep
        self._steps = 0
        self._state = _copy(network) if keep else {}
        self._aside: dict[str, Tensor] = {}
        self._network: nn.Module | None = None

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move a little towards the network."""
        keep = min(self._keep, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        for name, value in network.state_dict().items() if self._state else ():
            if value.is_floating_point():
                self._state[name].lerp_(value, 1 - keep)
            else:
                self._state[name].copy_(value)

    def put_into(self, network: nn.Module) -> _Average:
        """Let the network be the average inside a `with` block."""
        self._network = network
        return self

    def __enter__(self) -> None:
        if self._state and self._network is not None:
            self._aside = _copy(self._network)
            self._network.load_state_dict(self._state)

    def __exit__(self, *error: object) -> None:
        if self._state and self._network is not None:
            self._network.load_state_dict(self._aside)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum
        )
    return torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _hopeless(batch: Batch) -> str:
    names = ", ".join(sorted(set(batch.samples)))
    return (
        f"the loss must be finite, got NaN or Inf in {HOPELESS} steps in a row, last in {names};"
        " look at these samples, or use --precision float32"
    )
