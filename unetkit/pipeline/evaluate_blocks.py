"""Count the label pairs of two sides block by block, for whole samples and for parts of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unetkit.arrays import contingency
from unetkit.engine.jobs import run_jobs
from unetkit.geometry.tiles import cover

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from unetkit.arrays.contingency import Contingency
    from unetkit.geometry.tiles import Cover
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.progress import Progress
    from unetkit.storage.planes import PlaneArray

# Pixels on a side of what a job compares: some 50 MB at work, and few enough jobs a slide.
BLOCK = 1024
# Sides of the squares that stand for independent samples of one large image, the largest first,
# and how many there have to be. Our own choice: cells are smaller, and 16 tell something.
SQUARES = (1024, 512, 256, 128)
LEAST_SQUARES = 16


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
    square: int | None = None


def count_block(block: Block) -> Contingency:
    """Read one block of both sides and count its label pairs.

    Parameters
    ----------
    block : Block

    Returns
    -------
    Contingency
        Where the block is told apart by squares, one image a square.
    """
    box = (block.plane, *block.rows, *block.columns)
    found, wanted = block.prediction.read(*box), block.truth.read(*box)
    ignore = None if block.ignore is None else block.ignore.read(*box)
    if block.square is None:
        return contingency.from_labels(wanted, found, ignore=ignore)
    return _count_squares(block, wanted, found, ignore)


def square_side(labels: PlaneArray) -> int | None:
    """Choose into which squares one sample is cut to tell how sure its scores are.

    Parameters
    ----------
    labels : PlaneArray

    Returns
    -------
    int or None
        Their side in pixels, of the image's size alone; None where there would be too few.
    """
    for side in SQUARES:
        if len(cover(labels.height, labels.width, tile=side)) >= LEAST_SQUARES:
            return side
    return None


def count(
    pairs: Sequence[Pair],
    kind: str,
    *,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    square: int | None = None,
) -> list[Contingency]:
    """Sum the blocks of each sample, in bounded memory.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
        Which labels.
    scheduler, workers, progress
        Who works, how many, and who hears of it.
    square : int, optional
        Tell squares of this side apart, each as an image of its own.

    Returns
    -------
    list of Contingency
        One a pair.
    """
    tallies = [contingency.Tally() for _ in pairs]

    def add(block: Block, table: Contingency) -> None:
        tallies[block.sample].add(table)
        progress.advance()

    found = [ours.image.labels[kind] for ours, _ in pairs]
    progress.start("score", total=sum(part.planes * len(blocks_of(part)) for part in found))
    jobs = _blocks(pairs, kind, square)
    run_jobs(count_block, jobs, scheduler=scheduler, workers=workers, on_done=add)
    return [tally.total() for tally in tallies]


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


def _blocks(pairs: Sequence[Pair], kind: str, square: int | None) -> Iterator[Block]:
    """Cut every pair of samples into blocks."""
    for number, (ours, theirs) in enumerate(pairs):
        found, wanted = ours.image.labels[kind], theirs.image.labels[kind]
        ignore = theirs.image.labels.get("ignore")
        for plane in range(found.planes):
            for tile in blocks_of(found):
                rows, columns = (tile.y0, tile.y1), (tile.x0, tile.x1)
                yield Block(number, plane, rows, columns, found, wanted, ignore, square)


def _count_squares(
    block: Block,
    wanted: np.ndarray[Any, Any],
    found: np.ndarray[Any, Any],
    ignore: np.ndarray[Any, Any] | None,
) -> Contingency:
    """Count each square of the image on its own; those of a block's edge are there in part."""
    side = block.square or 1
    across = -(-block.truth.width // side)
    squares = across * -(-block.truth.height // side)
    parts = []
    for y in range(block.rows[0] // side, -(-block.rows[1] // side)):
        for x in range(block.columns[0] // side, -(-block.columns[1] // side)):
            rows = slice(max(y * side - block.rows[0], 0), (y + 1) * side - block.rows[0])
            columns = slice(max(x * side - block.columns[0], 0), (x + 1) * side - block.columns[0])
            skip = None if ignore is None else ignore[rows, columns]
            table = contingency.from_labels(
                wanted[rows, columns], found[rows, columns], ignore=skip
            )
            parts.append(replace(table, image=table.image + (y * across + x), images=squares))
    return contingency.merge(parts)
