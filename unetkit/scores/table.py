"""Which scores there are, one record each, and all of them for a table of labels.

A record says what a score means, which end is best, who defined it, when it does not apply, and
by which formula it follows from its sums. What this module does not know: files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unetkit.scores import formulas, matching, sums
from unetkit.scores.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from unetkit.scores.contingency import Contingency
    from unetkit.scores.formulas import Formula
    from unetkit.scores.sums import Columns

PIXELS, OBJECTS, SEGMENTS, BORDERS = "pixels", "objects", "segments", "borders"
_UNIT, _UP = "0 to 1", "0 to inf"


@dataclass(frozen=True)
class Score:
    """One score, as `unetkit eval --list` tells it.

    Attributes
    ----------
    name : str
        As in the report.
    definition : str
    undefined : str
        Where it does not apply; empty for one that always does.
    reference : str
    formula : callable
        Makes the score of its sums.
    of : str
        `pixels`, `objects`, `segments` or `borders` (only where these are asked for).
    range : str
        Smallest and largest value; `inf` where there is no largest.
    best : float or None
        The end that is best: 0 where lower is better, 1 where higher is; None for counts, of which
        neither end is.
    """

    name: str
    definition: str
    undefined: str = ""
    reference: str = ""
    formula: Formula = field(default=formulas.mean_ratio, repr=False)
    of: str = PIXELS
    range: str = _UNIT
    best: float | None = 1

    @property
    def lower_is_better(self) -> bool:
        """Whether 0 is best."""
        return self.best == 0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        names = ("name", "of", "definition", "reference", "range", "best", "undefined")
        return {name: getattr(self, name) for name in names}

    def value(self, found: Sums) -> float | None:
        """Give the score of sums as the report has it: counts are whole numbers."""
        value = found.overall()
        return int(value) if value is not None and self.formula is formulas.count else value

    def fails(self, value: float | None, bound: float) -> bool:
        """Whether a value is worse than a bound, or not there."""
        if value is None:
            return True
        return value > bound if self.lower_is_better else value < bound


_ARGANDA = "Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142"
_CAICEDO = "Caicedo et al. (2019), Nature Methods 16:1247"
_STARDIST = f"{_CAICEDO}; Schmidt et al. (2018), MICCAI, StarDist."
_KIRILLOV = "Kirillov et al. (2019), CVPR, Panoptic segmentation."
_TRACKING = "Cell Tracking Challenge, evaluation methodology; "
_MEILA = "Meila (2007), Journal of Multivariate Analysis 98:873."
_ISBI = "ISBI 2012 segmentation challenge, "
_NO_LABEL = "where neither truth nor prediction has the label"
_NO_OBJECT = "where neither side has an object"
_NO_TRUE_PIXEL = "where no true object has a pixel"
_NOTHING = "where nothing is predicted"


_objects = partial(Score, of=OBJECTS)
_errors = partial(Score, of=OBJECTS, range=_UP, best=0, formula=formulas.count)
_counts = partial(Score, of=OBJECTS, range=_UP, best=None, formula=formulas.count)
_bits = partial(Score, of=SEGMENTS, range=_UP, best=0, formula=formulas.information)
_distance = partial(Score, of=BORDERS, range=_UP, best=0)
_borders = partial(Score, of=BORDERS)


def _outlines(prefix: str, of: str) -> tuple[Score, ...]:
    """Tell the scores of the outlines of objects, touching ones too, or of their foreground."""
    return (
        # The harmonic mean of the shares of the predicted and of the true outline.
        _borders(
            f"{prefix}boundary_f",
            f"Measure how much of both outlines {of} lies within `tolerance` pixels of the other, "
            "0 to 1 (best).",
            "where neither side has an outline",
            "Csurka et al. (2013), BMVC, What is a good evaluation measure for semantic "
            "segmentation?",
            formulas.boundary_f,
        ),
        # The larger of the two directions.
        _distance(
            f"{prefix}hausdorff95",
            f"Measure the distance that 95 % of either outline {of} keep to the other, in pixels, "
            "0 best.",
            "where a side has no outline, or the distance is above 256 pixels",
            "Taha and Hanbury (2015), BMC Medical Imaging 15:29.",
            formulas.hausdorff95,
        ),
        _distance(
            f"{prefix}surface_distance",
            f"Measure the mean distance of all outline pixels {of} to the other outline, in "
            "pixels, 0 best.",
            "where a side has no outline, or a pixel of it is farther than 256 pixels",
            "Heimann et al. (2009), IEEE Transactions on Medical Imaging 28:1251.",
            formulas.surface_distance,
        ),
    )


# In the order of the report.
SCORES: tuple[Score, ...] = (
    Score(
        "pixel_error",
        "Measure the share of pixels with the wrong label, from 0 (best) to 1.",
        "without pixels",
        f"{_ARGANDA}.",
        best=0,
    ),
    Score(
        "accuracy",
        "Measure the share of pixels with the right label, from 0 to 1 (best).",
        "without pixels",
    ),
    Score(
        "dice",
        "Measure the overlap 2 TP / (2 TP + FP + FN) of one label's pixels, from 0 to 1 (best).",
        _NO_LABEL,
        "Dice (1945), Ecology 26:297.",
    ),
    Score(
        "iou",
        "Measure the overlap TP / (TP + FP + FN) of one label's pixels, from 0 to 1 (best).",
        _NO_LABEL,
        "Jaccard (1912), New Phytologist 11:37.",
    ),
    Score(
        "precision",
        "Measure the share of the predicted pixels of a label that are right, from 0 to 1 (best); "
        "a label that is wholly missed has 0.",
        _NO_LABEL,
        formula=formulas.precision,
    ),
    Score(
        "recall",
        "Measure the share of the true pixels of a label that are found, from 0 to 1 (best).",
        "where the truth has none",
    ),
    _objects(
        "average_precision",
        "The mean of average_precision_50 to average_precision_95.",
        _NO_OBJECT,
        _STARDIST,
    ),
    *(
        _objects(
            f"average_precision_{percent}",
            f"TP / (TP + FP + FN) of objects at an IoU of {percent / 100:.2f}.",
            _NO_OBJECT,
            _STARDIST,
            best=1.0,
        )
        for percent in matching.THRESHOLDS
    ),
    _objects(
        "f1",
        "2 TP / (2 TP + FP + FN) of objects at an IoU of 0.5.",
        _NO_OBJECT,
        f"{_CAICEDO}.",
    ),
    _objects("pq", "Panoptic quality: sq times rq.", "without objects", _KIRILLOV),
    _objects("sq", "The mean IoU of objects that match above 0.5.", "without matches", _KIRILLOV),
    _objects("rq", "TP / (TP + FP/2 + FN/2) of objects above 0.5.", "without objects", _KIRILLOV),
    # Of all samples as one it is CoNIC's mPQ+; of a single image it is what PanNuke averages, whose
    # script leaves out of an image the classes of which it has no true object.
    _objects(
        "mpq",
        "The mean of the pq of each class that either side has, where objects match those of their "
        "own class alone.",
        "where objects of either side have no classes",
        "Graham et al. (2024), Medical Image Analysis 92:103047, CoNIC (mPQ+); Gamper et al. "
        "(2020), arXiv:2003.10778, PanNuke (mPQ).",
    ),
    # A predicted object matches a true one when it covers more than half of its pixels; a true
    # object without a match counts 0. Predicted objects that match nothing cost nothing.
    _objects(
        "seg",
        "Measure the mean IoU over the true objects, from 0 to 1 (best), as the CTC's SEG.",
        "without true objects",
        f"{_TRACKING}Maska et al. (2014), Bioinformatics 30:1609.",
    ),
    _objects(
        "det",
        "Measure how well objects are detected, from 0 to 1 (best), as the challenge's DET.",
        "without true objects",
        f"{_TRACKING}Matula et al. (2015), PLoS ONE 10:e0144959.",
        formulas.detection,
    ),
    _errors("splits", "True objects found as several."),
    _errors("merges", "Predicted objects that join several."),
    _errors("misses", "True objects that nothing is found for."),
    _errors("false_objects", "Predicted objects where none is."),
    _counts("objects_true", "Objects in the truth."),
    _counts("objects_predicted", "Objects predicted."),
    _counts("objects_matched", "Matches at an IoU of 0.5."),
    # Background is one segment an image.
    Score(
        "rand",
        "Measure the share of pixel pairs that both sides join, or both part, from 0 to 1 (best).",
        "with fewer than two pixels",
        "Rand (1971), Journal of the American Statistical Association 66:846.",
        formulas.rand,
        of=SEGMENTS,
    ),
    # Pixels whose true label is 0 don't count; missed pixels of true objects form one segment an
    # image. This is scikit-image's, which has no number either where there is no pair.
    Score(
        "adapted_rand_error",
        "Measure 1 - F of the pixel pairs that lie in one object, from 0 (best) to 1; for "
        "membranes, as all missed pixels count as one object.",
        "where neither side joins two pixels of true objects",
        f"{_ARGANDA}.",
        formulas.adapted_rand_error,
        of=SEGMENTS,
        best=0,
    ),
    # All pixels count, background being one segment an image, as scikit-image has it.
    _bits(
        "voi",
        "Variation of information: voi_split + voi_merge, in bits.",
        "without pixels",
        _MEILA,
    ),
    _bits(
        "voi_split",
        "H(prediction | truth), which grows as true objects are split, in bits.",
        "without pixels",
        _MEILA,
    ),
    _bits(
        "voi_merge",
        "H(truth | prediction), which grows as true objects are merged, in bits.",
        "without pixels",
        _MEILA,
    ),
    *(
        score
        for prefix, of in (("", "of objects, or of each class"), ("foreground_", "of foreground"))
        for score in _outlines(prefix, of)
    ),
    # Over the pixels of the truth's pieces as they are, the prediction's borders thinned by a
    # watershed; a predicted border pixel is a segment of its own. The mean over planes of
    # 2 sum p_ij^2 / (sum s_i^2 + sum t_j^2), and of 2 I(S; T) / (H(S) + H(T)).
    _borders(
        "v_rand",
        "Measure how the pixel pairs of truth and thinned prediction agree, from 0 to 1 (best).",
        _NO_TRUE_PIXEL,
        f"{_ARGANDA}, equation 4 with alpha = 0.5 (V_Rand thinned of the ISBI 2012 board).",
    ),
    _borders(
        "v_info",
        "Measure the information that truth and thinned prediction share, from 0 to 1 (best).",
        _NO_TRUE_PIXEL,
        f"{_ARGANDA}, equation 7 with alpha = 0.5 (V_Info thinned of the ISBI 2012 board).",
        formulas.v_info,
    ),
    # Planes of which nothing is predicted count their pixels; without any there is no score.
    _borders(
        "warping_error",
        "Share of pixels that split or merge objects after warping the truth to the prediction.",
        _NOTHING,
        f"Jain et al. (2010), CVPR; {_ISBI}warping error (clusterByError = false).",
        formulas.warping_error,
        best=0,
    ),
    _distance(
        "warping_lines",
        "Splits and mergers after warping the truth to the prediction, a line of pixels as one.",
        _NOTHING,
        "Jain et al. (2010), CVPR; Trainable Segmentation, clusterByError = true.",
        formulas.warping_lines,
    ),
    # Pairs with a predicted border pixel are never joined, and foreground is what is not border.
    # The challenge took the minimum of both over thresholds.
    _borders(
        "isbi_rand",
        "Measure 1 - F of the pixel pairs that lie in one object, as ISBI 2012 did, 0 (best) to 1.",
        "where no true object has two pixels",
        f"{_ISBI}foreground-restricted Rand error (Trainable Segmentation).",
        best=0,
    ),
    _borders(
        "isbi_pixel",
        "Measure 1 - F of the foreground's pixels, as ISBI 2012 did, from 0 (best) to 1.",
        "where neither side has foreground",
        f"{_ISBI}pixel error (Trainable Segmentation).",
        best=0,
    ),
)
SCORES_BY_NAME = {score.name: score for score in SCORES}


def value_of(name: str, overall: dict[str, Any]) -> float | None:
    """Look up a score in a report's `overall`."""
    prefix, _, percent = name.rpartition("_")
    if prefix == "average_precision" and percent.isdigit():
        at: dict[str, float | None] = overall["average_precision_at"] or {}
        return at.get(f"0.{percent}")
    found: float | None = overall[name]
    return found


