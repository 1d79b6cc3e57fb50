"""Which objects of truth and prediction meet, and what is wrong with those that do not.

What this module does not know: where a table comes from, and how scores are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage import metrics as skimage_metrics

if TYPE_CHECKING:
    from unetkit.scores.contingency import Contingency, Segments

Array = np.ndarray[Any, Any]

# What the Cell Tracking Challenge charges to mend a detection: split, add, delete a node.
SPLIT_COST, MISS_COST, FALSE_COST = 5, 10, 1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of a true and a predicted object that share pixels.

    Attributes
    ----------
    true, pred : Segments
        The objects of either side, background too.
    rows, columns : ndarray of int64, shape (P,)
        The true and the predicted segment of each pair.
    shared : ndarray of int64, shape (P,)
        Pixels that both have.
    """

    true: Segments
    pred: Segments
    rows: Array
    columns: Array
    shared: Array

    @cached_property
    def unions(self) -> Array:
        """Pixels that either of a pair has."""
        return self.true.sizes[self.rows] + self.pred.sizes[self.columns] - self.shared

    @cached_property
    def covers_true(self) -> Array:
        """Whether the predicted object has more than half of the true one."""
        return 2 * self.shared > self.true.sizes[self.rows]

    @cached_property
    def covers_pred(self) -> Array:
        """Whether the true object has more than half of the predicted one."""
        return 2 * self.shared > self.pred.sizes[self.columns]

    def matches(self, percent: int) -> Array:
        """Choose the largest set of one-to-one pairs with an IoU of `percent` / 100 or more.

        Parameters
        ----------
        percent : int
            From 50 to 100; whole numbers compare exactly.

        Returns
        -------
        ndarray of int64
            Numbers of the chosen pairs.
        """
        close = np.flatnonzero(100 * self.shared >= percent * self.unions)
        # Above one half two objects can have only each other.
        if percent > 50 or len(close) == 0:
            return close
        rows, columns = self.rows[close], self.columns[close]
        graph = csr_array((np.ones(len(close)), (rows, columns)))
        partner = maximum_bipartite_matching(graph, perm_type="column")
        chosen: Array = close[partner[rows] == columns]
        return chosen


def overlaps(table: Contingency) -> Overlaps:
    """Find the pairs of objects that share pixels.

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    Overlaps
    """
    true, pred = table.segments("true"), table.segments("pred")
    both = (table.true != 0) & (table.pred != 0)
    return Overlaps(true, pred, true.row[both], pred.row[both], table.counts[both])


def panoptic(pairs: Overlaps) -> dict[str, float | None]:
    """Measure how well objects are found (rq) and outlined (sq), and both in one (pq).

    Objects match where their IoU is above 0.5; rq = TP / (TP + FP/2 + FN/2), sq is the mean IoU of
    the matches, and pq their product. From 0 to 1 (best). rq and pq are None without objects, sq
    without matches.

    References
    ----------
    Kirillov et al. (2019), CVPR, Panoptic segmentation.
    """
    match = 2 * pairs.shared > pairs.unions
    found = int(match.sum())
    total = float((pairs.shared[match] / pairs.unions[match]).sum())
    half = (pairs.true.objects + pairs.pred.objects) / 2
    return {
        "pq": total / half if half else None,
        "sq": total / found if found else None,
        "rq": found / half if half else None,
    }


def det(pairs: Overlaps) -> float | None:
    """Measure how well objects are detected, from 0 to 1 (best), as the challenge's DET.

    What it costs to mend the detections, against adding every object by hand: 5 for each further
    true object that a predicted one covers by more than half, 10 for a miss, 1 for a false object.
    None without true objects.

    References
    ----------
    Cell Tracking Challenge, evaluation methodology; Matula et al. (2015), PLoS ONE 10:e0144959.
    """
    if not pairs.true.objects:
        return None
    covered = pairs.columns[pairs.covers_true]
    detecting = len(np.unique(covered))
    cost = SPLIT_COST * (len(covered) - detecting)
    cost += MISS_COST * (pairs.true.objects - len(covered))
    cost += FALSE_COST * (pairs.pred.objects - detecting)
    nothing = MISS_COST * pairs.true.objects
    return 1 - min(cost, nothing) / nothing


