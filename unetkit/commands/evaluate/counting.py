"""Count the label pairs of two sides block by block, for whole samples and for parts of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.boxes import read_around
from unetkit.commands.evaluate.samples import map_of
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs
from unetkit.scores import boundaries, contingency, isbi2012, threshold_curve
from unetkit.scores.sums import Sums, best

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unetkit.commands.evaluate.samples import Map, Pair
    from unetkit.progress import Progress
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.units import Squares
    from unetkit.storage.planes import PlaneArray

# Pixels on a side of what a job compares: some 50 MB at work, and few enough jobs a slide.


@dataclass(frozen=True)
class Block:
    """A box of one plane of one sample to compare; small, so that it travels to any worker."""

    sample: int
    plane: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    prediction: PlaneArray
    truth: PlaneArray
    ignore: PlaneArray | None
    squares: Squares | None = None
    map: Map | None = None

    @property
    def key(self) -> str:
        """What tells it from the others of an evaluation."""
        return f"count {self.sample} {self.plane} {self.rows} {self.columns} {self.squares}"


@dataclass(frozen=True, eq=False)
class Counted:
    """What a block or a sample holds.

    Attributes
    ----------
    table : Contingency
        Where squares are told apart, one image a square.
    chances : ndarray of int64, shape (L, 2, T + 1), or None
        As `arrays.chances.count` has it, where the prediction has a probability map.
    """

    table: Contingency
    chances: np.ndarray[Any, Any] | None


def count_block(block: Block) -> Counted:
    """Read one block of both sides and count its label pairs.

    Parameters
    ----------
    block : Block

    Returns
    -------
    Counted
    """
    box = (block.plane, *block.rows, *block.columns)
    found, wanted = block.prediction.read(*box), block.truth.read(*box)
    ignore = None if block.ignore is None else block.ignore.read(*box)
    if block.squares is None:
        table = contingency.from_labels(wanted, found, ignore=ignore)
    else:
        origin = (block.rows[0], block.columns[0])
        table = block.squares.tables(wanted, found, origin=origin, ignore=ignore)
    by_chance = None
    if block.map is not None:
        wanted = wanted != 0 if block.map.foreground else wanted
        by_chance = threshold_curve.count(
            wanted, block.map.read(*box), labels=block.map.labels, ignore=ignore
        )
    return Counted(table, by_chance)


def count(
    pairs: Sequence[Pair],
    kind: str,
    *,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    squares: Squares | None = None,
    run: Callable[..., None] = run_jobs,
) -> list[Counted]:
    """Sum the blocks of each sample, in bounded memory.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
        Which labels.
    scheduler, workers, progress
        Who works, how many, and who hears of it.
    squares : Squares, optional
        Tell these apart, each as an image of its own.
    run : callable
        Runs the jobs, as `run_jobs` does.

    Returns
    -------
    list of Counted
        One a pair.
    """
    tallies = [contingency.Tally() for _ in pairs]
    by_chance: list[Any] = [None for _ in pairs]

    def add(block: Block, result: Counted) -> None:
        tallies[block.sample].add(result.table)
        if result.chances is not None:
            before = by_chance[block.sample]
            by_chance[block.sample] = result.chances + (0 if before is None else before)
        progress.advance()

    found = [ours.image.labels[kind] for ours, _ in pairs]
    progress.start("score", total=sum(part.planes * len(blocks_of(part)) for part in found))
    jobs = _blocks(pairs, kind, squares)
    run(count_block, jobs, scheduler=scheduler, workers=workers, on_done=add)
    return [Counted(t.total(), c) for t, c in zip(tallies, by_chance, strict=True)]


def _blocks(pairs: Sequence[Pair], kind: str, squares: Squares | None) -> Iterator[Block]:
    """Cut every pair of samples into blocks."""
    for number, (ours, theirs) in enumerate(pairs):
        found, wanted = ours.image.labels[kind], theirs.image.labels[kind]
        ignore = theirs.image.labels.get("ignore")
        chance = map_of(ours.image, kind)
        for plane in range(found.planes):
            for tile in blocks_of(found):
                rows, columns = (tile.y0, tile.y1), (tile.x0, tile.x1)
                yield Block(number, plane, rows, columns, found, wanted, ignore, squares, chance)


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
    topology: isbi2012.Topology


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
            if thin and found.height * found.width <= isbi2012.LARGEST:
                yield Part(*common, map=map_of(ours.image, kind))


def score_part(part: Part) -> boundaries.Surfaces | dict[float | None, Proposal]:
    """Measure the outlines of a block, or the borders of a plane.

    Parameters
    ----------
    part : Part

    Returns
    -------
    Surfaces, or dict of float or None to Proposal
    """
    return _measure(part) if part.rows is not None else _propose(part)


def _measure(part: Part) -> boundaries.Surfaces:
    """Read a block with its surroundings, background outside the image, and measure outlines."""
    rows = part.rows or (0, 0)
    truth, found = (
        read_around(side, part.plane, rows, part.columns, reach=boundaries.REACH)
        for side in (part.truth, part.prediction)
    )
    if part.instances:
        truth, found = truth != 0, found != 0
    counted = None
    if part.ignore is not None:
        outside = read_around(part.ignore, part.plane, rows, part.columns, reach=boundaries.REACH)
        counted = outside == 0
    height, width = rows[1] - rows[0], part.columns[1] - part.columns[0]
    reach = boundaries.REACH
    return boundaries.measure(
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

    truth = isbi2012.interior(wanted)
    # The same for every threshold.
    known = {"truth": truth, "plain": isbi2012.pieces(truth), "thinned": isbi2012.thin(truth)}

    def proposal(mask: np.ndarray[Any, Any], **certainty: Any) -> Proposal:
        return _proposal(known, mask, ignore=ignore, squares=part.squares, **certainty)

    if part.map is None:
        return {None: proposal(isbi2012.interior(part.prediction.read(*box)))}
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
        plain=tables(known["plain"], isbi2012.pieces(mask), ignore=ignore),
        thinned=tables(known["thinned"], isbi2012.thin(mask), ignore=ignore),
        topology=isbi2012.warping_errors(known["truth"], found, certainty=certainty),
    )


# Which end of each score of thin borders is best.
_HIGHEST = {
    "v_rand": True,
    "v_info": True,
    "warping_error": False,
    "isbi_rand": False,
    "isbi_pixel": False,
}


@dataclass
class Borders:
    """The sums of one sample.

    Attributes
    ----------
    squares : Squares or None
        Which of its parts are told apart.
    outlines : Surfaces
    proposals : dict of float or None to dict of int to Proposal
        By threshold and plane; None stands for the labels themselves.
    """

    squares: Squares | None = None
    outlines: boundaries.Surfaces = field(default_factory=boundaries.nothing)
    proposals: dict[float | None, dict[int, Proposal]] = field(default_factory=dict)

    def add(self, plane: int, result: boundaries.Surfaces | dict[float | None, Proposal]) -> None:
        """Count what a job found in a plane."""
        if isinstance(result, boundaries.Surfaces):
            self.outlines = self.outlines + result
            return
        for threshold, proposal in result.items():
            self.proposals.setdefault(threshold, {})[plane] = proposal

    def at(self, threshold: float | None) -> list[Proposal]:
        """Give the proposals of a threshold plane by plane, in whatever order they came."""
        return [proposal for _, proposal in sorted(self.proposals[threshold].items())]

    def sums(self, threshold: float | None, *, parted: bool) -> dict[str, np.ndarray[Any, Any]]:
        """Add up the planes of a threshold, by square if they are parted."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for proposal in self.at(threshold):
            tables = [proposal.plain, proposal.thinned]
            if not parted:
                tables = [table.joined() for table in tables]
            plane = isbi2012.of_plane(
                tables[0], tables[1], proposal.topology, squares=self.squares if parted else None
            )
            found = {name: part + found.get(name, 0) for name, part in plane.items()}
        return found