Array = np.ndarray[Any, Any]
OfClass = TypeVar("OfClass", "ClassScores", "ObjectClassScores")
# By score.
ScoreSums = dict[str, Sums]


def score_sums(columns: Mapping[str, Columns]) -> ScoreSums:
    """Give sums the formulas of their scores.

    Parameters
    ----------
    columns : mapping of str to Columns
        By score.
    """
    return {name: Sums(*found, SCORES_BY_NAME[name].formula) for name, found in columns.items()}


def instance_sums(units: Sequence[Contingency]) -> ScoreSums:
    """Take the sums of every score of instances, unit by unit.

    Parameters
    ----------
    units : sequence of Contingency
        Samples; those of several images have them numbered, see `contingency.apart`.
    """
    pixels = sums.pixel_sums([unit.foreground() for unit in units], [1])
    return score_sums(pixels | sums.object_sums(units) | sums.segment_sums(units))


def class_sums(units: Sequence[Contingency]) -> ScoreSums:
    """Take the sums of every score of a class map, unit by unit.

    Returns
    -------
    dict of str to Sums
        A term for each class from 1 up that occurs.
    """
    labels = np.unique(np.concatenate([side for unit in units for side in (unit.true, unit.pred)]))
    return score_sums(sums.pixel_sums(units, labels[labels > 0].tolist()))


