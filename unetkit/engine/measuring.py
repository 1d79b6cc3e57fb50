"""Sum up the objects of stored labels, block by block and plane by plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.arrays import objects
from unetkit.arrays.boxes import read_around
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unetkit.progress import Progress
    from unetkit.storage.planes import PlaneArray


@dataclass(frozen=True)
class Piece:
    """A block of one plane to measure."""

    plane: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    labels: PlaneArray
    image: PlaneArray | None

    @property
    def key(self) -> str:
        """What tells it from the others of an evaluation."""
        return f"measure {self.labels.url} {self.plane} {self.rows} {self.columns}"


def measure_piece(piece: Piece) -> objects.Objects:
    """Read a block with its surroundings and sum up its objects."""
    labels = read_around(piece.labels, piece.plane, piece.rows, piece.columns, reach=objects.REACH)
    inside = tuple(
        slice(objects.REACH, objects.REACH + stop - start)
        for start, stop in (piece.rows, piece.columns)
    )
    values = None
    if piece.image is not None:
        values = piece.image.read(piece.plane, *piece.rows, *piece.columns)
    return objects.measure(
        labels,
        origin=(piece.rows[0], piece.columns[0]),
        inside=(inside[0], inside[1]),
        intensities=values,
    )


def piece_count(labels: PlaneArray) -> int:
    """Count the blocks in which labels are measured."""
    return labels.planes * len(blocks_of(labels))


def measure_labels(
    labels: PlaneArray,
    image: PlaneArray | None = None,
    *,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    run: Callable[..., None] = run_jobs,
) -> list[objects.Objects]:
    """Measure every plane of stored labels.

    Whole numbers give the same in any blocks, to the bit; sums of floating-point intensities are
    the same with any scheduler, and in other blocks but for rounding. `run` runs the jobs, as
    `run_jobs` does.
    """
    found: list[dict[tuple[int, int], objects.Objects]] = [{} for _ in range(labels.planes)]

    def add(piece: Piece, part: objects.Objects) -> None:
        found[piece.plane][piece.rows[0], piece.columns[0]] = part
        progress.advance()

    progress.start("measure", total=piece_count(labels))
    run(measure_piece, _pieces(labels, image), scheduler=scheduler, workers=workers, on_done=add)
    return [objects.merge([part for _, part in sorted(parts.items())]) for parts in found]


def _pieces(labels: PlaneArray, image: PlaneArray | None) -> Iterator[Piece]:
    for plane in range(labels.planes):
        for tile in blocks_of(labels):
            yield Piece(plane, (tile.y0, tile.y1), (tile.x0, tile.x1), labels, image)
