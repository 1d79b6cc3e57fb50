"""The fully convolutional networks of Long, Shelhamer and Darrell (2015) as models of unetkit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unetkit import SizeContract
from unetkit.errors import UsageError

# Channels of VGG16's five blocks at a width of 64, as multiples of it, and convolutions in each.
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
# Context with which tiles equal one pass over the whole image, measured by
# `unetkit.testing.receptive_field`; the same for every width.
HALOS = {32: 224, 16: 224, 8: 224}


class FCN(nn.Module):
    """VGG16 as a trunk, scores at its end, and up-sampling by learned bilinear deconvolutions.

    Where the paper pads its input by 100 pixels and crops the result, every convolution is padded
    here, so that as many pixels come out as go in.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart.
    stride : {32, 16, 8}
        How coarse the finest scores are: from the last pool alone, with the fourth, with the third.
    width : int
        Channels of the first block.
    head : int
        Channels of the two layers that were fully connected.
    dropout : float
        Drop-out after each of the two.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        stride: int,
        width: int,
        head: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.contract = SizeContract(step=32, minimum=32, halo=HALOS[stride])
        widths = [width * factor for factor, _ in BLOCKS]
        self.blocks = nn.ModuleList(
            _block(before, after, convolutions)
            for before, after, (_, convolutions) in zip(
                [in_channels, *widths], widths, BLOCKS, strict=False
            )
        )
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], head, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(head, head, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.apply(_initialise)
        self.score = nn.Conv2d(head, classes, 1)
        skips = {32: [], 16: [widths[3]], 8: [widths[3], widths[2]]}[stride]
        self.skips = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in skips)
        self.twice = nn.ModuleList(bilinear(classes, 2) for _ in skips)
        self.last = bilinear(classes, stride)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, K, Y, X) of images (N, C, Y, X); Y and X of legal sizes."""
        for size in image.shape[2:]:
            self.contract.output(size)
        pools = []
        features = image
        for block in self.blocks:
            features = block(features)
            pools.append(features)
        scores = self.score(self.head(features))
        for up, skip, pool in zip(self.twice, self.skips, (pools[3], pools[2]), strict=False):
            scores = up(scores) + skip(pool)
        logits: Tensor = self.last(scores)
        return logits


def bilinear(classes: int, factor: int) -> nn.ConvTranspose2d:
    """Return a deconvolution that enlarges each class by bilinear interpolation, until it learns.

    Parameters
    ----------
    classes : int
        Channels before and after.
    factor : int
        An even number.
    """
    layer = nn.ConvTranspose2d(
        classes, classes, 2 * factor, stride=factor, padding=factor // 2, bias=False
    )
    centre = factor - 0.5
    line = 1 - (torch.arange(2 * factor) - centre).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for k in range(classes):
            layer.weight[k, k] = line[:, None] * line[None, :]
    return layer


def build_fcn32s(
    *, in_channels: int, classes: int, width: int = 64, head: int = 4096, dropout: float = 0.5
) -> FCN:
    """Build FCN-32s, which enlarges the scores of the last pool 32 times.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart, at least 2.
    width : int
        Channels of the first block; 64 in VGG16.
    head : int
        Channels of the two layers that were fully connected; 4096 in VGG16.
    dropout : float
        Drop-out after each of the two, from 0 to below 1.

    References
    ----------
    Long, Shelhamer, Darrell (2015), Fully Convolutional Networks for Semantic Segmentation.
    """
    return _build(32, in_channels, classes, width=width, head=head, dropout=dropout)


def build_fcn16s(
    *, in_channels: int, classes: int, width: int = 64, head: int = 4096, dropout: float = 0.5
) -> FCN:
    """Build FCN-16s, which adds the scores of the fourth pool before enlarging them 16 times.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart, at least 2.
    width : int
        Channels of the first block; 64 in VGG16.
    head : int
        Channels of the two layers that were fully connected; 4096 in VGG16.
    dropout : float
        Drop-out after each of the two, from 0 to below 1.

    References
    ----------
    Long, Shelhamer, Darrell (2015), Fully Convolutional Networks for Semantic Segmentation.
    """
    return _build(16, in_channels, classes, width=width, head=head, dropout=dropout)


def build_fcn8s(
    *, in_channels: int, classes: int, width: int = 64, head: int = 4096, dropout: float = 0.5
) -> FCN:
    """Build FCN-8s, which adds the scores of the fourth and third pool.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes to tell apart, at least 2.
    width : int
        Channels of the first block; 64 in VGG16.
    head : int
        Channels of the two layers that were fully connected; 4096 in VGG16.
    dropout : float
        Drop-out after each of the two, from 0 to below 1.

    References
    ----------
    Long, Shelhamer, Darrell (2015), Fully Convolutional Networks for Semantic Segmentation.
    """
    return _build(8, in_channels, classes, width=width, head=head, dropout=dropout)


def _build(
    stride: int, in_channels: int, classes: int, *, width: int, head: int, dropout: float
) -> FCN:
    ranges = {
        "in_channels": (in_channels >= 1, "at least 1", in_channels),
        "classes": (classes >= 2, "at least 2", classes),
        "width": (width >= 1, "at least 1", width),
        "head": (head >= 1, "at least 1", head),
        "dropout": (0 <= dropout < 1, "from 0 to below 1", dropout),
    }
    for name, (holds, rule, value) in ranges.items():
        if not holds:
            raise UsageError(
                f"{name} of model 'fcn{stride}s' must be {rule}, got {value};"
                " choose one in that range"
            )
    return FCN(
        in_channels=in_channels,
        classes=classes,
        stride=stride,
        width=width,
        head=head,
        dropout=dropout,
    )


def _block(before: int, after: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(convolutions):
        layers += [nn.Conv2d(after if k else before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def _initialise(layer: nn.Module) -> None:
    # The paper starts from ImageNet; from chance a network this deep needs He's weights.
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
