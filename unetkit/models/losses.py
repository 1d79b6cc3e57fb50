"""What training makes small; it knows logits, targets and weights, not where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of the pixel-wise soft-max, each pixel counted by its weight.

    The paper prints ``sum(w(x) * log(p(x)))`` over the pixels, with its minus sign lost. The sum
    grows with the tile, so here it is divided by the number of pixels that count at all, which is
    our own choice: the learning rate then fits every tile size, and a pixel between two cells
    still pulls harder by its weight. A division by the sum of weights would take that pull away
    from tiles with many borders.

    Parameters
    ----------
    logits : Tensor of float, shape (N, K, Y, X)
        What the network returned.
    target : Tensor of int64, shape (N, Y, X)
        The true class of each pixel, 0 to K - 1.
    weights : Tensor of float, shape (N, Y, X)
        The weight of each pixel; 0 leaves a pixel out.

    Returns
    -------
    Tensor of float32, shape ()
        0, with gradients of 0, where no pixel counts.

    Raises
    ------
    UsageError
        If the shapes don't fit together.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 1.
    """
    pixels = (logits.shape[0], *logits.shape[2:])
    if target.shape != pixels or weights.shape != pixels:
        raise UsageError(
            f"target and weights must be of shape {tuple(pixels)} like the logits, got"
            f" {tuple(target.shape)} and {tuple(weights.shape)}; cut them to the model's output"
        )
    weights = weights.float()
    # Soft-max in float32 also where the network ran in a lower precision.
    entropy = functional.cross_entropy(logits.float(), target, reduction="none")
    return (weights * entropy).sum() / (weights > 0).sum().clamp(min=1)
