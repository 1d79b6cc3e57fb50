"""What the layers of a network make of an input, by shapes; it knows neither tiles nor time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class LayerRun:
    """One run of one layer."""

    layer: nn.Module  # or what it is part of
    # Shapes of what goes in and what comes out.
    given: torch.Size
    made: torch.Size


def run_layers(module: nn.Module, *, in_channels: int, size: int) -> list[LayerRun]:
    """Run a network on a square image and tell of each layer that made one tensor of another.

    Layers come in the order in which they end.

    Convolutions make tensors of the right shape and of any numbers, which takes them next to no
    time. (torch's device ``meta`` would make no numbers at all, but loads torch's compiler first,
    for two seconds.)

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
    try:
        _run(module, in_channels, size)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def largest_tensor(module: nn.Module, *, in_channels: int, size: int) -> int:
    """Return how many numbers the largest tensor has that a network makes of an image of a size.

    What lies between layers counts too, such as features that are concatenated or enlarged.

    Examples
    --------
    >>> layer = nn.Conv2d(1, 4, kernel_size=3)
    >>> largest_tensor(layer, in_channels=1, size=12)
    400
    """
    return max(in_channels * size**2, _run(module, in_channels, size).largest)


def _run(module: nn.Module, in_channels: int, size: int) -> _OneOfManySums:
    place = next((parameter.device for parameter in module.parameters()), None)
    watched = _OneOfManySums()
    with torch.inference_mode(), watched:
        module(torch.zeros(1, in_channels, size, size, device=place))
    return watched


class _OneOfManySums(TorchFunctionMode):
    """Computes one channel of a convolution from one channel, and takes it for all."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace convolutions; hand on every other function, and note how much each makes."""
        made = self._made(func, args, dict(kwargs or {}))
        # Weights that a layer rearranges are not made of the image.
        if isinstance(made, Tensor) and made.dim() > 1 and len(made) == 1:
            self.largest = max(self.largest, made.numel())
        return made

    @staticmethod
    def _made(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if func in _ORDER:
            return _one_for_all(func, *args, **named)
        return func(*args, **named)


# What follows input, weight and bias in torch's own functions.
_ORDER: dict[Any, tuple[str, ...]] = {
    functional.conv2d: ("stride", "padding", "dilation", "groups"),
    functional.conv_transpose2d: ("stride", "padding", "output_padding", "groups", "dilation"),
}


def _one_for_all(
    func: Callable[..., Tensor],
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    *ordered: Any,
    **named: Any,
) -> Tensor:
    named |= dict(zip(_ORDER[func], ordered, strict=False))
    groups = named.pop("groups", 1)
    channels = len(weight) if func is functional.conv2d else weight.shape[1] * groups
    return func(input[:, :1], weight[:1, :1], **named).repeat(1, channels, 1, 1)
