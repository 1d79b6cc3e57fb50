"""Gather what the report page of an evaluation shows: scores, pictures, the worst objects."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unetkit.arrays import catalogue
from unetkit.pipeline.evaluate_objects import counts, worst
from unetkit.views.page import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.pipeline.evaluate_objects import Found
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.pipeline.evaluate_reports import EvaluateReport

# What keeps the page within some megabytes; our own choice.
PICTURES = 24
LONGEST = 2048
WORST = 48


def contents(
    report: EvaluateReport, pairs: Sequence[Pair], found: Sequence[Found]
) -> dict[str, Any]:
    """Gather the contents of the page.

    Parameters
    ----------
    report : EvaluateReport
    pairs : sequence of (Sample, Sample)
    found : sequence of Found
        The objects of both sides; empty for class maps.

    Returns
    -------
    dict
        Plain values for `views.page.write_page`. Pictures are of the first plane of the samples
        with the lowest scores, and of none that is too large.
    """
    document = report.to_dict()
    key = "average_precision" if report.kind == "instances" else "dice"
    order = sorted(document["samples"], key=lambda s: -1.0 if s[key] is None else s[key])
    shown = {s["name"] for s in order[:PICTURES]}
    return document | {
        "scores": [score.to_dict() for score in catalogue.scores()],
        "objects": [asdict(one) for one in worst(found, WORST)],
        "counts": counts(found),
        "pictures": {
            theirs.name: picture
            for ours, theirs in pairs
            if theirs.name in shown and (picture := _picture(ours, theirs, report.kind))
        },
    }


def _picture(ours: Any, theirs: Any, kind: str) -> dict[str, Any] | None:
    """Draw one sample, unless it is too large."""
    truth, prediction = theirs.image.labels[kind], ours.image.labels[kind]
    data = theirs.image.data
    size = (truth.height, truth.width)
    if max(size) > LONGEST or (data.height, data.width) != size:
        return None
    box = (0, 0, size[0], 0, size[1])
    return layers(data.read(*box), truth.read(*box), prediction.read(*box))
