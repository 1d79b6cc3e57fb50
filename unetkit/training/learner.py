"""One step of learning, and the average of the weights; it does not know how many steps follow."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from unetkit.errors import NumbersError
from unetkit.models import hardware
from unetkit.models.losses import parse_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from unetkit.training.recipes import Recipe
    from unetkit.training.sampler import Batch

# Steps in a row without a finite loss after which the data or the learning rate is at fault.
HOPELESS = 10


class Learner:
    """A network with what its steps need: optimizer, scale of the loss, average of the weights.

    Parameters
    ----------
    network : nn.Module
        Trained in place.
    recipe : Recipe
        How to learn.
    precision : str
        As for `hardware.forward`.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, precision: str) -> None:
        self.average = Average(network, recipe.averaging)
        self._network = network
        self._clip = recipe.clip
        self._loss = parse_loss(recipe.loss)
        self._precision = precision
        self._device = next(network.parameters()).device
        self._optimizer = _optimizer(network, recipe)
        # Gradients smaller than float16 can hold would vanish; other precisions need no scale.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "float16")
        self._unfit = 0

    def learn(self, batch: Batch, *, rate: float) -> float | None:
        """Make one step.

        Parameters
        ----------
        batch : Batch
            What to learn from.
        rate : float
            The learning rate.

        Returns
        -------
        float, or None
            The loss before the step; None where loss or gradient was not finite: the weights are
            as they were.

        Raises
        ------
        NumbersError
            If this was the tenth such step in a row.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._step(batch)
        if loss is not None:
            self._unfit = 0
            self.average.follow(self._network)
            return loss
        self._unfit += 1
        if self._unfit >= HOPELESS:
            names = ", ".join(sorted(set(batch.samples)))
            raise NumbersError(
                f"the loss must be finite, got NaN or Inf in {HOPELESS} steps in a row, last in "
                f"{names}; look at these samples, or use --precision float32"
            )
        return None

    def _step(self, batch: Batch) -> float | None:
        images, targets, weights = (
            torch.from_numpy(array).to(self._device)
            for array in (batch.images, batch.targets, batch.weights)
        )
        self._network.train()
        self._optimizer.zero_grad(set_to_none=True)
        logits = hardware.forward(self._network, images, precision=self._precision)
        loss: Tensor = self._loss(logits, targets, weights)
        if not bool(torch.isfinite(loss)):
            return None
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        finite = bool(torch.isfinite(norm))
        if finite or self._scaler.is_enabled():
            # The scaler skips a step without finite gradients by itself, and must hear of it.
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return float(loss.detach()) if finite else None


class Average:
    """The running average of a network's weights, which is steadier than those of any one step.

    Early steps count for little: the share that is kept grows from a tenth.

    Parameters
    ----------
    network : nn.Module
        Whose weights.
    keep : float
        Share of the average that stays at each step; 0 for no average.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self._keep = keep
        self._steps = 0
        self._state = _copy(network) if keep else {}

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move a little towards the network."""
        keep = min(self._keep, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        now = network.state_dict()
        for name, value in self._state.items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - keep)
            else:
                value.copy_(now[name])

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """Let the network be the average inside a `with` block."""
        if not self._state:
            yield
            return
        own = _copy(network)
        network.load_state_dict(self._state)
        try:
            yield
        finally:
            network.load_state_dict(own)


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
