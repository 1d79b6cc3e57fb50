"""The error atlas: what became of every object of both sides, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import objects
from unetkit.engine.measuring import measure_labels, piece_count
from unetkit.progress import Together
from unetkit.scores import matching
from unetkit.storage.pixel_size import plane_pixel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.counting import Runner
    from unetkit.commands.evaluate.samples import Pair
    from unetkit.scores.contingency import Contingency
    from unetkit.storage.object_classes import ObjectClasses
    from unetkit.storage.outputs import Cell
    from unetkit.storage.planes import PlaneArray

# How every such table begins, and those of `measure`, in its units.
BEGINS = ("sample", "side", "plane", "id")
MEASURED = (
    "area",
    "centroid_y",
    "centroid_x",
    "axis_major",
    "axis_minor",
    "perimeter",
    "circularity",
)
COLUMNS = (*BEGINS, "unit", *MEASURED, "kind", "partner", "iou")
# More of them where objects have classes: that of the object, and that of its match.
CLASS_COLUMNS = ("true_class", "predicted_class")


@dataclass(frozen=True)
class ScoredObject:
    """One object of either side."""

    sample: str  # its sample's name in the truth
    side: str  # `truth` or `prediction`
    plane: int
    id: int
    y: float  # its centre in pixels
    x: float
    area: int  # its pixels
    kind: str  # as in `matching.Errors`
    partner: int | None  # the object of the other side with which it shares most
    iou: float  # with that object
    unit: str = "pixel"  # of what was measured
    measured: tuple[float, ...] = ()  # in the order of `MEASURED`
    # Of what has no match one of them is None, and both where objects have no classes.
    true_class: str | None = None
    predicted_class: str | None = None

    @property
    def is_confused(self) -> bool:
        """Whether it was found, as one of another class."""
        return None not in (self.true_class, self.predicted_class) and (
            self.true_class != self.predicted_class
        )

    def row(self, *, classed: bool = False) -> list[Cell]:
        """Give the cells of its row, in the order of `COLUMNS`, and of `CLASS_COLUMNS`."""
        begins = (getattr(self, name) for name in BEGINS)
        own = [*begins, self.unit, *self.measured, self.kind, self.partner, self.iou]
        return [*own, self.true_class, self.predicted_class] if classed else own


def find_objects(
    pairs: Sequence[Pair],
    tables: Sequence[Contingency],
    runner: Runner,
    *,
    classes: Sequence[tuple[ObjectClasses, ObjectClasses]] = (),
) -> list[ScoredObject]:
    """List the objects of both sides of each pair of samples, the truth first, plane by plane.

    An object that the annotation ignores whole is not there. Tables are one a pair, and so are
    `classes` where objects have some.
    """
    found: list[ScoredObject] = []
    total = sum(piece_count(side.labels("instances")) for pair in pairs for side in pair)
    runner = replace(runner, progress=Together(runner.progress, "measure", total=total))
    for number, ((predicted, true), table) in enumerate(zip(pairs, tables, strict=True)):
        of_class = classes[number][::-1] if classes else (None, None)
        overlaps = matching.overlaps(table)
        errors = matching.errors(overlaps)
        sides = (("truth", true, overlaps.true), ("prediction", predicted, overlaps.pred))
        pixels = [plane_pixel(sample.image.pixel_size) for _, sample, _ in sides]
        named = [_names(c, s[2].ids) for c, s in zip(of_class, sides, strict=True)]
        for (side, sample, own), (_, _, other), one, pixel, names, others in zip(
            sides, sides[::-1], errors, pixels, named, named[::-1], strict=True
        ):
            pixel = pixel or next(filter(None, pixels), None)
            unit = "micrometre" if pixel else "pixel"
            places = _places(sample.labels("instances"), runner, pixel=pixel)
            parts = (own.image, own.ids, one.kinds, one.partner, one.iou)
            columns = (*(p.tolist() for p in parts), names)
            for plane, label, kind, at, iou, name in zip(*columns, strict=True):
                if label:
                    place, measured = places[plane, label]
                    partner = None if at < 0 else int(other.ids[at])
                    both = (name, others[at] if kind == "match" else None)
                    found.append(
                        ScoredObject(
                            true.name,
                            side,
                            plane,
                            label,
                            *place,
                            kind,
                            partner,
                            iou,
                            unit,
                            measured,
                            *(both if side == "truth" else both[::-1]),
                        )
                    )
    return found


def largest_errors(found: Sequence[ScoredObject], count: int) -> list[ScoredObject]:
    """Choose what to look at first: the largest without a match, or with one of another class."""
    wrong = [
        one for one in found if one.kind != "match" or (one.is_confused and one.side == "truth")
    ]
    return sorted(wrong, key=lambda one: (-one.area, one.sample, one.side, one.id))[:count]


def confusion(found: Sequence[ScoredObject], names: Sequence[str]) -> dict[str, Any]:
    """Count matches by true and by predicted class, and what of each class has no match."""
    place = {name: number for number, name in enumerate(names)}
    matches = np.zeros((len(names), len(names)), np.int64)
    alone = {side: np.zeros(len(names), np.int64) for side in ("truth", "prediction")}
    for one in found:
        true, predicted = (
            None if name is None else place[name] for name in (one.true_class, one.predicted_class)
        )
        if true is not None and predicted is not None:
            matches[true, predicted] += one.side == "truth"
        elif one.kind != "match" and (own := true if predicted is None else predicted) is not None:
            alone[one.side][own] += 1
    return {
        "classes": list(names),
        "matches": matches.tolist(),
        "missed": alone["truth"].tolist(),
        "false": alone["prediction"].tolist(),
    }


def _names(classes: ObjectClasses | None, ids: np.ndarray[Any, Any]) -> list[str | None]:
    """Name the class of each object, None for one of none."""
    if classes is None:
        return [None] * len(ids)
    return [classes.names[number] if number else None for number in classes.of(ids).tolist()]


def _places(
    labels: PlaneArray, runner: Runner, *, pixel: tuple[float, float] | None
) -> dict[tuple[int, int], tuple[tuple[float, float, int], tuple[float, ...]]]:
    """Find centre and area in pixels and all measurements of each object, by plane and id."""
    parts = measure_labels(
        labels,
        scheduler=runner.scheduler,
        workers=runner.workers,
        progress=runner.progress,
        run=runner.run,
    )
    height, width = pixel or (1.0, 1.0)
    places = {}
    for plane, part in enumerate(parts):
        table = objects.table(part, pixel=pixel)
        y, x = table["centroid_y"] / height, table["centroid_x"] / width
        columns = (part.ids, y, x, part.sums[:, 0], *(table[name] for name in MEASURED))
        for label, y, x, area, *measured in zip(*(c.tolist() for c in columns), strict=True):
            places[plane, label] = (y, x, area), tuple(measured)
    return places


def counts(found: Sequence[ScoredObject]) -> dict[str, int]:
    """Count the objects of each kind on either side."""
    kinds, numbers = np.unique([f"{one.side} {one.kind}" for one in found], return_counts=True)
    return dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
