"""The Attention U-Net of Oktay and others (2018) as a model of unetkit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetkit import SizeContract
from unetkit.errors import UsageError

# Context with which tiles equal one pass over the whole image, by depth, measured by
# `unetkit.testing.receptive_field`; the same for every width.
HALOS = {1: 10, 2: 28, 3: 56, 4: 112, 5: 224}


class Gate(nn.Module):
    """Damp what a skip hands over where the coarser level sees nothing of interest.

    ::

        skip   -> 2x2 conv, stride 2 --+
                                       + -> ReLU -> 1x1 -> sigmoid -> enlarge -> times skip
        coarse -> 1x1 conv ------------+

    Parameters
    ----------
    skip, coarse : int
        Channels of the two inputs; the coarse one has half the size.
    """

    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        self.of_skip = nn.Conv2d(skip, skip, 2, stride=2, bias=False)
        self.of_coarse = nn.Conv2d(coarse, skip, 1)
        self.interest = nn.Conv2d(skip, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Return the damped skip (N, C, Y, X)."""
        seen = functional.relu(self.of_skip(skip) + self.of_coarse(coarse))
        weight = torch.sigmoid(self.interest(seen))
        # Corners that are not aligned: a pixel's weight must not depend on the size of its tile.
        return skip * functional.interpolate(
            weight, scale_factor=2.0, mode="bilinear", align_corners=False
        )


class AttentionUNet(nn.Module):
    """A zero-padded U-Net whose skips pass through gates.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart.
    depth : int
        How many times the input is halved.
    width : int
        Channels of the first level; each level down has twice as many.
    """

    def __init__(self, *, in_channels: int, classes: int, depth: int, width: int) -> None:
        super().__init__()
        step = 2**depth
        self.contract = SizeContract(step=step, minimum=2 * step, halo=HALOS[depth])
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _two_convolutions(before, after)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        levels = range(depth - 1, -1, -1)
        self.gates = nn.ModuleList(Gate(widths[lv], widths[lv + 1]) for lv in levels)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[lv + 1], widths[lv], 2, stride=2) for lv in levels
        )
        self.merge = nn.ModuleList(_two_convolutions(2 * widths[lv], widths[lv]) for lv in levels)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, K, Y, X) of images (N, C, Y, X); Y and X of legal sizes."""
        for size in image.shape[2:]:
            self.contract.output(size)
        features, skips = image, []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2))
            skips.append(features)
        skips.pop()
        for gate, up, merge in zip(self.gates, self.up, self.merge, strict=True):
            skip = gate(skips.pop(), features)
            features = merge(torch.cat([skip, up(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits


def build(*, in_channels: int, classes: int, depth: int = 4, width: int = 64) -> AttentionUNet:
    """Build the Attention U-Net with fresh weights.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart, at least 2.
    depth : int
        How many times the input is halved, 1 to 5.
    width : int
        Channels of the first level.

    References
    ----------
    Oktay and others (2018), Attention U-Net: Learning Where to Look for the Pancreas, figure 2,
    in two dimensions.
    """
    ranges = {
        "in_channels": (in_channels >= 1, "at least 1", in_channels),
        "classes": (classes >= 2, "at least 2", classes),
        "depth": (depth in HALOS, "from 1 to 5", depth),
        "width": (width >= 1, "at least 1", width),
    }
    for name, (holds, rule, value) in ranges.items():
        if not holds:
            raise UsageError(
                f"{name} of model 'attention-unet' must be {rule}, got {value};"
                " choose one in that range"
            )
    return AttentionUNet(in_channels=in_channels, classes=classes, depth=depth, width=width)


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
