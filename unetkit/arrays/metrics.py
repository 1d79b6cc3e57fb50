"""Scores of a segmentation, each from a contingency table alone.

What this module does not know: where a table comes from. A score that does not apply, because
there is nothing that it could be a share of, is None and never NaN. Nothing is counted where the
annotation says ignore. A table may hold several images side by side (`contingency.pool`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skimage import metrics as skimage_metrics

from unetkit.arrays.matching import Overlaps, overlaps

if TYPE_CHECKING:
    from unetkit.arrays.contingency import Contingency

# The IoU at and above which two objects match, in percent: whole numbers compare exactly.
THRESHOLDS = tuple(range(50, 100, 5))


def pixel_error(table: Contingency) -> float | None:
    """Measure the share of pixels with the wrong label, from 0 (best) to 1.

    For instances take it of `table.foreground()`. None without pixels.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142.
    """
    wrong = int(table.counts[table.true != table.pred].sum())
    return _share(wrong, table.pixels)


def accuracy(table: Contingency) -> float | None:
    """Measure the share of pixels with the right label, from 0 to 1 (best).

    For instances take it of `table.foreground()`. None without pixels.
    """
    right = int(table.counts[table.true == table.pred].sum())
    return _share(right, table.pixels)


def dice(table: Contingency, label: int = 1) -> float | None:
    """Measure the overlap 2 TP / (2 TP + FP + FN) of one label's pixels, from 0 to 1 (best).

    None where neither truth nor prediction has the label.

    References
    ----------
    Dice (1945), Ecology 26:297.
    """
    both, true, pred = _pixels(table, label)
    return _share(2 * both, true + pred)


def iou(table: Contingency, label: int = 1) -> float | None:
    """Measure the overlap TP / (TP + FP + FN) of one label's pixels, from 0 to 1 (best).

    None where neither truth nor prediction has the label.

    References
    ----------
    Jaccard (1912), New Phytologist 11:37.
    """
    both, true, pred = _pixels(table, label)
    return _share(both, true + pred - both)


def precision(table: Contingency, label: int = 1) -> float | None:
    """Measure the share of the predicted pixels of a label that are right, from 0 to 1 (best).

    None where nothing is predicted.
    """
    both, _, pred = _pixels(table, label)
    return _share(both, pred)


def recall(table: Contingency, label: int = 1) -> float | None:
    """Measure the share of the true pixels of a label that are found, from 0 to 1 (best).

    None where the truth has none.
    """
    both, true, _ = _pixels(table, label)
    return _share(both, true)


def seg(table: Contingency | Overlaps) -> float | None:
    """Measure the mean IoU over the true objects, from 0 to 1 (best), as the CTC's SEG.

    A predicted object matches a true one when it covers more than half of its pixels; a true
    object without a match counts 0. Predicted objects that match nothing cost nothing. None
    without true objects.

    References
    ----------
    Cell Tracking Challenge, evaluation methodology; Maska et al. (2014), Bioinformatics 30:1609.
    """
    pairs = _paired(table)
    matched = pairs.covers_true
    total = float((pairs.shared[matched] / pairs.unions[matched]).sum())
    return _share(total, pairs.true.objects)


def matches(table: Contingency | Overlaps, percent: int) -> int:
    """Count the objects that match one to one with an IoU of at least `percent` / 100.

    Parameters
    ----------
    table : Contingency or Overlaps
    percent : int
        From 50 to 100. Above 50 an object has at most one match; at 50 the largest possible set
        of pairs counts.

    Returns
    -------
    int
    """
    return len(_paired(table).matches(percent))


def average_precision(table: Contingency | Overlaps) -> dict[str, float | None]:
    """Measure TP / (TP + FP + FN) of objects at each IoU threshold, from 0 to 1 (best).

    Parameters
    ----------
    table : Contingency or Overlaps

    Returns
    -------
    dict of str to float or None
        Keys "0.50", "0.55", ..., "0.95". None where neither side has an object; one
        false object in an empty image makes it 0.

    References
    ----------
    Caicedo et al. (2019), Nature Methods 16:1247; Schmidt et al. (2018), MICCAI, StarDist.
    """
    pairs = _paired(table)
    objects = pairs.true.objects + pairs.pred.objects
    found = {percent: len(pairs.matches(percent)) for percent in THRESHOLDS}
    return {f"{p / 100:.2f}": _share(tp, objects - tp) for p, tp in found.items()}


def f1(table: Contingency | Overlaps, percent: int = THRESHOLDS[0]) -> float | None:
    """Measure 2 TP / (2 TP + FP + FN) of objects at an IoU of `percent` / 100, from 0 to 1 (best).

    None where neither side has an object.

    References
    ----------
    Caicedo et al. (2019), Nature Methods 16:1247.
    """
    pairs = _paired(table)
    objects = pairs.true.objects + pairs.pred.objects
    return _share(2 * len(pairs.matches(percent)), objects)


def rand(table: Contingency) -> float | None:
    """Measure the share of pixel pairs that both sides join, or both part, from 0 to 1 (best).

    Background is one segment an image. None with fewer than two pixels.

    References
    ----------
    Rand (1971), Journal of the American Statistical Association 66:846.
    """
    pairs = _pairs(np.array([table.pixels]))
    true, pred = table.segments("true").sizes, table.segments("pred").sizes
    differing = _pairs(true) + _pairs(pred) - 2 * _pairs(table.counts)
    return _share(pairs - differing, pairs)


def adapted_rand_error(table: Contingency) -> float | None:
    """Measure 1 - F of the pixel pairs that lie in one object, from 0 (best) to 1.

    Pixels whose true label is 0 don't count; missed pixels of true objects form one segment an
    image. None where no true object has a pixel. This is scikit-image's `adapted_rand_error`.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142.
    """
    matrix = table.matrix(background=False)
    if matrix.nnz == 0:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        error = float(skimage_metrics.adapted_rand_error(table=matrix)[0])
    if np.isfinite(error):
        return max(error, 0.0)
    # A side joins no two pixels: the two agree where neither does.
    joined = sum(float((matrix.sum(axis=axis) ** 2).sum()) for axis in (0, 1))
    return 1.0 if joined > 2 * matrix.sum() else 0.0


def variation_of_information(table: Contingency) -> tuple[float, float] | None:
    """Measure what splits and what merges cost, each in bits from 0 (best) up.

    All pixels count, background being one segment an image. None without pixels. This is
    scikit-image's `variation_of_information(truth, prediction)`.

    Returns
    -------
    tuple of float, or None
        H(prediction | truth), which grows as true objects are split, and
        H(truth | prediction), which grows as they are merged. Their sum is the distance.

    References
    ----------
    Meila (2007), Journal of Multivariate Analysis 98:873.
    """
    if table.pixels == 0:
        return None
    shares = table.matrix() / table.pixels
    unused = np.empty(0)  # scikit-image compares the images' shapes even where it has the table
    split, merged = skimage_metrics.variation_of_information(unused, unused, table=shares)
    # Sums of logarithms leave 1e-16 where segments agree, on either side of 0.
    return round(max(0.0, float(split)), 12), round(max(0.0, float(merged)), 12)


def _paired(table: Contingency | Overlaps) -> Overlaps:
    """Find the pairs of objects, unless that was done before."""
    return table if isinstance(table, Overlaps) else overlaps(table)


def _pairs(sizes: np.ndarray[Any, Any]) -> int:
    """Count the pairs of pixels inside segments; whole numbers of any size."""
    return sum(n * (n - 1) // 2 for n in sizes.tolist())


def _share(part: float, whole: float) -> float | None:
    """Divide, or say that there is nothing to divide by."""
    return float(part / whole) if whole else None


def _pixels(table: Contingency, label: int) -> tuple[int, int, int]:
    """Count the pixels that have the label on both sides, in truth, in prediction."""
    true, pred = table.true == label, table.pred == label
    counts = table.counts
    return int(counts[true & pred].sum()), int(counts[true].sum()), int(counts[pred].sum())
