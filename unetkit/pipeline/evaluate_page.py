"""Gather what the report page of an evaluation shows: scores, pictures, the worst objects."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unetkit.arrays import catalogue
from unetkit.pipeline.evaluate_objects import counts, worst
from unetkit.storage.overviews import factor_for, read_smaller
from unetkit.storage.pyramids import block_mean, every_second
from unetkit.views.page import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.pipeline.evaluate_objects import Found
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.pipeline.evaluate_reports import EvaluateReport

# What keeps the page within some megabytes, whatever is compared; our own choice.
PICTURES = 24
PIXELS = 2**23
LONGEST = 2048
WORST = 48
# The sides, in pixels, of what is cut out around an object: at least, at most, and as drawn.
NEAR, FAR, DRAWN = 64, 4096, 256


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
        Plain values for `views.page.page`. Pictures are of the first plane of the samples with the
        lowest scores, made smaller where they are large; objects that these do not show pixel by
        pixel come with a picture of their own.
    """
    document = report.to_dict()
    key = "average_precision" if report.kind == "instances" else "dice"
    order = sorted(document["samples"], key=lambda s: -1.0 if s[key] is None else s[key])
    shown = [s["name"] for s in order[:PICTURES]]
    by_name = {theirs.name: (ours, theirs) for ours, theirs in pairs}
    pictures = {
        name: picture
        for name in shown
        if (picture := _picture(by_name[name], report.kind, pixels=PIXELS // len(shown)))
    }
    whole = {name for name, picture in pictures.items() if picture["factor"] == 1}
    return document | {
        "scores": [score.to_dict() for score in catalogue.scores()],
        "objects": [
            asdict(one)
            | {
                "picture": None
                if one.sample in whole and one.plane == 0
                else _cut_out(by_name[one.sample], one, report.kind)
            }
            for one in worst(found, WORST)
        ],
        "counts": counts(found),
        "pictures": pictures,
    }


def _size(pair: Pair, kind: str) -> tuple[int, int] | None:
    """Give height and width of a sample, unless image and labels are of different sizes."""
    truth, data = pair[1].image.labels[kind], pair[1].image.data
    size = (truth.height, truth.width)
    return size if (data.height, data.width, data.planes) == (*size, truth.planes) else None


def _picture(pair: Pair, kind: str, *, pixels: int) -> dict[str, Any] | None:
    """Draw the first plane of a sample."""
    size = _size(pair, kind)
    if size is None:
        return None
    ours, theirs = pair
    factor = factor_for(*size, longest=LONGEST, pixels=pixels)
    image = read_smaller(theirs.image.data, 0, factor=factor, nearest=False)
    truth, prediction = (
        read_smaller(side.image.labels[kind], 0, factor=factor, nearest=True)
        for side in (theirs, ours)
    )
    place = {"factor": factor, "rows": size[0], "columns": size[1]}
    return layers(image, truth, prediction) | place


def _cut_out(pair: Pair, one: Found, kind: str) -> dict[str, Any] | None:
    """Draw an object and what is around it."""
    size = _size(pair, kind)
    if size is None:
        return None
    side = round(min(max(NEAR, 2.5 * one.area**0.5), FAR))
    (y0, y1), (x0, x1) = (
        (max(round(at) - side // 2, 0), min(round(at) + -(-side // 2), end))
        for at, end in zip((one.y, one.x), size, strict=True)
    )
    factor = factor_for(y1 - y0, x1 - x0, longest=DRAWN, pixels=DRAWN**2)
    box = (one.plane, y0, y1, x0, x1)
    ours, theirs = pair
    image = block_mean(theirs.image.data.read(*box), factor, factor)
    truth, prediction = (
        every_second(part.image.labels[kind].read(*box), factor, factor) for part in (theirs, ours)
    )
    return layers(image, truth, prediction) | {"factor": factor, "row": y0, "column": x0}
