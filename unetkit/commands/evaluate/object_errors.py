"""The error atlas: what became of every object of both sides, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import objects
from unetkit.engine.measuring import measure_labels, piece_count
from unetkit.progress import Together
from unetkit.scores import matching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.commands.evaluate.samples import Pair
    from unetkit.scores.contingency import Contingency
    from unetkit.storage.outputs import Cell
    from unetkit.storage.planes import PlaneArray

COLUMNS = ("sample", "side", "plane", "id", "y", "x", "area", "kind", "partner", "iou")


@dataclass(frozen=True)
class Found:
    """One object of either side.

    Attributes
    ----------
    sample : str
        Its sample's name in the truth.
    side : str
        `truth` or `prediction`.
    plane, id : int
        Where it begins, and its label.
    y, x : float
        Its centre in that plane, in pixels.
    area : int
        Its pixels in that plane.
    kind : str
        As in `matching.Errors`.
    partner : int or None
        The object of the other side with which it shares most.
    iou : float
        With that object.
    """

    sample: str
    side: str
    plane: int
    id: int
    y: float
    x: float
    area: int
    kind: str
    partner: int | None
    iou: float

    def row(self) -> list[Cell]:
        """Give the cells of its row, in the order of `COLUMNS`."""
        return [getattr(self, name) for name in COLUMNS]


def find_objects(
    pairs: Sequence[Pair], tables: Sequence[Contingency], *, work: dict[str, Any]
) -> list[Found]:
    """List the objects of both sides of each pair of samples.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
        With instances.
    tables : sequence of Contingency
        One a pair, of one image each.
    work : dict
        `scheduler`, `workers`, `progress`.

    Returns
    -------
    list of Found
        Sample by sample, the truth first, by id. An object that the annotation ignores whole is
        not there.
    """
    found: list[Found] = []
    sides_of = [side.labels("instances") for pair in pairs for side in pair]
    total = sum(map(piece_count, sides_of))
    work = {**work, "progress": Together(work["progress"], "measure", total=total)}
    for (ours, theirs), table in zip(pairs, tables, strict=True):
        pairs_of = matching.overlaps(table)
        errors = matching.errors(pairs_of)
        sides = (
            ("truth", theirs.labels("instances"), pairs_of.true, pairs_of.pred, errors.true),
            ("prediction", ours.labels("instances"), pairs_of.pred, pairs_of.true, errors.pred),
        )
        for side, labels, own, other, kinds in sides:
            first = side == "truth"
            partner = errors.true_partner if first else errors.pred_partner
            iou = errors.true_iou if first else errors.pred_iou
            places = _places(labels, work)
            for n, label in enumerate(own.ids.tolist()):
                if label:
                    with_id = None if partner[n] < 0 else int(other.ids[partner[n]])
                    facts = (str(kinds[n]), with_id, float(iou[n]))
                    found.append(Found(theirs.name, side, *places[label], *facts))
    return found


def worst(found: Sequence[Found], count: int) -> list[Found]:
    """Choose the objects to look at first: the largest of those that are no match.

    Parameters
    ----------
    found : sequence of Found
    count : int

    Returns
    -------
    list of Found
    """
    wrong = [one for one in found if one.kind != "match"]
    return sorted(wrong, key=lambda one: (-one.area, one.sample, one.side, one.id))[:count]


def _places(
    labels: PlaneArray, work: dict[str, Any]
) -> dict[int, tuple[int, int, float, float, int]]:
    """Find plane, id, centre and area of each object; of several planes the first."""
    places: dict[int, tuple[int, int, float, float, int]] = {}
    for plane, part in enumerate(measure_labels(labels, **work)):
        table = objects.table(part)
        columns = (table[name].tolist() for name in ("id", "centroid_y", "centroid_x", "area"))
        for label, y, x, area in zip(*columns, strict=True):
            places.setdefault(label, (plane, label, y, x, area))
    return places


def rows(found: Sequence[Found]) -> Iterator[list[Cell]]:
    """Give the rows of the table of all objects.

    Parameters
    ----------
    found : sequence of Found
    """
    return (one.row() for one in found)


def counts(found: Sequence[Found]) -> dict[str, int]:
    """Count the objects of each kind on either side.

    Parameters
    ----------
    found : sequence of Found
    """
    kinds, numbers = np.unique([f"{one.side} {one.kind}" for one in found], return_counts=True)
    return dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
