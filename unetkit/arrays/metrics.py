"""Scores of a segmentation, each from a contingency table alone.

What this module does not know: where a table comes from. A score that does not apply, because
there is nothing that it could be a share of, is None and never NaN. Nothing is counted where the
annotation says ignore. A table may hold several images side by side (`contingency.pool`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage import metrics as skimage_metrics

if TYPE_CHECKING:
    from unetkit.arrays.contingency import Contingency

Array = np.ndarray[Any, Any]

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


def seg(table: Contingency) -> float | None:
    """Measure the mean IoU over the true objects, from 0 to 1 (best), as the CTC's SEG.

    A predicted object matches a true one when it covers more than half of its pixels; a true
    object without a match counts 0. Predicted objects that match nothing cost nothing. None
    without true objects.

    References
    ----------
    Cell Tracking Challenge, evaluation methodology; Maska et al. (2014), Bioinformatics 30:1609.
    """
    pairs = _overlaps(table)
    matched = 2 * pairs.shared > pairs.true_sizes
    total = float((pairs.shared[matched] / pairs.unions[matched]).sum())
    return _share(total, pairs.true_objects)


def matches(table: Contingency, percent: int) -> int:
    """Count the objects that match one to one with an IoU of at least `percent` / 100.

    Parameters
    ----------
    table : Contingency
    percent : int
        From 50 to 100. Above 50 an object has at most one match; at 50 the largest possible set
        of pairs counts.

    Returns
    -------
    int
    """
    return _matches(_overlaps(table), percent)


def average_precision(table: Contingency) -> dict[str, float | None]:
    """Measure TP / (TP + FP + FN) of objects at each IoU threshold, from 0 to 1 (best).

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    dict of str to float or None
        Keys "0.50", "0.55", ..., "0.95". None where neither side has an object; one
        false object in an empty image makes it 0.

    References
    ----------
    Caicedo et al. (2019), Nature Methods 16:1247; Schmidt et al. (2018), MICCAI, StarDist.
    """
    pairs = _overlaps(table)
    objects = pairs.true_objects + pairs.pred_objects
    found = {percent: _matches(pairs, percent) for percent in THRESHOLDS}
    return {f"{p / 100:.2f}": _share(tp, objects - tp) for p, tp in found.items()}


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
    # No two pixels share a segment on either side: the two agree.
    return max(error, 0.0) if np.isfinite(error) else 0.0


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


def _share(part: float, whole: float) -> float | None:
    """Divide, or say that there is nothing to divide by."""
    return float(part / whole) if whole else None


def _pixels(table: Contingency, label: int) -> tuple[int, int, int]:
    """Count the pixels that have the label on both sides, in truth, in prediction."""
    true, pred = table.true == label, table.pred == label
    counts = table.counts
    return int(counts[true & pred].sum()), int(counts[true].sum()), int(counts[pred].sum())


@dataclass(frozen=True)
class _Overlaps:
    """The pairs of a true and a predicted object that share pixels."""

    shared: Array
    true: Array
    pred: Array
    true_sizes: Array
    unions: Array
    true_objects: int
    pred_objects: int


def _overlaps(table: Contingency) -> _Overlaps:
    """Find the pairs of objects that share pixels, and how many objects there are."""
    true, pred = table.segments("true"), table.segments("pred")
    objects = (table.true != 0) & (table.pred != 0)
    rows, columns, shared = true.row[objects], pred.row[objects], table.counts[objects]
    true_sizes, pred_sizes = true.sizes[rows], pred.sizes[columns]
    unions = true_sizes + pred_sizes - shared
    return _Overlaps(shared, rows, columns, true_sizes, unions, true.objects, pred.objects)


def _matches(pairs: _Overlaps, percent: int) -> int:
    """Count the largest set of one-to-one matches; above 50 % there is only one."""
    close = 100 * pairs.shared >= percent * pairs.unions
    if not close.any():
        return 0
    places = (pairs.true[close], pairs.pred[close])
    graph = csr_array((np.ones(len(places[0])), places))
    return int(np.count_nonzero(maximum_bipartite_matching(graph) >= 0))