@dataclass(frozen=True)
class ClassScores:
    """How one class of a class map was met: its name, or its label in digits, scores and pixels."""

    label: int
    name: str
    dice: float | None
    iou: float | None
    precision: float | None
    recall: float | None
    pixels_true: float
    pixels_predicted: float


@dataclass(frozen=True)
class ClassifiedUnit:
    """A table of instances with the class of each entry's true and predicted label.

    Attributes
    ----------
    table : Contingency
    true, pred : ndarray of int, shape (K,)
        0 for background, and for an object of no class.
    """

    table: Contingency
    true: Array
    pred: Array


@dataclass(frozen=True)
class ObjectClassScores:
    """How the objects of one class were met by predicted ones of this class."""

    label: int
    name: str
    pq: float | None
    sq: float | None
    rq: float | None
    f1: float | None
    average_precision: float | None
    average_precision_50: float | None
    objects_true: float
    objects_predicted: float
    objects_matched: float


def object_class_columns(units: Sequence[ClassifiedUnit], count: int) -> list[dict[str, Columns]]:
    """Take the sums of every score of objects, class by class from 1 up.

    Parameters
    ----------
    units : sequence of ClassifiedUnit
        Samples; those of several images have them numbered, see `contingency.apart`.
    count : int
        Classes, background included.
    """
    return [
        sums.object_sums([unit.table.of_class(unit.true, unit.pred, n) for unit in units])
        for n in range(1, count)
    ]


