"""Every score of a table in one record, and their mean over images.

What this module does not know: how a score is defined; `unetkit.arrays.metrics` says so. Overall
scores are those of pooled tables; the mean over images stands beside them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import matching, metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unetkit.arrays.contingency import Contingency


@dataclass(frozen=True)
class ClassScores:
    """How one class of a class map was met.

    Attributes
    ----------
    label : int
    name : str
        The class's name, or its label in digits.
    dice, iou, precision, recall : float or None
        As `metrics` has them.
    pixels_true, pixels_predicted : float
        Pixels of the class in the truth and in the prediction.
    """

    label: int
    name: str
    dice: float | None
    iou: float | None
    precision: float | None
    recall: float | None
    pixels_true: float
    pixels_predicted: float


@dataclass(frozen=True)
class Scores:
    """All scores of one table; those that do not apply are None.

    Attributes
    ----------
    pixels : float
        Pixels that were counted.
    pixel_error, dice, iou : float or None
        Of foreground for instances; for class maps `dice` and `iou` are means over the classes
        above 0 that occur.
    accuracy, precision, recall : float or None
        Of pixels: of foreground for instances; for class maps means over the classes likewise.
    seg, det, average_precision, f1, pq, sq, rq : float or None
        For instances only. `average_precision` is the mean over the thresholds, `f1` that at 0.5.
    rand, adapted_rand_error, voi, voi_split, voi_merge : float or None
        For instances only.
    average_precision_at : dict of str to float or None
        By threshold: "0.50", "0.55", ..., "0.95".
    objects_true, objects_predicted, objects_matched : float or None
        Object counts; matched one to one at an IoU of at least 0.5.
    splits, merges, misses, false_objects : float or None
        See `matching.errors`.
    boundary_f, hausdorff95, surface_distance : float or None
        Of the outlines of the foreground; only where borders were asked for.
    v_rand, v_info, warping_error, isbi_rand, isbi_pixel : float or None
        Of cells parted by thin borders, likewise.
    classes : tuple of ClassScores
        For class maps only: one for each class that is named or occurs.
    """

    pixels: float
    pixel_error: float | None = None
    dice: float | None = None
    iou: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    seg: float | None = None
    det: float | None = None
    f1: float | None = None
    pq: float | None = None
    sq: float | None = None
    rq: float | None = None
    average_precision: float | None = None
    average_precision_at: dict[str, float | None] | None = None
    rand: float | None = None
    adapted_rand_error: float | None = None
    voi: float | None = None
    voi_split: float | None = None
    voi_merge: float | None = None
    objects_true: float | None = None
    objects_predicted: float | None = None
    objects_matched: float | None = None
    splits: float | None = None
    merges: float | None = None
    misses: float | None = None
    false_objects: float | None = None
    boundary_f: float | None = None
    hausdorff95: float | None = None
    surface_distance: float | None = None
    v_rand: float | None = None
    v_info: float | None = None
    warping_error: float | None = None
    isbi_rand: float | None = None
    isbi_pixel: float | None = None
    classes: tuple[ClassScores, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        return asdict(self) | {"classes": [asdict(c) for c in self.classes]}


def score_instances(table: Contingency) -> Scores:
    """Work out every score of a table of instance ids.

    Parameters
    ----------
    table : Contingency
        Of one image, or of several side by side (`contingency.pool`).

    Returns
    -------
    Scores
    """
    pixels = table.foreground()
    pairs = matching.overlaps(table)
    found = matching.errors(pairs)
    split, merged = metrics.variation_of_information(table) or (None, None)
    precision = metrics.average_precision(pairs)
    panoptic = matching.panoptic(pairs)
    return Scores(
        pixels=table.pixels,
        pixel_error=metrics.pixel_error(pixels),
        dice=metrics.dice(pixels),
        iou=metrics.iou(pixels),
        accuracy=metrics.accuracy(pixels),
        precision=metrics.precision(pixels),
        recall=metrics.recall(pixels),
        seg=metrics.seg(pairs),
        det=matching.det(pairs),
        f1=metrics.f1(pairs),
        pq=panoptic["pq"],
        sq=panoptic["sq"],
        rq=panoptic["rq"],
        average_precision=_mean(precision.values()),
        average_precision_at=precision,
        rand=metrics.rand(table),
        adapted_rand_error=metrics.adapted_rand_error(table),
        voi=None if split is None or merged is None else split + merged,
        voi_split=split,
        voi_merge=merged,
        objects_true=pairs.true.objects,
        objects_predicted=pairs.pred.objects,
        objects_matched=len(pairs.matches(metrics.THRESHOLDS[0])),
        splits=found.splits,
        merges=found.merges,
        misses=found.misses,
        false_objects=found.false_objects,
    )


def score_classes(table: Contingency, class_names: Sequence[str] = ()) -> Scores:
    """Work out every score of a table of classes.

    Parameters
    ----------
    table : Contingency
        Of one image or several: a class means the same in all.
    class_names : sequence of str
        Names of class 0, 1, ...; classes beyond it go by their number.

    Returns
    -------
    Scores
        Scores of objects are None.
    """
    labels = {*range(len(class_names)), *np.union1d(table.true, table.pred).tolist()}
    classes = tuple(_score_class(table, label, class_names) for label in sorted(labels))
    foreground = [c for c in classes if c.label > 0]
    return Scores(
        pixels=table.pixels,
        pixel_error=metrics.pixel_error(table),
        dice=_mean(c.dice for c in foreground),
        iou=_mean(c.iou for c in foreground),
        accuracy=metrics.accuracy(table),
        precision=_mean(c.precision for c in foreground),
        recall=_mean(c.recall for c in foreground),
        classes=classes,
    )


def mean(scores: Sequence[Scores]) -> Scores:
    """Average each score over the images to which it applies; counts are averaged too.

    Parameters
    ----------
    scores : sequence of Scores
        One an image, at least one.

    Returns
    -------
    Scores
    """
    tables = [s.average_precision_at for s in scores if s.average_precision_at is not None]
    by_label: dict[int, list[ClassScores]] = {}
    for one in (c for s in scores for c in s.classes):
        by_label.setdefault(one.label, []).append(one)
    return Scores(
        **_means(scores),
        average_precision_at=_mean_at(tables) if tables else None,
        classes=tuple(
            ClassScores(label, of[0].name, **_means(of)) for label, of in sorted(by_label.items())
        ),
    )


def _means(scores: Sequence[Scores] | Sequence[ClassScores]) -> dict[str, Any]:
    """Average every field that is a number by itself."""
    apart = ("average_precision_at", "classes", "label", "name")
    names = [f.name for f in fields(scores[0]) if f.name not in apart]
    return {name: _mean(getattr(s, name) for s in scores) for name in names}


def _mean_at(tables: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Average at each threshold."""
    return {key: _mean(table[key] for table in tables) for key in tables[0]}


def _mean(values: Iterable[float | None]) -> float | None:
    """Average what is there, or None where nothing is."""
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None


def _score_class(table: Contingency, label: int, class_names: Sequence[str]) -> ClassScores:
    """Score one class against all others."""
    return ClassScores(
        label=label,
        name=class_names[label] if label < len(class_names) else str(label),
        dice=metrics.dice(table, label),
        iou=metrics.iou(table, label),
        precision=metrics.precision(table, label),
        recall=metrics.recall(table, label),
        pixels_true=int(table.counts[table.true == label].sum()),
        pixels_predicted=int(table.counts[table.pred == label].sum()),
    )
