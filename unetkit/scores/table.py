"""Which scores there are: what each means, its range, which end is best, and who defined it.

Definitions and references are those of the docstrings. What this module does not know: data.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.scores import boundaries, isbi2012, matching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from unetkit.scores.contingency import Contingency

PIXELS, OBJECTS, SEGMENTS, BORDERS = "pixels", "objects", "segments", "borders"


@dataclass(frozen=True)
class Score:
    """One score, as `unetkit eval --list` tells it.

    Attributes
    ----------
    name : str
        As in the report.
    of : str
        `pixels`, `objects`, `segments` or `borders` (only where these are asked for).
    definition, reference : str
    range : str
        Smallest and largest value; `inf` where there is no largest.
    best : float or None
        None for counts, of which neither end is best.
    undefined : str
        Where it does not apply; empty for one that always does.
    """

    name: str
    of: str
    definition: str
    reference: str
    range: str
    best: float | None
    undefined: str

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        return asdict(self)

    def fails(self, value: float | None, bound: float) -> bool:
        """Whether a value is worse than a bound, or not there."""
        if value is None:
            return True
        return value > bound if self.best == 0 else value < bound


def scores() -> tuple[Score, ...]:
    """List the scores of `unetkit eval`, in the order of the report.

    Returns
    -------
    tuple of Score
    """
    return tuple(_score(*row) for row in _ROWS)


def score_named(name: str) -> Score | None:
    """Find a score by name; `average_precision_75` is the average precision at an IoU of 0.75.

    Parameters
    ----------
    name : str

    Returns
    -------
    Score or None
    """
    return next((score for score in scores() if score.name == name), None)


def value_of(name: str, overall: dict[str, Any]) -> float | None:
    """Look up a score of the catalogue in a report's `overall`.

    Parameters
    ----------
    name : str
    overall : dict

    Returns
    -------
    float or None
    """
    prefix, _, percent = name.rpartition("_")
    if prefix == "average_precision" and percent.isdigit():
        at: dict[str, float | None] = overall["average_precision_at"] or {}
        return at.get(f"0.{percent}")
    found: float | None = overall[name]
    return found


def _score(
    name: str, of: str, source: Callable[..., Any], own: str, limits: str, best: float | None
) -> Score:
    """Put an entry together; what it does not say itself its docstring does."""
    text = inspect.cleandoc(source.__doc__ or "")
    head, _, tail = text.partition("References\n----------\n")
    reference = " ".join(tail.split())
    definition = own or " ".join(head.split("\n\n")[0].split())
    return Score(name, of, definition, reference, limits, best, _undefined(name, head))


def _undefined(name: str, head: str) -> str:
    """Find what a docstring says about where a score is None."""
    if name in _UNDEFINED:
        return _UNDEFINED[name]
    said = re.search(r"None\s+((?:where|with|without)\s[^.;]*)[.;]", head)
    return " ".join(said.group(1).split()) if said else ""


# Where one docstring is about several scores.
_UNDEFINED = {"pq": "without objects", "rq": "without objects", "sq": "without matches"}
_UNIT = "0 to 1"
_UP = "0 to inf"
_ROWS: tuple[tuple[str, str, Callable[..., Any], str, str, float | None], ...] = (
    ("pixel_error", PIXELS, matching.pixel_error, "", _UNIT, 0),
    ("accuracy", PIXELS, matching.accuracy, "", _UNIT, 1),
    ("dice", PIXELS, matching.dice, "", _UNIT, 1),
    ("iou", PIXELS, matching.iou, "", _UNIT, 1),
    ("precision", PIXELS, matching.precision, "", _UNIT, 1),
    ("recall", PIXELS, matching.recall, "", _UNIT, 1),
    (
        "average_precision",
        OBJECTS,
        matching.average_precision,
        "The mean of average_precision_50 to average_precision_95.",
        _UNIT,
        1,
    ),
    *(
        (
            f"average_precision_{percent}",
            OBJECTS,
            matching.average_precision,
            f"TP / (TP + FP + FN) of objects at an IoU of {percent / 100:.2f}.",
            _UNIT,
            1.0,
        )
        for percent in matching.THRESHOLDS
    ),
    ("f1", OBJECTS, matching.f1, "2 TP / (2 TP + FP + FN) of objects at an IoU of 0.5.", _UNIT, 1),
    ("pq", OBJECTS, matching.panoptic, "Panoptic quality: sq times rq.", _UNIT, 1),
    ("sq", OBJECTS, matching.panoptic, "The mean IoU of objects that match above 0.5.", _UNIT, 1),
    ("rq", OBJECTS, matching.panoptic, "TP / (TP + FP/2 + FN/2) of objects above 0.5.", _UNIT, 1),
    ("seg", OBJECTS, matching.seg, "", _UNIT, 1),
    ("det", OBJECTS, matching.det, "", _UNIT, 1),
    ("splits", OBJECTS, matching.errors, "True objects found as several.", _UP, 0),
    ("merges", OBJECTS, matching.errors, "Predicted objects that join several.", _UP, 0),
    ("misses", OBJECTS, matching.errors, "True objects that nothing is found for.", _UP, 0),
    ("false_objects", OBJECTS, matching.errors, "Predicted objects where none is.", _UP, 0),
    ("objects_true", OBJECTS, matching.overlaps, "Objects in the truth.", _UP, None),
    ("objects_predicted", OBJECTS, matching.overlaps, "Objects predicted.", _UP, None),
    ("objects_matched", OBJECTS, matching.matches, "Matches at an IoU of 0.5.", _UP, None),
    ("rand", SEGMENTS, matching.rand, "", _UNIT, 1),
    ("adapted_rand_error", SEGMENTS, matching.adapted_rand_error, "", _UNIT, 0),
    (
        "voi",
        SEGMENTS,
        matching.variation_of_information,
        "Variation of information: voi_split + voi_merge, in bits.",
        _UP,
        0,
    ),
    (
        "voi_split",
        SEGMENTS,
        matching.variation_of_information,
        "H(prediction | truth), which grows as true objects are split, in bits.",
        _UP,
        0,
    ),
    (
        "voi_merge",
        SEGMENTS,
        matching.variation_of_information,
        "H(truth | prediction), which grows as true objects are merged, in bits.",
        _UP,
        0,
    ),
    ("boundary_f", BORDERS, boundaries.boundary_f, "", _UNIT, 1),
    ("hausdorff95", BORDERS, boundaries.hausdorff95, "", _UP, 0),
    ("surface_distance", BORDERS, boundaries.surface_distance, "", _UP, 0),
    ("v_rand", BORDERS, isbi2012.v_rand, "", _UNIT, 1),
    ("v_info", BORDERS, isbi2012.v_info, "", _UNIT, 1),
    (
        "warping_error",
        BORDERS,
        isbi2012.warping_errors,
        "Splits and mergers a pixel that are left after warping the truth to the prediction.",
        _UP,
        0,
    ),
    ("isbi_rand", BORDERS, isbi2012.isbi_rand, "", _UNIT, 0),
    ("isbi_pixel", BORDERS, isbi2012.isbi_pixel, "", _UNIT, 0),
)


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
    split, merged = matching.variation_of_information(table) or (None, None)
    precision = matching.average_precision(pairs)
    panoptic = matching.panoptic(pairs)
    return Scores(
        pixels=table.pixels,
        pixel_error=matching.pixel_error(pixels),
        dice=matching.dice(pixels),
        iou=matching.iou(pixels),
        accuracy=matching.accuracy(pixels),
        precision=matching.precision(pixels),
        recall=matching.recall(pixels),
        seg=matching.seg(pairs),
        det=matching.det(pairs),
        f1=matching.f1(pairs),
        pq=panoptic["pq"],
        sq=panoptic["sq"],
        rq=panoptic["rq"],
        average_precision=_mean(precision.values()),
        average_precision_at=precision,
        rand=matching.rand(table),
        adapted_rand_error=matching.adapted_rand_error(table),
        voi=None if split is None or merged is None else split + merged,
        voi_split=split,
        voi_merge=merged,
        objects_true=pairs.true.objects,
        objects_predicted=pairs.pred.objects,
        objects_matched=len(pairs.matches(matching.THRESHOLDS[0])),
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
        pixel_error=matching.pixel_error(table),
        dice=_mean(c.dice for c in foreground),
        iou=_mean(c.iou for c in foreground),
        accuracy=matching.accuracy(table),
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
        dice=matching.dice(table, label),
        iou=matching.iou(table, label),
        precision=matching.precision(table, label),
        recall=matching.recall(table, label),
        pixels_true=int(table.counts[table.true == label].sum()),
        pixels_predicted=int(table.counts[table.pred == label].sum()),
    )