def mpq_sums(by_class: Sequence[Mapping[str, Columns]]) -> Sums:
    """Put the terms of the pq of each class side by side: their mean is `mpq`.

    Parameters
    ----------
    by_class : sequence of mapping
        As `object_class_columns` gives them.
    """
    terms = np.concatenate([found["pq"][1] for found in by_class], axis=1)
    return Sums(np.arange(terms.shape[1]), terms, SCORES_BY_NAME["mpq"].formula)


def score_object_classes(units: Sequence[ClassifiedUnit], names: Sequence[str]) -> dict[str, Any]:
    """Score the objects of each class of some samples, as one.

    Parameters
    ----------
    units : sequence of ClassifiedUnit
        As for `object_class_columns`.
    names : sequence of str
        Of the classes from 0 up.

    Returns
    -------
    dict of str to object
        `mpq` and `object_classes`, as `Scores` has them.
    """
    by_class = object_class_columns(units, len(names))
    wanted = [f.name for f in fields(ObjectClassScores) if f.name not in ("label", "name")]
    rows = []
    for label, columns in enumerate(by_class, start=1):
        found = _values(score_sums({name: columns[name] for name in wanted}))
        rows.append(ObjectClassScores(label, names[label], **found))
    mpq = SCORES_BY_NAME["mpq"].value(mpq_sums(by_class))
    return {"mpq": mpq, "object_classes": tuple(rows)}


