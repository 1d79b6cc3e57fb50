"""The error atlas: what became of every object of both sides, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unetkit.arrays import objects
from unetkit.engine.measuring import measure_labels, piece_count
from unetkit.progress import Together
from unetkit.scores import matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.counting import Runner
    from unetkit.commands.evaluate.samples import Pair
    from unetkit.scores.contingency import Contingency
    from unetkit.storage.outputs import Cell
    from unetkit.storage.planes import PlaneArray

COLUMNS = ("sample", "side", "plane", "id", "y", "x", "area", "kind", "partner", "iou")


@dataclass(frozen=True)
class ScoredObject:
    """One object of either side."""

    sample: str  # its sample's name in the truth
    side: str  # `truth` or `prediction`
    plane: int  # where it begins
    id: int
    y: float  # its centre in that plane, in pixels
    x: float
    area: int  # its pixels in that plane
    kind: str  # as in `matching.Errors`
    partner: int | None  # the object of the other side with which it shares most
    iou: float  # with that object

    def row(self) -> list[Cell]:
        """Give the cells of its row, in the order of `COLUMNS`."""
        return [getattr(self, name) for name in COLUMNS]


def find_objects(
    pairs: Sequence[Pair], tables: Sequence[Contingency], runner: Runner
) -> list[ScoredObject]:
    """List the objects of both sides of each pair of samples, the truth first, by id.

    An object that the annotation ignores whole is not there. Tables are one a pair.
    """
    found: list[ScoredObject] = []
    total = sum(piece_count(side.labels("instances")) for pair in pairs for side in pair)
    runner = replace(runner, progress=Together(runner.progress, "measure", total=total))
    for (predicted, true), table in zip(pairs, tables, strict=True):
        overlaps = matching.overlaps(table)
        errors = matching.errors(overlaps)
        sides = (("truth", true, overlaps.true), ("prediction", predicted, overlaps.pred))
        for (side, sample, own), (_, _, other), one in zip(sides, sides[::-1], errors, strict=True):
            places = _places(sample.labels("instances"), runner)
            columns = (part.tolist() for part in (own.ids, one.kinds, one.partner, one.iou))
            for label, kind, at, iou in zip(*columns, strict=True):
                if label:
                    partner = None if at < 0 else int(other.ids[at])
                    found.append(ScoredObject(true.name, side, *places[label], kind, partner, iou))
    return found


def largest_errors(found: Sequence[ScoredObject], count: int) -> list[ScoredObject]:
    """Choose the objects to look at first: the largest of those that are no match."""
    wrong = [one for one in found if one.kind != "match"]
    return sorted(wrong, key=lambda one: (-one.area, one.sample, one.side, one.id))[:count]


def _places(labels: PlaneArray, runner: Runner) -> dict[int, tuple[int, int, float, float, int]]:
    """Find plane, id, centre and area of each object; of several planes the first."""
    places: dict[int, tuple[int, int, float, float, int]] = {}
    parts = measure_labels(
        labels,
        scheduler=runner.scheduler,
        workers=runner.workers,
        progress=runner.progress,
        run=runner.run,
    )
    for plane, part in enumerate(parts):
        table = objects.table(part)
        columns = (table[name].tolist() for name in ("id", "centroid_y", "centroid_x", "area"))
        for label, y, x, area in zip(*columns, strict=True):
            places.setdefault(label, (plane, label, y, x, area))
    return places


def counts(found: Sequence[ScoredObject]) -> dict[str, int]:
    """Count the objects of each kind on either side."""
    kinds, numbers = np.unique([f"{one.side} {one.kind}" for one in found], return_counts=True)
    return dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
