"""A model on trial: how to make it again, and small images for it; it judges nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from unetkit.geometry.sizes import SizeContract


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model on trial.

    Parameters
    ----------
    build : callable
        Makes it.
    module : nn.Module
        The model, in evaluation mode.
    in_channels, classes : int
        What it was built with.
    options : mapping of str to object
        Its own options.
    """

    build: Callable[..., nn.Module]
    module: nn.Module
    in_channels: int
    classes: int
    options: Mapping[str, Any]

    @property
    def contract(self) -> SizeContract:
        """What the model says of its sizes."""
        contract: SizeContract = self.module.contract  # type: ignore[assignment]
        return contract

    def fresh(self, *, seed: int = 0) -> nn.Module:
        """Build the model again, from a seed."""
        wish = {"in_channels": self.in_channels, "classes": self.classes, **self.options}
        return built(self.build, wish, seed=seed)

    def batch(self, count: int = 2) -> Tensor:
        """Draw images of a small legal size, the same for the same model."""
        side = self.contract.legal(self.contract.minimum + max(16, self.contract.step))
        generator = torch.Generator().manual_seed(0)
        shape = (count, self.in_channels, side, side + self.contract.step)
        return torch.randn(shape, generator=generator)

    def uneven(self) -> nn.Module:
        """Copy the model with biases and statistics disturbed, so that a lost one shows."""
        module = copy.deepcopy(self.module)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.dim() == 1 and tensor.is_floating_point():
                    tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
        return module


def built(build: Callable[..., nn.Module], wish: Mapping[str, Any], *, seed: int) -> nn.Module:
    """Build a model from a seed, and leave the random numbers of others alone.

    Parameters
    ----------
    build : callable
        What the entry point names.
    wish : mapping of str to object
        Its keywords.
    seed : int
        Same seed, same weights.

    Returns
    -------
    nn.Module
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**wish)
