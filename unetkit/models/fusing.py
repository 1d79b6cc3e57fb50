"""A convolution and the ReLU after it in one step, which saves a pass over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# torch gives its backends no types.
_ONEDNN: Any = torch.backends.mkldnn
# What torch's own compiler calls for this; it is none of its documented functions.
_OPERATORS: Any = getattr(torch.ops, "mkldnn", None)


def fuse(module: nn.Module) -> nn.Module:
    """Let a network that predicts compute each convolution together with a ReLU that follows it.

    Holds where both stand in an ``nn.Sequential``. On the processor with oneDNN, and without
    gradients, they then are one step, with the same result; elsewhere they are computed one after
    the other, as before. Names and weights stay as they are.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; changed in place.

    Returns
    -------
    nn.Module
        The same.
    """
    for chain in module.modules():
        if not isinstance(chain, nn.Sequential):
            continue
        for place in range(len(chain) - 1):
            layer = chain[place]
            if _can_fuse(layer) and type(chain[place + 1]) is nn.ReLU:
                layer.__class__ = ConvolutionReLU
                chain[place + 1] = nn.Identity()
    return module


def _can_fuse(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


class ConvolutionReLU(nn.Conv2d):
    """A convolution whose result is 0 where it would be negative."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Compute (N, K, Y', X') from (N, C, Y, X)."""
        kind = _kind(input)
        if kind is None:
            return functional.relu(super().forward(input), inplace=True)
        bias = None if self.bias is None else self.bias.to(kind)
        result: Tensor = _OPERATORS._convolution_pointwise(
            input.to(kind),
            self.weight.to(kind),
            bias,
            list(self.padding),
            list(self.stride),
            list(self.dilation),
            self.groups,
            "relu",
            [],
            "",
        )
        return result


def _kind(image: Tensor) -> torch.dtype | None:
    """Return what a fused convolution would compute in; None where there is none."""
    # Precision `exact` switches oneDNN off.
    usable = bool(_ONEDNN.is_available()) and bool(_ONEDNN.enabled)
    if not usable or image.device.type != "cpu" or torch.is_grad_enabled():
        return None
    if not hasattr(_OPERATORS, "_convolution_pointwise"):
        return None
    mixed = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if mixed else image.dtype
    return kind if kind in (torch.float32, torch.bfloat16) else None
