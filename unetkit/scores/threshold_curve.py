"""Scores of a probability map at many thresholds, from counts that add up over blocks.

What this module does not know: files, and which channel speaks of which label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

# A pixel is found where its probability is above the threshold; our own choice of steps.
THRESHOLDS = tuple(n / 50 for n in range(50))


def count(
    truth: Array, chance: Array, *, labels: Sequence[int], ignore: Array | None = None
) -> Array:
    """Count pixels by truth and by how many thresholds their probability is above.

    Parameters
    ----------
    truth : ndarray of int or bool, shape (Y, X)
    chance : ndarray of float, shape (L, Y, X)
        The probability of each label, 0 to 1.
    labels : sequence of int
        Of each channel.
    ignore : ndarray, shape (Y, X), optional
        Pixels where it is not 0 are not counted.

    Returns
    -------
    ndarray of int64, shape (L, 2, T + 1)
        Pixels that are not and that are of the label, by the number of thresholds.
    """
    steps = len(THRESHOLDS) + 1
    counted = slice(None) if ignore is None else ignore.ravel() == 0
    rows = []
    for label, values in zip(labels, chance, strict=True):
        above = np.searchsorted(np.array(THRESHOLDS), values.ravel()[counted])
        right = truth.ravel()[counted] == label
        rows.append(np.bincount(above + steps * right, minlength=2 * steps).reshape(2, steps))
    return np.stack(rows).astype(np.int64)


def curve(counts: Array) -> list[dict[str, float | None]]:
    """Score one label at every threshold.

    Parameters
    ----------
    counts : ndarray of int64, shape (2, T + 1)
        As `count` gives it.

    Returns
    -------
    list of dict
        `threshold`, and `precision`, `recall`, `dice`, `iou`, `pixel_error`; None where a score
        does not apply.
    """
    # Pixels above threshold k have passed at least k + 1 of them.
    found = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    true, pixels = int(counts[1].sum()), int(counts.sum())
    rows = []
    for threshold, wrong, right in zip(THRESHOLDS, *found.tolist(), strict=True):
        missed = true - right
        rows.append(
            {
                "threshold": threshold,
                "precision": _share(right, right + wrong),
                "recall": _share(right, true),
                "dice": _share(2 * right, right + wrong + true),
                "iou": _share(right, true + wrong),
                "pixel_error": _share(missed + wrong, pixels),
            }
        )
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
