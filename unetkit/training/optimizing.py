"""The rules that turn gradients into steps: made from a recipe, kept as tensors, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

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