def count_borders(
    pairs: Sequence[Pair],
    kind: str,
    *,
    thin: bool,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    squares: Squares | None = None,
    run: Callable[..., None] = run_jobs,
) -> list[Borders]:
    """Sum the outlines and borders of each pair of samples.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
        Which labels.
    thin : bool
        Whether 0 is a border, so that thin borders are scored too.
    scheduler, workers, progress
        Who works, how many, and who hears of it.
    squares : Squares, optional
        Tell these apart.
    run : callable
        Runs the jobs, as `run_jobs` does.

    Returns
    -------
    list of Borders
        One a pair.
    """
    found = [Borders(squares) for _ in pairs]

    def add(part: Part, result: Any) -> None:
        found[part.sample].add(part.plane, result)
        progress.advance()

    def parts() -> Iterator[Part]:
        return parts_of(pairs, kind, thin=thin, squares=squares)

    progress.start("score borders", total=sum(1 for _ in parts()))
    run(score_part, parts(), scheduler=scheduler, workers=workers, on_done=add)
    return found


def sums_of(several: Sequence[Borders], *, tolerance: float, parted: bool) -> dict[str, Sums]:
    """Take the sums of every score of borders, by sample, or by square of a single one.

    Parameters
    ----------
    several : sequence of Borders
        One a sample.
    tolerance : float
        Of `boundary_f`, in pixels.
    parted : bool
        Whether the units are the squares of a single sample.

    Returns
    -------
    dict of str to Sums
        Scores of thin borders are the best over thresholds; they are not there for images that are
        too large, or where not every sample has the same thresholds.
    """
    outlines = [one.outlines for one in several]
    units = len(several)
    if parted and several[0].squares is not None:
        units = several[0].squares.count
    else:
        outlines = [part.in_unit(n) for n, part in enumerate(outlines)]
    found = boundaries.sums_of(boundaries.merge(outlines), units=units, tolerance=tolerance)
    by_threshold = [
        [one.sums(threshold, parted=parted) for one in several] for threshold in tried(several)
    ]
    for name, highest in _HIGHEST.items() if by_threshold else ():
        choices = [
            isbi2012.sums_of(name, np.concatenate([sample[name] for sample in samples]))
            for samples in by_threshold
        ]
        found[name] = best(choices, highest=highest)
    return found


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
    found = sums_of(several, tolerance=tolerance, parted=False)
    return {name: part.overall() for name, part in found.items()}


def tried(several: Sequence[Borders]) -> list[float | None]:
    """List the thresholds of all samples; none where not every sample has the same.

    Parameters
    ----------
    several : sequence of Borders
    """
    sets = [set(one.proposals) for one in several]
    if not sets or any(thresholds != sets[0] for thresholds in sets):
        return []
    return sorted(sets[0], key=lambda t: -1.0 if t is None else t)


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
    rows: list[dict[str, float | None]] = []
    for threshold in tried(several):
        samples = [one.sums(threshold, parted=False) for one in several]
        scored = {
            name: isbi2012.sums_of(name, np.concatenate([s[name] for s in samples])).overall()
            for name in _HIGHEST
        }
        rows.append({"threshold": threshold, **scored})
    return rows
