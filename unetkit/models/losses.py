"""What training makes small; it knows logits, targets and weights, not where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

# What segmentation-models-pytorch offers for several classes: its class there, and its numbers. Of
# "tversky" they are those of Salehi et al. (2017): with 0.5 and 0.5 it would be "dice" again.
_BY_REGION: dict[str, tuple[str, dict[str, float]]] = {
    "dice": ("DiceLoss", {}),
    "jaccard": ("JaccardLoss", {}),
    "tversky": ("TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
    "lovasz": ("LovaszLoss", {}),
}
LOSSES = ("unet", "ce", "dice", "jaccard", "tversky", "focal", "lovasz")
# How much the pixels count less that are right already, as Lin et al. (2017) found best.
GAMMA = 2
_BY_TILE = ("focal", *_BY_REGION)


@dataclass(frozen=True)
class Loss:
    """A sum of losses, each with a factor.

    ``unet`` is the weighted cross-entropy of the paper and ``ce`` the same without weights.
    ``focal`` is that of Lin et al. (2017) with one soft-max in place of a sigmoid for each class,
    (1 - p)^2 times the cross-entropy, and without their balance of classes. The others come from
    segmentation-models-pytorch. These and ``focal`` are the mean over the tiles of a batch, so that
    it makes no difference in how many parts a batch is computed. Weights say how much a pixel
    counts in ``unet``; a pixel of weight 0 counts in none of them.
    """

    terms: tuple[tuple[float, str], ...]  # factors, and names out of `LOSSES`

    def __str__(self) -> str:
        return "+".join(
            name if factor == 1 else f"{factor:g}*{name}" for factor, name in self.terms
        )

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weights: Tensor,
        *,
        pixels: int | None = None,
        tiles: int | None = None,
    ) -> Tensor:
        """Return the loss of a batch: logits (N, K, Y, X), target and weights (N, Y, X).

        A weight of 0 leaves a pixel out. `pixels` and `tiles` say how many there are where this is
        a part of a batch: the losses of all parts then sum up to that of the batch.
        """
        if bool((weights < 0).any()):
            raise InputError(
                f"weights of a loss must be 0 or more, got {float(weights.min()):g}; write them"
                " anew with 'unetkit weights --overwrite'"
            )
        # Loaded where it is used, here and below: a loss is read from words without it.
        import torch

        values = []
        for factor, name in self.terms:
            if name in _BY_TILE:
                share = 1.0 if tiles is None else logits.shape[0] / tiles
                values.append(factor * share * _by_tile(name, logits, target, weights))
            else:
                counted = weights if name == "unet" else (weights > 0).float()
                entropy = weighted_cross_entropy(logits, target, counted, pixels=pixels)
                values.append(factor * entropy)
        return torch.stack(values).sum()


def parse_loss(text: str) -> Loss:
    """Read a sum of losses such as ``unet+0.5*dice``.

    Examples
    --------
    >>> str(parse_loss("unet + 0.50*dice"))
    'unet+0.5*dice'
    """
    terms: list[tuple[float, str]] = []
    for term in text.split("+"):
        factor, star, name = (part.strip() for part in term.rpartition("*"))
        terms.append((_factor(factor, text) if star else 1.0, name))
    names = [name for _, name in terms]
    if not set(names) <= set(LOSSES) or len(set(names)) < len(names):
        raise _unfit(text)
    return Loss(tuple(terms))


def _factor(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _unfit(whole) from None
    if not (math.isfinite(value) and value > 0):
        raise _unfit(whole)
    return value


def _unfit(text: str) -> UsageError:
    return UsageError(
        f"loss must be a sum such as unet+0.5*dice of {', '.join(LOSSES)}, each at most once,"
        f" got {text!r:.80}"
    )


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, *, pixels: int | None = None
) -> Tensor:
    """Return the cross-entropy of the pixel-wise soft-max, each pixel counted by its weight.

    The paper prints ``sum(w(x) * log(p(x)))`` over the pixels, with its minus sign lost. The sum
    grows with the tile, so here it is divided by the number of pixels that count at all, which is
    our own choice: the learning rate then fits every tile size, and a pixel between two cells
    still pulls harder by its weight. A division by the sum of weights would take that pull away
    from tiles with many borders. Where no pixel counts it is 0, with gradients of 0.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 1.
    """
    from torch.nn import functional

    from unetkit.models.hardware import widened

    shape = (logits.shape[0], *logits.shape[2:])
    if target.shape != shape or weights.shape != shape:
        raise UsageError(
            f"target and weights must be of shape {tuple(shape)} like the logits, got"
            f" {tuple(target.shape)} and {tuple(weights.shape)}; cut them to the model's output"
        )
    weights = weights.float()
    # Soft-max in float32 also where the network ran in a lower precision.
    entropy = functional.cross_entropy(widened(logits), target, reduction="none")
    total = (weights * entropy).sum()
    return total / ((weights > 0).sum().clamp(min=1) if pixels is None else max(pixels, 1))


def _by_tile(name: str, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the tiles of a loss that looks at the pixels that count alone."""
    import torch

    from unetkit.models.hardware import widened

    values = []
    for tile, truth, weight in zip(widened(logits), target, weights, strict=True):
        counts = weight > 0
        if bool(counts.any()):
            # One row: some of them want a picture.
            row, classes = tile[:, counts][None, :, None], truth[counts][None, None]
            found = _focal(row, classes) if name == "focal" else _loaded(name)(row, classes)
            values.append(found.sum())
        else:
            values.append(tile.sum() * 0)
    return torch.stack(values).mean()


def _focal(logits: Tensor, classes: Tensor) -> Tensor:
    import torch
    from torch.nn import functional

    entropy = functional.cross_entropy(logits, classes, reduction="none")
    return ((1 - torch.exp(-entropy)) ** GAMMA * entropy).mean()


@cache
def _loaded(name: str) -> Any:
    # Imported when a loss of it is named: it brings every encoder that it knows, which takes long.
    from segmentation_models_pytorch import losses

    kind, numbers = _BY_REGION[name]
    return getattr(losses, kind)(mode="multiclass", **numbers)