@dataclass(frozen=True)
class Scores:
    """All scores of one table by name, as `SCORES` tells them; those that do not apply are None.

    Attributes
    ----------
    pixels : float
        Pixels that were counted.
    pixel_error, dice, iou, accuracy, precision, recall : float or None
        Of foreground for instances; for class maps all but `pixel_error` and `accuracy` are means
        over the classes above 0 that occur.
    average_precision_at : dict of str to float or None
        By threshold: "0.50", "0.55", ..., "0.95".
    classes : tuple of ClassScores
        For class maps only: one for each class that is named or occurs.
    object_classes : tuple of ObjectClassScores
        For instances whose objects have classes on either side: one for each class.
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
    mpq: float | None = None
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
    foreground_boundary_f: float | None = None
    foreground_hausdorff95: float | None = None
    foreground_surface_distance: float | None = None
    v_rand: float | None = None
    v_info: float | None = None
    warping_error: float | None = None
    warping_lines: float | None = None
    isbi_rand: float | None = None
    isbi_pixel: float | None = None
    classes: tuple[ClassScores, ...] = ()
    object_classes: tuple[ObjectClassScores, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        return asdict(self) | {
            "classes": [asdict(c) for c in self.classes],
            "object_classes": [asdict(c) for c in self.object_classes],
        }


def score_instances(table: Contingency) -> Scores:
    """Work out every score of a table of instance ids.

    Parameters
    ----------
    table : Contingency
        Of one image, or of several side by side (`contingency.pool`).
    """
    found = _values(instance_sums([table]))
    names = {percent: f"average_precision_{percent}" for percent in matching.THRESHOLDS}
    at = {f"{percent / 100:.2f}": found.pop(name) for percent, name in names.items()}
    return Scores(pixels=table.pixels, average_precision_at=at, **found)


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
    return Scores(pixels=table.pixels, classes=classes, **_values(class_sums([table])))


def _values(found: ScoreSums) -> dict[str, Any]:
    return {name: SCORES_BY_NAME[name].value(one) for name, one in found.items()}


def mean(scores: Sequence[Scores]) -> Scores:
    """Average each score over the images to which it applies; counts are averaged too.

    Parameters
    ----------
    scores : sequence of Scores
        One an image, at least one.
    """
    tables = [s.average_precision_at for s in scores if s.average_precision_at is not None]
    return Scores(
        **_means(scores),
        average_precision_at=_mean_at(tables) if tables else None,
        classes=_means_by_label([c for s in scores for c in s.classes]),
        object_classes=_means_by_label([c for s in scores for c in s.object_classes]),
    )


def _means_by_label(rows: Sequence[OfClass]) -> tuple[OfClass, ...]:
    """Average the scores of each class."""
    by_label: dict[int, list[OfClass]] = {}
    for one in rows:
        by_label.setdefault(one.label, []).append(one)
    return tuple(replace(of[0], **_means(of)) for _, of in sorted(by_label.items()))


def _means(
    scores: Sequence[Scores] | Sequence[ClassScores] | Sequence[ObjectClassScores],
) -> dict[str, Any]:
    """Average every field that is a number by itself."""
    apart = ("average_precision_at", "classes", "object_classes", "label", "name")
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
    found = _values(score_sums(sums.pixel_sums([table], [label])))
    return ClassScores(
        label=label,
        name=class_names[label] if label < len(class_names) else str(label),
        **{name: found[name] for name in ("dice", "iou", "precision", "recall")},
        pixels_true=int(table.counts[table.true == label].sum()),
        pixels_predicted=int(table.counts[table.pred == label].sum()),
    )
