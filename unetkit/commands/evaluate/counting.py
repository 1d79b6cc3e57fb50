"""Count the label pairs and borders of two sides, block by block, for samples and parts of one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from unetkit.arrays.boxes import read_around
from unetkit.commands.evaluate.samples import probability_map
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs
from unetkit.progress import SILENT, Progress
from unetkit.scores import boundaries, contingency, isbi2012, table, threshold_curve
from unetkit.scores.formulas import mean_ratio
from unetkit.scores.sums import Sums, best_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from unetkit.commands.evaluate.samples import Pair, ProbabilityMap
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.formulas import Formula
    from unetkit.scores.table import ScoreSums
    from unetkit.storage.planes import PlaneArray

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Runner:
    """Who does the jobs, how many at a time, in blocks of which side, and who hears of it."""

    scheduler: str = "threads"
    workers: int | None = None
    progress: Progress = SILENT
    run: Callable[..., None] = run_jobs  # does what `run_jobs` does
    block_side: int | None = None  # None is the usual one

    def __call__(
        self, function: Callable[[Any], Any], jobs: Iterable[Any], on_done: Callable[..., None]
    ) -> None:
        """Run `function` on every job."""
        self.run(function, jobs, scheduler=self.scheduler, workers=self.workers, on_done=on_done)


@dataclass(frozen=True)
class Block:
    """A box of one plane of one sample to compare; small, so that it travels to any worker."""

    kept_as: ClassVar[str] = "count"

    sample: int
    plane: int
    prediction: PlaneArray
    truth: PlaneArray
    ignore: PlaneArray | None
    instances: bool
    probabilities: ProbabilityMap | None = None
    rows: tuple[int, int] | None = None  # None for the whole plane
    columns: tuple[int, int] = (0, 0)

    @property
    def key(self) -> str:
        """What tells it from the others of an evaluation, in results that are kept."""
        return f"{self.kept_as} {self.sample} {self.plane} {self.rows} {self.columns}"


@dataclass(frozen=True)
class BorderBlock(Block):
    """A box or plane whose borders are scored."""

    kept_as: ClassVar[str] = "borders"


B = TypeVar("B", bound=Block)


def _planes(make: type[B], pairs: Sequence[Pair], kind: str) -> Iterator[B]:
    """List the planes of all pairs of samples."""
    for number, (prediction, truth) in enumerate(pairs):
        sides = prediction.image.labels[kind], truth.image.labels[kind]
        ignore = truth.image.labels.get("ignore")
        probabilities = probability_map(prediction.image, kind)
        for plane in range(sides[0].planes):
            yield make(number, plane, *sides, ignore, kind == "instances", probabilities)


def _cut(plane: B, side: int | None) -> Iterator[B]:
    """Cut a plane into blocks."""
    for tile in blocks_of(plane.prediction, side):
        yield replace(plane, rows=(tile.y0, tile.y1), columns=(tile.x0, tile.x1))


@dataclass(frozen=True, eq=False)
class Counted:
    """What a block or a sample holds; results that are kept have these names."""

    table: Contingency  # one image a plane
    chances: Array | None  # of a probability map, as `threshold_curve.count` has it


def count_block(block: Block) -> Counted:
    """Read one block of both sides and count its label pairs."""
    rows = block.rows or (0, block.truth.height)
    box = (block.plane, *rows, *block.columns)
    found, wanted = block.prediction.read(*box), block.truth.read(*box)
    ignore = None if block.ignore is None else block.ignore.read(*box)
    part = contingency.from_labels(wanted, found, ignore=ignore)
    counted = replace(part, image=part.image + block.plane, images=block.truth.planes)
    probabilities, chances = block.probabilities, None
    if probabilities is not None:
        chances = threshold_curve.count(
            wanted != 0 if probabilities.foreground else wanted,
            probabilities.read(*box),
            labels=probabilities.labels,
            ignore=ignore,
        )
    return Counted(counted, chances)


def count(pairs: Sequence[Pair], kind: str, runner: Runner) -> list[Counted]:
    """Sum the blocks of each pair of samples in bounded memory."""
    sums = [contingency.ContingencySums() for _ in pairs]
    chances: list[Any] = [None for _ in pairs]

    def add(block: Block, result: Counted) -> None:
        sums[block.sample].add(result.table)
        if result.chances is not None:
            before = chances[block.sample]
            chances[block.sample] = result.chances + (0 if before is None else before)
        runner.progress.advance()

    planes = partial(_planes, Block, pairs, kind)
    total = sum(len(blocks_of(plane.prediction, runner.block_side)) for plane in planes())
    runner.progress.start("score", total=total)
    runner(count_block, (b for plane in planes() for b in _cut(plane, runner.block_side)), add)
    return [Counted(one.total(), c) for one, c in zip(sums, chances, strict=True)]


@dataclass(frozen=True)
class ThresholdedPlane:
    """What one threshold finds in one plane: label pairs as they are and thinned, and topology."""

    plain: Contingency
    thinned: Contingency  # the proposal's side alone is thinned
    topology: isbi2012.Topology


def border_blocks(
    pairs: Sequence[Pair], kind: str, *, thin: bool, side: int | None = None
) -> Iterator[BorderBlock]:
    """Cut every pair into blocks and, for `thin` borders, into planes that are not too large."""
    for plane in _planes(BorderBlock, pairs, kind):
        yield from _cut(replace(plane, probabilities=None), side)
        if thin and plane.prediction.height * plane.prediction.width <= isbi2012.LARGEST:
            yield plane


def score_borders(
    block: BorderBlock,
) -> boundaries.Surfaces | dict[float | None, ThresholdedPlane]:
    """Measure the outlines of a block, or the borders of a plane."""
    return _score_plane(block) if block.rows is None else _measure(block, block.rows)


def _measure(block: BorderBlock, rows: tuple[int, int]) -> boundaries.Surfaces:
    """Read a block with its surroundings, background outside the image, and measure outlines."""
    reach = boundaries.REACH
    truth, found = (
        read_around(side, block.plane, rows, block.columns, reach=reach)
        for side in (block.truth, block.prediction)
    )
    counted = None
    if block.ignore is not None:
        counted = read_around(block.ignore, block.plane, rows, block.columns, reach=reach) == 0
    height, width = rows[1] - rows[0], block.columns[1] - block.columns[0]
    return boundaries.measure(
        truth,
        found,
        inside=(slice(reach, reach + height), slice(reach, reach + width)),
        instances=block.instances,
        counted=counted,
    )


def _score_plane(block: BorderBlock) -> dict[float | None, ThresholdedPlane]:
    """Compare the pieces of a plane with those of its labels, or of each threshold."""
    box = (block.plane, 0, block.truth.height, 0, block.truth.width)
    ignore = None if block.ignore is None else block.ignore.read(*box) != 0
    truth = isbi2012.interior(block.truth.read(*box))
    pieces = isbi2012.pieces(truth)  # the same for any threshold
    tables = partial(contingency.from_labels, ignore=ignore)

    def compare(mask: Array, certainty: Array | None = None) -> ThresholdedPlane:
        # What the annotation says nothing about is no error of topology.
        found = mask if ignore is None else np.where(ignore, truth, mask)
        return ThresholdedPlane(
            plain=tables(pieces, isbi2012.pieces(mask)),
            thinned=tables(pieces, isbi2012.watershed(mask)),
            topology=isbi2012.warping_errors(truth, found, certainty=certainty),
        )

    if block.probabilities is None:
        return {None: compare(isbi2012.interior(block.prediction.read(*box)))}
    chance = block.probabilities.read(*box)[0]
    return {t: compare(chance > t, np.abs(chance - t)) for t in isbi2012.THRESHOLDS}


@dataclass
class Borders:
    """What was counted of the borders of one sample."""

    outlines: boundaries.Surfaces = field(default_factory=boundaries.nothing)
    # By threshold and plane; None stands for the labels themselves.
    planes: dict[float | None, dict[int, ThresholdedPlane]] = field(default_factory=dict)

    def add(
        self, plane: int, result: boundaries.Surfaces | dict[float | None, ThresholdedPlane]
    ) -> None:
        """Count what a job found in a plane."""
        if isinstance(result, boundaries.Surfaces):
            self.outlines = boundaries.merge([self.outlines, result])
            return
        for threshold, found in result.items():
            self.planes.setdefault(threshold, {})[plane] = found

    def sums(self, threshold: float | None) -> dict[str, Array]:
        """Add up the planes of a threshold, in whatever order they came.

        Of scores that are averaged over planes there are the sum over planes and their number.
        """
        found: dict[str, list[Array]] = {}
        for _, plane in sorted(self.planes[threshold].items()):
            parts = isbi2012.plane_sums(plane.plain, plane.thinned, plane.topology)
            for name, sums in parts.items():
                found.setdefault(name, []).append(sums)
        for name in isbi2012.BY_PLANE:
            values = [_formula(name)(np.arange(len(s)), s) for s in found[name]]
            found[name] = [np.array([v, 1.0]) for v in values if np.isfinite(v)] + [np.zeros(2)]
        return {name: np.sum(parts, axis=0) for name, parts in found.items()}


def count_borders(pairs: Sequence[Pair], kind: str, runner: Runner, *, thin: bool) -> list[Borders]:
    """Sum the outlines, and if 0 is a border the `thin` borders, of each pair of samples."""
    found = [Borders() for _ in pairs]

    def add(block: BorderBlock, result: Any) -> None:
        found[block.sample].add(block.plane, result)
        runner.progress.advance()

    blocks = partial(border_blocks, pairs, kind, thin=thin, side=runner.block_side)
    runner.progress.start("score borders", total=sum(1 for _ in blocks()))
    runner(score_borders, blocks(), add)
    return found


def border_sums(several: Sequence[Borders], kind: str, *, tolerance: float) -> ScoreSums:
    """Take the sums of every score of borders, by sample.

    Scores of thin borders are the best over thresholds; they are not there for images that are too
    large, or where not every sample has the same thresholds.
    """
    found = table.score_sums(
        boundaries.outline_sums(
            boundaries.merge(one.outlines.in_unit(n) for n, one in enumerate(several)),
            units=len(several),
            tolerance=tolerance,
            instances=kind == "instances",
        )
    )
    choices = [_at(several, threshold) for threshold in thresholds(several)]
    for name in choices[0] if choices else ():
        highest = not table.SCORES_BY_NAME[name].lower_is_better
        found[name] = best_of([choice[name] for choice in choices], highest=highest)
    return found


def _at(several: Sequence[Borders], threshold: float | None) -> ScoreSums:
    """Take the sums of thin borders at one threshold."""
    samples = [one.sums(threshold) for one in several]
    added = {name: np.stack([one[name] for one in samples]) for name in samples[0]}
    return {
        name: Sums(
            np.arange(sums.shape[1]),
            sums,
            mean_ratio if name in isbi2012.BY_PLANE else _formula(name),
        )
        for name, sums in added.items()
    }


def _formula(name: str) -> Formula:
    return table.SCORES_BY_NAME[name].formula


def thresholds(several: Sequence[Borders]) -> list[float | None]:
    """List the thresholds of all samples; none where not every sample has the same."""
    sets = [set(one.planes) for one in several]
    if not sets or any(one != sets[0] for one in sets):
        return []
    return sorted(sets[0], key=lambda t: -1.0 if t is None else t)


def sweep(several: Sequence[Borders]) -> list[dict[str, float | None]]:
    """Score every threshold that was tried on all samples; None stands for labels."""
    return [
        {"threshold": t, **{name: sums.overall() for name, sums in _at(several, t).items()}}
        for t in thresholds(several)
    ]
