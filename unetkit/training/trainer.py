"""One step of learning, and the average of the weights; it does not know how many steps follow."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unetkit.errors import NonFiniteError
from unetkit.models import hardware
from unetkit.models.losses import parse_loss
from unetkit.training.checkpoint import Checkpoint
from unetkit.training.distributed import SINGLE
from unetkit.training.norms import freeze_statistics, share_statistics
from unetkit.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.recipes import Recipe
    from unetkit.training.sampler import Batch

# Steps in a row without a finite loss after which the data or the learning rate is at fault.
HOPELESS = 10


class Trainer:
    """A network with what its steps need: optimizer, scale of the loss, average of the weights."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        precision: str,
        group: ProcessGroup = SINGLE,
        accumulate: int = 1,
    ) -> None:
        # Before anything is copied from it: a state that is read back then lies in memory as it
        # did, and sums run in the same order.
        hardware.lay_out(network, precision=precision)
        share_statistics(network, group)
        self.average = Average(network, recipe.averaging)
        self.restored = False
        """Whether weights were taken back to an earlier state, which happens once at most."""
        self._network = network
        self._clip = recipe.clip
        self._loss = parse_loss(recipe.loss)
        self._precision = precision
        self._group = group
        # The same number in all processes, which wait for each other in every part.
        self._parts = max(1, min(accumulate, recipe.batch // group.size))
        first = next(network.parameters())
        self._device, self._dtype = first.device, first.dtype
        self._optimizer = make_optimizer(network, recipe)
        # Gradients smaller than float16 can hold would vanish; other precisions need no scale.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "float16")
        self._suspects: list[list[str]] = []
        self._good: Checkpoint | None = None

    def learn(self, batch: Batch, *, rate: float, frozen: bool = False) -> float | None:
        """Make one step, and return the loss before it; `frozen` keeps statistics as they are.

        None where loss or gradient was not finite: weights and running statistics are as they were,
        or, after ten such steps in a row, as they were when `remember` was last called. A
        NonFiniteError if that has happened before, or nothing is remembered.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        before = {name: value.clone() for name, value in self._network.named_buffers()}
        loss = self._step(batch, frozen=frozen)
        if loss is not None:
            self._suspects = []
            self.average.follow(self._network)
            return loss
        # The forward pass has already put what it saw into running statistics.
        for name, value in self._network.named_buffers():
            value.copy_(before[name])
        self._suspects.append(sorted(set(batch.samples)))
        if len(self._suspects) >= HOPELESS:
            self._give_up_or_restore()
        return None

    def remember(self, state: Checkpoint) -> None:
        """Take a state to which weights can be taken back."""
        self._good = state

    def state(self, facts: Mapping[str, Any]) -> Checkpoint:
        """Copy what the next steps depend on, beside `facts` that belong to it."""
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.tensors.items()}
        tensors |= optimizer_tensors(self._optimizer)
        own = {
            "average_steps": self.average.steps,
            "scaler": self._scaler.state_dict(),
            "suspects": self._suspects,
            "went_back": self.restored,
        }
        copies = {name: _own(value) for name, value in tensors.items()}
        return Checkpoint(copies, {**facts, "learner": own})

    def restore(self, state: Checkpoint) -> None:
        """Go back to a state."""
        own = state.facts["learner"]
        self._network.load_state_dict(_under("network.", state.tensors))
        self.average.restore(_under("average.", state.tensors), steps=own["average_steps"])
        restore_optimizer(self._optimizer, state.tensors)
        self._scaler.load_state_dict(own["scaler"])
        self._suspects = [list(names) for names in own["suspects"]]
        self.restored = own["went_back"]

    def _give_up_or_restore(self) -> None:
        names = ", ".join(sorted({name for names in self._suspects for name in names}))
        if self._good is None or self.restored:
            raise NonFiniteError(
                f"the loss must be finite, got NaN or Inf in {HOPELESS} steps in a row, on tiles of"
                f" {names}; look at these samples, or use --precision float32"
            )
        scale = self._scaler.state_dict()
        self.restore(self._good)
        # The scale has come down meanwhile, and may be all that was wrong.
        self._scaler.load_state_dict(scale)
        self._suspects, self.restored = [], True

    def _step(self, batch: Batch, *, frozen: bool) -> float | None:
        # What a network draws for itself, such as drop-out, is a function of the step as well.
        torch.manual_seed(batch.seed + self._group.rank)
        self._network.train()
        if frozen:
            freeze_statistics(self._network)
        self._optimizer.zero_grad(set_to_none=True)
        own = self._backward(batch)
        parameters = list(self._network.parameters())
        self._group.sum_gradients(parameters)
        loss = self._group.total(float(own))
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._clip)
        finite = bool(torch.isfinite(norm)) and bool(np.isfinite(loss))
        if finite or self._scaler.is_enabled():
            # The scaler skips a step without finite gradients by itself, and must hear of it.
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return loss if finite else None

    def _backward(self, batch: Batch) -> Tensor:
        """Add up the gradients of all parts of the batch, and return its loss."""
        pixels = int(self._group.total(int((batch.weights > 0).sum())))
        tiles = int(self._group.total(len(batch.images)))
        total = torch.zeros((), device=self._device)
        for part in batch.parts(self._parts):
            images, targets, weights = (
                torch.from_numpy(array).to(self._device, non_blocking=True)
                for array in (part.images, part.targets, part.weights)
            )
            logits = hardware.forward(
                self._network, images.to(self._dtype), precision=self._precision
            )
            loss = self._loss(logits, targets, weights, pixels=pixels, tiles=tiles)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        return total


class Average:
    """The running average of a network's weights, which is steadier than those of any one step.

    Early steps count for little: the share that is kept grows from a tenth.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self._keep = keep
        self.steps = 0
        """How often it moved."""
        self.tensors = _copy(network) if keep else {}
        """Its weights by name; none where there is no average."""

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move a little towards the network."""
        keep = min(self._keep, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        now = network.state_dict()
        for name, value in self.tensors.items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - keep)
            else:
                value.copy_(now[name])

    def restore(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        """Go back to an earlier average."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
        self.steps = steps

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """Let the network be the average inside a `with` block."""
        if not self.tensors:
            yield
            return
        own = _copy(network)
        network.load_state_dict(self.tensors)
        try:
            yield
        finally:
            network.load_state_dict(own)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
