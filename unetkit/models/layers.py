"""What the layers of a network make of an input, by shapes; it knows neither tiles nor time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class LayerRun:
    """One run of one layer.

    Parameters
    ----------
    layer : nn.Module
        The layer, or what it is part of.
    given, made : torch.Size
        Shapes of what goes in and what comes out.
    """

    layer: nn.Module
    given: torch.Size
    made: torch.Size


def run_layers(module: nn.Module, *, in_channels: int, size: int) -> list[LayerRun]:
    """Run a network on an image of a size and tell of each layer that made one tensor of another.

    Nothing is computed: torch's device ``meta`` knows shapes alone. The few networks that compute
    with numbers in between are run on zeros instead.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    in_channels : int
        Channels of the image.
    size : int
        Its height and width, which the network must take.

    Returns
    -------
    list of LayerRun
        In the order in which they end.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, kernel_size=3), nn.MaxPool2d(2))
    >>> [tuple(run.made) for run in run_layers(network, in_channels=1, size=12)]
    [(1, 4, 10, 10), (1, 4, 5, 5), (1, 4, 5, 5)]
    """
    found: list[LayerRun] = []

    def note(layer: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            found.append(LayerRun(layer, inputs[0].shape, output.shape))

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    numbers = dict(chain(module.named_parameters(), module.named_buffers()))
    shape = (1, in_channels, size, size)
    try:
        with torch.inference_mode():
            try:
                shapes = {name: tensor.to("meta") for name, tensor in numbers.items()}
                functional_call(module, shapes, (torch.empty(shape, device="meta"),))
            except Exception:  # of a network that needs numbers it may be anything
                found.clear()
                place = next(iter(numbers.values())).device if numbers else None
                module(torch.zeros(shape, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    return found
