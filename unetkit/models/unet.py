"""The U-Net of 2015, unpadded, as its paper describes it; it does not know tiles or files."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetkit.errors import UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.build import check_input, check_ranges


def size_contract(depth: int) -> SizeContract:
    """Return the sizes that an unpadded U-Net with two 3x3 convolutions a level takes.

    Step ``2**depth`` and margin ``6 * 2**depth - 4``; the minimum is the smallest input that leaves
    at least one pixel after every convolution.

    Examples
    --------
    >>> size_contract(4)
    SizeContract(step=16, minimum=188, margin=92, halo=0, exact=True)
    """
    bottom = next(b for b in range(1, 9) if _output(b, depth=depth) > 0)
    margin = 6 * 2**depth - 4
    return SizeContract(
        step=2**depth, minimum=_output(bottom, depth=depth) + 2 * margin, margin=margin
    )


def _output(bottom: int, *, depth: int) -> int:
    """Follow `bottom` pixels up the expanding path; 0 where a level has none left."""
    size = bottom
    for _ in range(depth):
        size = max(2 * size - 4, 0)
    return size


class UNet(nn.Module):
    """The classic network: unpadded 3x3 convolutions, so every output pixel saw true context.

    ::

        input  -> 2 conv ----------------- crop, concatenate -> 2 conv -> 1x1 -> logits
                    | pool                              ^ up
                  2 conv -------------- crop, concatenate
                    | pool                       ^ up
                    +---- 2 conv, drop-out ------+

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net: Convolutional Networks for Biomedical Image
    Segmentation, section 2 and figure 1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        depth: int,
        width: int,
        dropout: float,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.contract = size_contract(depth)
        self.in_channels = in_channels
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *widths]
        self.down = nn.ModuleList(
            _two_convolutions(inputs[level], widths[level], norm) for level in range(depth)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = _two_convolutions(inputs[depth], widths[depth], norm)
        self.dropout = nn.Dropout(dropout)
        upwards = range(depth - 1, -1, -1)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * widths[level], widths[level], kernel_size=2, stride=2)
            for level in upwards
        )
        self.merge = nn.ModuleList(
            _two_convolutions(2 * widths[level], widths[level], norm) for level in upwards
        )
        # No activation after it: a ReLU here would leave classes that can only lose.
        self.head = nn.Conv2d(width, classes, kernel_size=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of images (N, C, Y, X) of legal sizes, inside their margin."""
        check_input(image, self.in_channels, self.contract)
        features, skips = image, []
        for block in self.down:
            features = block(features)
            skips.append(features)
            features = self.pool(features)
        features = self.dropout(self.bottom(features))
        for up, merge in zip(self.up, self.merge, strict=True):
            features = up(features)
            skip = crop(skips.pop(), height=features.shape[2], width=features.shape[3])
            features = merge(torch.cat([skip, features], dim=1))
        logits: Tensor = self.head(features)
        return logits


def crop(features: Tensor, *, height: int, width: int) -> Tensor:
    """Cut features (N, C, Y, X) to a height and width, as much off opposite sides.

    An odd number of pixels less would shift the picture by half a pixel, so it is refused.
    """
    starts = []
    for have, want in zip(features.shape[2:], (height, width), strict=True):
        if have < want or (have - want) % 2:
            raise UsageError(
                f"a crop must take an even number of pixels off {have}, got a wish for {want};"
                " use a legal input size"
            )
        starts.append((have - want) // 2)
    top, left = starts
    if torch.is_grad_enabled() and features.requires_grad:
        cropped: Tensor = _Crop.apply(features, top, left, height, width)
        return cropped
    return features[:, :, top : top + height, left : left + width]


class _Crop(torch.autograd.Function):
    """A crop whose gradient lies in memory as its features do.

    The gradient of a slice lies there channel by channel whatever the features do, and what reads
    both takes up to three times as long: a step of the default recipe took 1.15 times as long.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        ctx.box, ctx.shape = (top, left), features.shape
        return features[:, :, top : top + height, left : left + width]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (top, left), (*_, high, wide) = ctx.box, ctx.shape
        height, width = gradient.shape[2:]
        beside = (left, wide - width - left, top, high - height - top)
        return functional.pad(gradient, beside), None, None, None, None


def build(
    *,
    in_channels: int,
    classes: int,
    depth: int = 4,
    width: int = 64,
    dropout: float = 0.5,
    norm: Literal["none", "batch"] = "none",
) -> UNet:
    """Build the classic U-Net with fresh weights.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes that the last layer tells apart, at least 2.
    depth : int
        How many times the input is halved, 1 to 6; 4 in the paper.
    width : int
        Channels of the first level; 64 in the paper.
    dropout : float
        Drop-out at the end of the contracting path, from 0 to below 1. The paper names the
        place but no rate; 0.5 is our choice, the rate that drop-out is mostly used with.
    norm : {"none", "batch"}
        What follows each 3x3 convolution: nothing, as in the paper, or batch normalization, whose
        statistics are fixed after training, so that tiles still equal the whole image. While it
        trains they are those of the tiles that are computed together, in all processes, so that a
        batch in several parts does not lead to the same weights.

    Returns
    -------
    UNet
        With weights from a normal distribution of standard deviation sqrt(2/N), where N is the
        number of inputs of one neuron, and biases of 0.

    Raises
    ------
    UsageError
        If a number is out of its range.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, sections 2 and 3.

    Examples
    --------
    >>> network = build(in_channels=1, classes=2)
    >>> network.contract.output(572), sum(p.numel() for p in network.parameters())
    (388, 31030658)
    """
    check_ranges("unet", in_channels=in_channels, classes=classes, depth=depth)
    check_ranges("unet", width=width, dropout=dropout)
    if norm not in ("none", "batch"):
        raise UsageError(f"norm of model 'unet' must be none or batch, got {norm!r}; leave it out")
    return UNet(
        in_channels=in_channels,
        classes=classes,
        depth=depth,
        width=width,
        dropout=dropout,
        norm=norm,
    )


def _two_convolutions(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for read in (inputs, outputs):
        # Batch normalization has an offset of its own.
        layers.append(nn.Conv2d(read, outputs, kernel_size=3, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _initialise(layer: nn.Module) -> None:
    """Draw He's weights for one layer, section 3 of the paper."""
    if isinstance(layer, nn.ConvTranspose2d):
        # With stride 2 and a 2x2 kernel each output pixel sees one input pixel of each channel.
        neuron_inputs = layer.in_channels
    elif isinstance(layer, nn.Conv2d):
        neuron_inputs = layer.in_channels * math.prod(layer.kernel_size)
    else:
        return
    nn.init.normal_(layer.weight, std=math.sqrt(2 / neuron_inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
