"""Batch normalization when training: over all processes, or with statistics that stay as they are.

What it does when predicting is torch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from unetkit.training.distributed import all_reduce

if TYPE_CHECKING:
    from torch import Tensor

    from unetkit.training.distributed import ProcessGroup


def has_statistics(network: nn.Module) -> bool:
    """Say whether a network has batch normalization."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def freeze_statistics(network: nn.Module) -> None:
    """Let batch normalization learn with the statistics that it predicts with, and keep them.

    This holds until the network is set to training mode again.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def share_statistics(network: nn.Module, group: ProcessGroup) -> None:
    """Let batch normalization take its statistics from the tiles of all processes of a group.

    Several processes then train as one does that has all tiles. Torch's own ``SyncBatchNorm`` is
    for GPUs alone.
    """
    if group.size == 1:
        return
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = SharedNorm


class SharedNorm(nn.BatchNorm2d):
    """Batch normalization over what all processes have at the same time."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalize (N, C, Y, X)."""
        if not self.training:
            return super().forward(input)
        # Sums of 16-bit numbers would lose most of their digits.
        values = input if input.dtype == torch.float64 else input.float()
        own = torch.tensor(float(values.numel() // values.shape[1]), device=values.device)
        count = _total(own.to(values.dtype))
        if int(count) == 1:
            # One value has no spread to divide by.
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        mean = _total(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _total(centred.square().sum(dim=(0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scaled: Tensor = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the statistics towards those of this step, as torch's own layer does."""
        if self.num_batches_tracked is None or self.running_mean is None:
            return
        self.num_batches_tracked.add_(1)
        # Without a momentum they are the mean over all steps.
        mean_of_all = 1 / float(self.num_batches_tracked)
        share = mean_of_all if self.momentum is None else self.momentum
        for kept, now in ((self.running_mean, mean), (self.running_var, variance)):
            if kept is not None:
                kept.lerp_(now.to(kept.dtype), share)


class _Total(torch.autograd.Function):
    """The sum of what all processes have; what any of them learns from it is everyone's share."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total


def _total(values: Tensor) -> Tensor:
    total: Tensor = _Total.apply(values)
    return total
