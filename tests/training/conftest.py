"""Samples in memory, and a network with a single weight a class, for tests of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unetkit.arrays.normalization import Normalization
from unetkit.training.recipes import RECIPES
from unetkit.training.sampler import Batch, ClassCounts, TrainingSample

# Draws tiles, and changes nothing in them.
PLAIN = replace(
    RECIPES["default"],
    tile=12,
    foreground=0.0,
    elastic=0.0,
    rotated=0.0,
    flips=False,
    grey=0.0,
    averaging=0.0,
)


@dataclass
class Memory:
    """An array of planes, (P, Y, X) or (P, C, Y, X), that notes which boxes are read."""

    array: np.ndarray
    boxes: list = field(default_factory=list)

    @property
    def height(self):
        return self.array.shape[-2]

    @property
    def width(self):
        return self.array.shape[-1]

    @property
    def planes(self):
        return len(self.array)

    def read(self, plane, y0, y1, x0, x1):
        self.boxes.append((plane, y0, y1, x0, x1))
        return self.array[plane, ..., y0:y1, x0:x1].copy()


def class_counts(target, weights, *, side=25):
    """Count the classes of planes (P, Y, X) in boxes that do not divide them evenly."""
    boxes, counts = [], []
    planes, height, width = target.shape
    for plane in range(planes):
        for y in range(0, height, side):
            for x in range(0, width, side):
                y1, x1 = min(y + side, height), min(x + side, width)
                part = target[plane, y:y1, x:x1][weights[plane, y:y1, x:x1] > 0]
                boxes.append((plane, y, x, y1, x1))
                counts.append(np.bincount(part, minlength=256))
    return ClassCounts(np.array(boxes), np.array(counts))


def sample(image, *, target=None, weights=None, **more):
    """Make a sample of one plane from an image (C, Y, X); its target is the image's brightness."""
    target = (image[0] > 0.5).astype(np.uint8) if target is None else target
    weights = np.ones(target.shape, np.float32) if weights is None else weights
    same = Normalization("none", (0.0,) * len(image), (1.0,) * len(image))
    planes = (Memory(part[None]) for part in (image, target, weights))
    where = class_counts(target[None], weights[None])
    return TrainingSample(*planes, normalization=same, class_counts=where, **more)


class Dots(torch.nn.Module):
    """Logits are multiples of the pixel: the simplest network that can learn a threshold."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(2, generator=generator))
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, images):
        return images * self.weight[:, None, None] + self.bias[:, None, None]


def batch(seed=0, *, names=("a",), fill=None):
    """Make noise to be told apart at one half; or an image of a single value."""
    images = np.random.default_rng(seed).random((len(names), 1, 16, 16), dtype=np.float32)
    if fill is not None:
        images[:] = fill
    targets = (images[:, 0] > 0.5).astype(np.int64)
    return Batch(images, targets, np.ones(targets.shape, np.float32), names)


def plain(**changes):
    """Change a recipe that leaves tiles as they are."""
    return replace(PLAIN, **changes)


@pytest.fixture
def kit():
    """Return what makes samples, batches, recipes and a network."""
    return SimpleNamespace(
        Dots=Dots, Memory=Memory, batch=batch, sample=sample, plain=plain, class_counts=class_counts
    )
