"""Measure the outlines of a block with its surroundings, or the thin borders of a whole plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import contingency, membranes, surfaces, warping
from unetkit.pipeline.evaluate_blocks import blocks_of
from unetkit.pipeline.evaluate_maps import map_of
from unetkit.pipeline.measure_blocks import read_around

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.arrays.contingency import Contingency
    from unetkit.arrays.squares import Squares
    from unetkit.pipeline.evaluate_maps import Map
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.storage.planes import PlaneArray

# Thresholds of the ISBI 2012 challenge for probability maps.
THRESHOLDS = tuple(n / 10 for n in range(10))


@dataclass(frozen=True)
class Part:
    """A block, or where `rows` is None a whole plane, of one sample to score."""

    sample: int
    plane: int
    prediction: PlaneArray
    truth: PlaneArray
    ignore: PlaneArray | None
    squares: Squares | None
    instances: bool
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] = (0, 0)
    map: Map | None = None

    @property
    def key(self) -> str:
        """What tells it from the others of an evaluation."""
        return f"borders {self.sample} {self.plane} {self.rows} {self.columns} {self.squares}"


@dataclass(frozen=True)
class Proposal:
    """What one threshold finds in one plane: label pairs as they are and thinned, and topology.

    Squares are told apart as images of the tables, where there are any.
    """

    plain: Contingency
    thinned: Contingency
    topology: warping.Topology


def parts_of(
    pairs: Sequence[Pair], kind: str, *, thin: bool, squares: Squares | None
) -> Iterator[Part]:
    """Cut every pair into blocks, and into planes where they are not too large.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
        Which labels.
    thin : bool
        Whether there are thin borders to score, which takes whole planes.
    squares : Squares, optional
        What is told apart.
    """
    for number, (ours, theirs) in enumerate(pairs):
        found, wanted = ours.image.labels[kind], theirs.image.labels[kind]
        ignore = theirs.image.labels.get("ignore")
        for plane in range(found.planes):
            common = (number, plane, found, wanted, ignore, squares, kind == "instances")
            for tile in blocks_of(found):
                yield Part(*common, rows=(tile.y0, tile.y1), columns=(tile.x0, tile.x1))
            if thin and found.height * found.width <= membranes.LARGEST:
                yield Part(*common, map=map_of(ours.image, kind))


def score_part(part: Part) -> surfaces.Surfaces | dict[float | None, Proposal]:
    """Measure the outlines of a block, or the borders of a plane.

    Parameters
    ----------
    part : Part

    Returns
    -------
    Surfaces, or dict of float or None to Proposal
    """
    return _measure(part) if part.rows is not None else _propose(part)


def _measure(part: Part) -> surfaces.Surfaces:
    """Read a block with its surroundings, background outside the image, and measure outlines."""
    rows = part.rows or (0, 0)
    truth, found = (
        read_around(side, part.plane, rows, part.columns, reach=surfaces.REACH)
        for side in (part.truth, part.prediction)
    )
    if part.instances:
        truth, found = truth != 0, found != 0
    counted = None
    if part.ignore is not None:
        outside = read_around(part.ignore, part.plane, rows, part.columns, reach=surfaces.REACH)
        counted = outside == 0
    height, width = rows[1] - rows[0], part.columns[1] - part.columns[0]
    reach = surfaces.REACH
    return surfaces.measure(
        truth,
        found,
        inside=(slice(reach, reach + height), slice(reach, reach + width)),
        counted=counted,
        squares=part.squares,
        origin=(rows[0], part.columns[0]),
    )


def _propose(part: Part) -> dict[float | None, Proposal]:
    """Compare the pieces of a plane with those of its labels, or of each threshold."""
    box = (part.plane, 0, part.truth.height, 0, part.truth.width)
    wanted = part.truth.read(*box)
    ignore = None if part.ignore is None else part.ignore.read(*box) != 0

    truth = membranes.interior(wanted)
    # The same for every threshold.
    known = {"truth": truth, "plain": membranes.pieces(truth), "thinned": membranes.thin(truth)}

    def proposal(mask: np.ndarray[Any, Any], **certainty: Any) -> Proposal:
        return _proposal(known, mask, ignore=ignore, squares=part.squares, **certainty)

    if part.map is None:
        return {None: proposal(membranes.interior(part.prediction.read(*box)))}
    chance = part.map.read(*box)[0]
    return {t: proposal(chance > t, certainty=np.abs(chance - t)) for t in THRESHOLDS}


def _proposal(
    known: dict[str, np.ndarray[Any, Any]],
    mask: np.ndarray[Any, Any],
    *,
    ignore: np.ndarray[Any, Any] | None,
    squares: Squares | None,
    certainty: np.ndarray[Any, Any] | None = None,
) -> Proposal:
    # What the annotation says nothing about is no error of topology.
    found = mask if ignore is None else np.where(ignore, known["truth"], mask)
    tables = contingency.from_labels if squares is None else squares.tables
    return Proposal(
        plain=tables(known["plain"], membranes.pieces(mask), ignore=ignore),
        thinned=tables(known["thinned"], membranes.thin(mask), ignore=ignore),
        topology=warping.warping_errors(known["truth"], found, certainty=certainty),
    )