@dataclass(frozen=True, eq=False)
class Errors:
    """What became of each object.

    Attributes
    ----------
    true, pred : ndarray of str, shape (S,)
        For each segment of either side `match`, `split`, `merge`, `miss` or `false`, `inexact`, and
        empty for background.
    true_partner, pred_partner : ndarray of int64, shape (S,)
        The segment of the other side with which it shares most of its pixels; -1 for none.
    true_iou, pred_iou : ndarray of float64, shape (S,)
        IoU with that segment.
    true_parts, pred_parts : ndarray of int64, shape (S,)
        Of how many objects of the other side it covers more than half.
    splits, merges, misses, false_objects : int
        True objects that cover more than half of several predicted ones; predicted objects that
        cover more than half of several true ones; objects of either side that share more than
        half, of themselves or of the other, with none.
    """

    true: Array
    pred: Array
    true_partner: Array
    pred_partner: Array
    true_iou: Array
    pred_iou: Array
    true_parts: Array
    pred_parts: Array
    splits: int
    merges: int
    misses: int
    false_objects: int


def errors(pairs: Overlaps) -> Errors:
    """Find splits, merges, misses and false objects.

    An object that matches at an IoU of 0.5 is a `match` whatever else it touches.

    Parameters
    ----------
    pairs : Overlaps

    Returns
    -------
    Errors
    """
    parts = np.bincount(pairs.rows[pairs.covers_pred], minlength=len(pairs.true.ids))
    wholes = np.bincount(pairs.columns[pairs.covers_true], minlength=len(pairs.pred.ids))
    linked = pairs.covers_true | pairs.covers_pred
    in_split = _any(pairs.columns, pairs.covers_pred & (parts[pairs.rows] > 1), len(wholes))
    in_merge = _any(pairs.rows, pairs.covers_true & (wholes[pairs.columns] > 1), len(parts))
    matched = pairs.matches(50)
    true = _kinds(
        pairs.true,
        match=np.isin(np.arange(len(parts)), pairs.rows[matched]),
        split=parts > 1,
        merge=in_merge,
        alone=~_any(pairs.rows, linked, len(parts)),
        word="miss",
    )
    pred = _kinds(
        pairs.pred,
        match=np.isin(np.arange(len(wholes)), pairs.columns[matched]),
        split=in_split,
        merge=wholes > 1,
        alone=~_any(pairs.columns, linked, len(wholes)),
        word="false",
    )
    iou = pairs.shared / np.maximum(pairs.unions, 1)
    true_partner, true_iou = _nearest(pairs.rows, pairs.columns, pairs.shared, iou, len(parts))
    pred_partner, pred_iou = _nearest(pairs.columns, pairs.rows, pairs.shared, iou, len(wholes))
    return Errors(
        true=true,
        pred=pred,
        true_partner=true_partner,
        pred_partner=pred_partner,
        true_iou=true_iou,
        pred_iou=pred_iou,
        true_parts=parts,
        pred_parts=wholes,
        splits=int((parts > 1).sum()),
        merges=int((wholes > 1).sum()),
        misses=int((true == "miss").sum()),
        false_objects=int((pred == "false").sum()),
    )


def _any(places: Array, chosen: Array, size: int) -> Array:
    """Mark the segments that any chosen pair has."""
    marks = np.zeros(size, bool)
    marks[places[chosen]] = True
    return marks


def _kinds(
    side: Segments, *, match: Array, split: Array, merge: Array, alone: Array, word: str
) -> Array:
    """Give each object the first kind that fits."""
    kinds = np.select(
        [side.ids == 0, match, split, merge, alone],
        ["", "match", "split", "merge", word],
        default="inexact",
    )
    return np.asarray(kinds)


def _nearest(own: Array, other: Array, shared: Array, iou: Array, size: int) -> tuple[Array, Array]:
    """Find for each segment the one it shares most with; the lower number where two share alike."""
    order = np.lexsort((-other, shared, own))  # the last of a segment is the one
    partner, best = np.full(size, -1), np.zeros(size)
    partner[own[order]], best[own[order]] = other[order], iou[order]
    return partner, best


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
