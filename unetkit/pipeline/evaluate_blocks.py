"""Count the label pairs of two sides block by block, for whole samples and for parts of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unetkit.arrays import chances, contingency
from unetkit.engine.jobs import run_jobs
from unetkit.geometry.tiles import cover
from unetkit.pipeline.evaluate_maps import map_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from unetkit.arrays.contingency import Contingency
    from unetkit.arrays.squares import Squares
    from unetkit.geometry.tiles import Cover
    from unetkit.pipeline.evaluate_maps import Map
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.progress import Progress
    from unetkit.storage.planes import PlaneArray

# Pixels on a side of what a job compares: some 50 MB at work, and few enough jobs a slide.
BLOCK = 1024


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
        by_chance = chances.count(
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


def blocks_of(labels: PlaneArray) -> Cover:
    """Cut a plane into blocks of whole chunks, so that few chunks are decoded twice.

    Parameters
    ----------
    labels : PlaneArray

    Returns
    -------
    Cover
    """
    chunk = max(labels.chunk)
    side = chunk * (BLOCK // chunk) if chunk <= BLOCK else min(chunk, 2 * BLOCK)
    return cover(labels.height, labels.width, tile=side)


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
