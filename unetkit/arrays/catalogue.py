"""Which scores there are: what each means, its range, which end is best, and who defined it.

Definitions and references are those of the docstrings. What this module does not know: data.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.arrays import matching, membranes, metrics, surfaces, warping

if TYPE_CHECKING:
    from collections.abc import Callable

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
    ("pixel_error", PIXELS, metrics.pixel_error, "", _UNIT, 0),
    ("accuracy", PIXELS, metrics.accuracy, "", _UNIT, 1),
    ("dice", PIXELS, metrics.dice, "", _UNIT, 1),
    ("iou", PIXELS, metrics.iou, "", _UNIT, 1),
    ("precision", PIXELS, metrics.precision, "", _UNIT, 1),
    ("recall", PIXELS, metrics.recall, "", _UNIT, 1),
    (
        "average_precision",
        OBJECTS,
        metrics.average_precision,
        "The mean of average_precision_50 to average_precision_95.",
        _UNIT,
        1,
    ),
    *(
        (
            f"average_precision_{percent}",
            OBJECTS,
            metrics.average_precision,
            f"TP / (TP + FP + FN) of objects at an IoU of {percent / 100:.2f}.",
            _UNIT,
            1.0,
        )
        for percent in metrics.THRESHOLDS
    ),
    ("f1", OBJECTS, metrics.f1, "2 TP / (2 TP + FP + FN) of objects at an IoU of 0.5.", _UNIT, 1),
    ("pq", OBJECTS, matching.panoptic, "Panoptic quality: sq times rq.", _UNIT, 1),
    ("sq", OBJECTS, matching.panoptic, "The mean IoU of objects that match above 0.5.", _UNIT, 1),
    ("rq", OBJECTS, matching.panoptic, "TP / (TP + FP/2 + FN/2) of objects above 0.5.", _UNIT, 1),
    ("seg", OBJECTS, metrics.seg, "", _UNIT, 1),
    ("det", OBJECTS, matching.det, "", _UNIT, 1),
    ("splits", OBJECTS, matching.errors, "True objects found as several.", _UP, 0),
    ("merges", OBJECTS, matching.errors, "Predicted objects that join several.", _UP, 0),
    ("misses", OBJECTS, matching.errors, "True objects that nothing is found for.", _UP, 0),
    ("false_objects", OBJECTS, matching.errors, "Predicted objects where none is.", _UP, 0),
    ("objects_true", OBJECTS, matching.overlaps, "Objects in the truth.", _UP, None),
    ("objects_predicted", OBJECTS, matching.overlaps, "Objects predicted.", _UP, None),
    ("objects_matched", OBJECTS, metrics.matches, "Matches at an IoU of 0.5.", _UP, None),
    ("rand", SEGMENTS, metrics.rand, "", _UNIT, 1),
    ("adapted_rand_error", SEGMENTS, metrics.adapted_rand_error, "", _UNIT, 0),
    (
        "voi",
        SEGMENTS,
        metrics.variation_of_information,
        "Variation of information: voi_split + voi_merge, in bits.",
        _UP,
        0,
    ),
    (
        "voi_split",
        SEGMENTS,
        metrics.variation_of_information,
        "H(prediction | truth), which grows as true objects are split, in bits.",
        _UP,
        0,
    ),
    (
        "voi_merge",
        SEGMENTS,
        metrics.variation_of_information,
        "H(truth | prediction), which grows as true objects are merged, in bits.",
        _UP,
        0,
    ),
    ("boundary_f", BORDERS, surfaces.boundary_f, "", _UNIT, 1),
    ("hausdorff95", BORDERS, surfaces.hausdorff95, "", _UP, 0),
    ("surface_distance", BORDERS, surfaces.surface_distance, "", _UP, 0),
    ("v_rand", BORDERS, membranes.v_rand, "", _UNIT, 1),
    ("v_info", BORDERS, membranes.v_info, "", _UNIT, 1),
    (
        "warping_error",
        BORDERS,
        warping.warping_errors,
        "Splits and mergers a pixel that are left after warping the truth to the prediction.",
        _UP,
        0,
    ),
    ("isbi_rand", BORDERS, membranes.isbi_rand, "", _UNIT, 0),
    ("isbi_pixel", BORDERS, membranes.isbi_pixel, "", _UNIT, 0),
)
