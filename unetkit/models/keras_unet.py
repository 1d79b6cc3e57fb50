"""The padded U-Net of the well-known Keras code, layer by layer; it knows no tiles or files."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetkit.geometry.sizes import SizeContract
from unetkit.models.build import check_input, check_ranges


def size_contract(depth: int) -> SizeContract:
    """Return the sizes that the padded network takes: step ``2**depth`` and no margin.

    The first pixel of a tile sees ``6 * 2**depth - 2`` pixels before it and the last one up to
    ``7 * 2**depth - 2`` after it (94 and 110 at a depth of 4), because 2x2 convolutions pad at the
    end only; the halo is the longer of the two, rounded up to the step.

    Examples
    --------
    >>> size_contract(4)
    SizeContract(step=16, minimum=16, margin=0, halo=112, exact=True)
    """
    return SizeContract(step=2**depth, minimum=2**depth, halo=7 * 2**depth)


class KerasUNet(nn.Module):
    """The network of the Keras code: zero-padded, so that as many pixels come out as go in.

    ::

        input  -> 2 conv ----------------- concatenate -> 2 conv -> 3x3 -> logits
                    | pool                       ^ up-sampling, 2x2 conv
                  2 conv, drop-out ------- concatenate -> 2 conv
                    | pool                       ^ up-sampling, 2x2 conv
                    +---- 2 conv, drop-out ------+

    It differs from the paper in four things: padding instead of a margin, up-sampling and a 2x2
    convolution instead of a transposed convolution, drop-out after the two lowest levels, and a
    last convolution of 3x3.
    """

    def __init__(
        self, *, in_channels: int, classes: int, depth: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.contract = size_contract(depth)
        self.in_channels = in_channels
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *widths]
        self.down = nn.ModuleList(
            _two_convolutions(inputs[level], widths[level]) for level in range(depth + 1)
        )
        self.dropout = nn.Dropout(dropout)
        upwards = range(depth - 1, -1, -1)
        self.up = nn.ModuleList(nn.Conv2d(2 * widths[lv], widths[lv], 2) for lv in upwards)
        self.merge = nn.ModuleList(_two_convolutions(2 * widths[lv], widths[lv]) for lv in upwards)
        # The Keras code has a ReLU between this layer and its soft-max. It is left out: a class
        # whose logits have fallen below 0 would get no gradient through it and never come back.
        self.head = nn.Conv2d(width, classes, kernel_size=3, padding=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, K, Y, X) of images (N, C, Y, X) of legal sizes."""
        check_input(image, self.in_channels, self.contract)
        features, skips = image, []
        lowest = len(self.down) - 1
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2))
            if level >= lowest - 1:
                features = self.dropout(features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            # Keras pads an even kernel by one pixel more at the end than at the start.
            features = functional.relu(up(functional.pad(features, (0, 1, 0, 1))))
            features = merge(torch.cat([skips.pop(), features], dim=1))
        logits: Tensor = self.head(features)
        return logits


def build(
    *, in_channels: int, classes: int, depth: int = 4, width: int = 64, dropout: float = 0.5
) -> KerasUNet:
    """Build the padded U-Net of the Keras code with fresh weights.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes that the last layer tells apart, at least 2.
    depth : int
        How many times the input is halved, 1 to 6; 4 in the Keras code.
    width : int
        Channels of the first level; 64 in the Keras code.
    dropout : float
        Drop-out after the two lowest levels, from 0 to below 1; 0.5 in the Keras code.

    Returns
    -------
    KerasUNet
        With He's normal weights, as the Keras code has them, and biases of 0.

    Raises
    ------
    UsageError
        If a number is out of its range.

    References
    ----------
    The widely copied Keras U-Net of Xu Zhixuhao ("zhixuhao/unet", 2017), in the form of BBuf,
    "Keras-Semantic-Segmentation".

    Examples
    --------
    >>> network = build(in_channels=3, classes=2, width=1)
    >>> network(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 2, 32, 48])
    """
    check_ranges("keras-unet", in_channels=in_channels, classes=classes, depth=depth)
    check_ranges("keras-unet", width=width, dropout=dropout)
    return KerasUNet(
        in_channels=in_channels, classes=classes, depth=depth, width=width, dropout=dropout
    )


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )


def _initialise(layer: nn.Module) -> None:
    """Draw He's normal weights, Keras' ``he_normal``."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
