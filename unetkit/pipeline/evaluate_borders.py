"""Score outlines and thin borders: by blocks with their surroundings, and by whole planes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import contingency, membranes, surfaces, warping
from unetkit.engine.jobs import run_jobs
from unetkit.pipeline.evaluate_blocks import blocks_of
from unetkit.pipeline.measure_blocks import read_around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unetkit.arrays.contingency import Contingency
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.progress import Progress
    from unetkit.storage.planes import PlaneArray

# Thresholds of the ISBI 2012 challenge for probability maps.
THRESHOLDS = tuple(n / 10 for n in range(10))
# Which channel of a prediction says how surely a pixel is inside an object.
INSIDE = ("interior", "inside", "foreground")


@dataclass(frozen=True)
class Part:
    """A block, or where `rows` is None a whole plane, of one sample to score."""

    sample: int
    plane: int
    prediction: PlaneArray
    truth: PlaneArray
    ignore: PlaneArray | None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] = (0, 0)
    probabilities: PlaneArray | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Proposal:
    """What one threshold finds in one plane: label pairs as they are and thinned, and topology."""

    plain: Contingency
    thinned: Contingency
    topology: warping.Topology


@dataclass
class Borders:
    """The sums of one sample.

    Attributes
    ----------
    outlines : Surfaces
    proposals : dict of float or None to dict of int to Proposal
        By threshold and plane; None stands for the labels themselves.
    """

    outlines: surfaces.Surfaces = field(default_factory=surfaces.nothing)
    proposals: dict[float | None, dict[int, Proposal]] = field(default_factory=dict)

    def add(self, plane: int, result: surfaces.Surfaces | dict[float | None, Proposal]) -> None:
        """Count what a job found in a plane."""
        if isinstance(result, surfaces.Surfaces):
            self.outlines = self.outlines + result
            return
        for threshold, proposal in result.items():
            self.proposals.setdefault(threshold, {})[plane] = proposal

    def at(self, threshold: float | None) -> list[Proposal]:
        """Give the proposals of a threshold plane by plane, in whatever order they came."""
        return [proposal for _, proposal in sorted(self.proposals[threshold].items())]


def count_borders(
    pairs: Sequence[Pair], *, scheduler: str, workers: int | None, progress: Progress
) -> list[Borders]:
    """Sum the outlines and borders of each pair of samples with instances.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    scheduler, workers, progress
        Who works, how many, and who hears of it.

    Returns
    -------
    list of Borders
        One a pair.
    """
    found = [Borders() for _ in pairs]

    def add(part: Part, result: Any) -> None:
        found[part.sample].add(part.plane, result)
        progress.advance()

    progress.start("score borders", total=sum(1 for _ in _parts(pairs)))
    run_jobs(score_part, _parts(pairs), scheduler=scheduler, workers=workers, on_done=add)
    return found


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


def scores_of(borders: Borders | Sequence[Borders], *, tolerance: float) -> dict[str, Any]:
    """Work out the scores of one sample, or of several as one.

    Parameters
    ----------
    borders : Borders or sequence of Borders
    tolerance : float
        Of `boundary_f`, in pixels.

    Returns
    -------
    dict of str to float or None
        Scores of borders are the best over thresholds, and None where an image is too large.
    """
    several = [borders] if isinstance(borders, Borders) else list(borders)
    outlines = sum((one.outlines for one in several), surfaces.nothing())
    rows = sweep(several)
    return {
        "boundary_f": surfaces.boundary_f(outlines, tolerance=tolerance),
        "hausdorff95": surfaces.hausdorff95(outlines),
        "surface_distance": surfaces.surface_distance(outlines),
        "v_rand": _best(max, rows, "v_rand"),
        "v_info": _best(max, rows, "v_info"),
        "warping_error": _best(min, rows, "warping_error"),
        "isbi_rand": _best(min, rows, "isbi_rand"),
        "isbi_pixel": _best(min, rows, "isbi_pixel"),
    }


def sweep(several: Sequence[Borders]) -> list[dict[str, float | None]]:
    """Score every threshold that was tried on all samples.

    Parameters
    ----------
    several : sequence of Borders

    Returns
    -------
    list of dict
        `threshold` is None for labels. Empty where not every sample has the same thresholds.
    """
    tried = [set(one.proposals) for one in several]
    if not tried or any(thresholds != tried[0] for thresholds in tried):
        return []
    return [
        _row(threshold, [p for one in several for p in one.at(threshold)])
        for threshold in sorted(tried[0], key=lambda t: -1.0 if t is None else t)
    ]


def _row(threshold: float | None, proposals: Sequence[Proposal]) -> dict[str, float | None]:
    plain = contingency.pool(p.plain for p in proposals)
    thinned = contingency.pool(p.thinned for p in proposals)
    errors = sum(p.topology.splits + p.topology.mergers for p in proposals)
    pixels = plain.foreground()
    both = int(pixels.counts[(pixels.true == 1) & (pixels.pred == 1)].sum())
    true, pred = (int(pixels.counts[side == 1].sum()) for side in (pixels.true, pixels.pred))
    return {
        "threshold": threshold,
        "precision": both / pred if pred else None,
        "recall": both / true if true else None,
        "isbi_pixel": membranes.isbi_pixel(plain),
        "isbi_rand": membranes.isbi_rand(plain),
        "v_rand": membranes.v_rand(thinned),
        "v_info": membranes.v_info(thinned),
        "warping_error": errors / sum(p.topology.pixels for p in proposals),
    }


def _best(
    choose: Callable[[list[float]], float], rows: Sequence[dict[str, float | None]], name: str
) -> float | None:
    values = [value for row in rows if (value := row[name]) is not None]
    return choose(values) if values else None


def _parts(pairs: Sequence[Pair]) -> Iterator[Part]:
    """Cut every pair into blocks, and into planes where they are not too large."""
    for number, (ours, theirs) in enumerate(pairs):
        found, wanted = ours.image.labels["instances"], theirs.image.labels["instances"]
        ignore = theirs.image.labels.get("ignore")
        probabilities = _inside(ours.image.data, ours.image.channel_names)
        scale = float(ours.image.attributes.get("scale", 1.0))
        for plane in range(found.planes):
            for tile in blocks_of(found):
                box: dict[str, Any] = {
                    "rows": (tile.y0, tile.y1),
                    "columns": (tile.x0, tile.x1),
                }
                yield Part(number, plane, found, wanted, ignore, **box)
            if found.height * found.width <= membranes.LARGEST:
                shared: dict[str, Any] = {"probabilities": probabilities, "scale": scale}
                yield Part(number, plane, found, wanted, ignore, **shared)


def _inside(data: PlaneArray, names: Sequence[str]) -> PlaneArray | None:
    """Choose the channel that says how surely a pixel is inside an object, if there is one."""
    place = next((list(names).index(name) for name in INSIDE if name in names), None)
    return None if place is None else data.pick([place])


def _measure(part: Part) -> surfaces.Surfaces:
    """Read a block with its surroundings, background outside the image, and measure outlines."""
    rows = part.rows or (0, 0)
    truth, found = (
        read_around(side, part.plane, rows, part.columns, reach=surfaces.REACH) != 0
        for side in (part.truth, part.prediction)
    )
    counted = None
    if part.ignore is not None:
        outside = read_around(part.ignore, part.plane, rows, part.columns, reach=surfaces.REACH)
        counted = outside == 0
    height, width = rows[1] - rows[0], part.columns[1] - part.columns[0]
    reach = surfaces.REACH
    inside = (slice(reach, reach + height), slice(reach, reach + width))
    return surfaces.measure(truth, found, inside=inside, counted=counted)


def _propose(part: Part) -> dict[float | None, Proposal]:
    """Compare the pieces of a plane with those of its labels, or of each threshold."""
    box = (part.plane, 0, part.truth.height, 0, part.truth.width)
    wanted = part.truth.read(*box)
    ignore = None if part.ignore is None else part.ignore.read(*box) != 0
    if part.probabilities is None:
        labels = part.prediction.read(*box)
        return {None: _proposal(wanted, membranes.interior(labels), ignore=ignore)}
    chance = part.probabilities.read(*box)[0] * part.scale
    return {
        t: _proposal(wanted, chance > t, ignore=ignore, certainty=np.abs(chance - t))
        for t in THRESHOLDS
    }


def _proposal(
    wanted: np.ndarray[Any, Any],
    mask: np.ndarray[Any, Any],
    *,
    ignore: np.ndarray[Any, Any] | None,
    certainty: np.ndarray[Any, Any] | None = None,
) -> Proposal:
    truth = membranes.interior(wanted)
    # What the annotation says nothing about is no error of topology.
    found = mask if ignore is None else np.where(ignore, truth, mask)
    return Proposal(
        plain=contingency.from_labels(
            membranes.pieces(truth), membranes.pieces(mask), ignore=ignore
        ),
        thinned=contingency.from_labels(membranes.thin(truth), membranes.thin(mask), ignore=ignore),
        topology=warping.warping_errors(truth, found, certainty=certainty),
    )
