"""A convolution and what follows it in one step, which saves passes over memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

# torch gives its backends no types.
_ONEDNN: Any = torch.backends.mkldnn
# What torch's own compiler calls for this; it is none of its documented functions.
_OPERATORS: Any = getattr(torch.ops, "mkldnn", None)


def fuse(module: nn.Module) -> nn.Module:
    """Let a network that predicts compute each convolution together with what follows it.

    Holds where they stand in an ``nn.Sequential``. Batch normalization, whose statistics are fixed,
    becomes part of the convolution's weights, with the same result but for rounding. On the
    processor with oneDNN, and without gradients, a ReLU is one step with the convolution, with the
    same result; elsewhere it is computed after it, as before.

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
        _absorb_norms(chain)
        _absorb_relus(chain)
    return module


def _absorb_norms(chain: nn.Sequential) -> None:
    for place in range(len(chain) - 1):
        layer, norm = chain[place], chain[place + 1]
        if type(layer) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d):
            continue
        # Without statistics it would normalize by what it sees.
        if norm.track_running_stats and not norm.training:
            chain[place] = fuse_conv_bn_eval(layer, norm)
            chain[place + 1] = nn.Identity()


def _absorb_relus(chain: nn.Sequential) -> None:
    # What was absorbed before is passed over.
    places = [place for place in range(len(chain)) if type(chain[place]) is not nn.Identity]
    for place, following in pairwise(places):
        layer = chain[place]
        if _can_fuse(layer) and type(chain[following]) is nn.ReLU:
            layer.__class__ = ConvolutionReLU
            chain[following] = nn.Identity()


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
