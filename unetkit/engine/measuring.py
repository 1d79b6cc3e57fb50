"""Sum up the objects of stored labels, block by block and plane by plane."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import objects
from unetkit.arrays.boxes import read_around
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

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
    ignore: PlaneArray | None = None  # not 0 where pixels of classes are not counted
    chosen: NDArray[Any] | None = None  # the only objects to be measured
    uncertainty: PlaneArray | None = None  # measured as one more channel, after those of the image

    @property
    def key(self) -> str:
        """What tells it from the others of an evaluation."""
        return f"measure {self.labels.url} {self.plane} {self.rows} {self.columns}"


def measure_piece(piece: Piece) -> objects.Objects:
    """Read a block with its surroundings and sum up its objects."""
    labels = read_around(piece.labels, piece.plane, piece.rows, piece.columns, reach=objects.REACH)
    if piece.chosen is not None:
        piece, labels = _cropped(piece, np.where(np.isin(labels, piece.chosen), labels, 0))
    inside = tuple(
        slice(objects.REACH, objects.REACH + stop - start)
        for start, stop in (piece.rows, piece.columns)
    )
    box = (piece.plane, *piece.rows, *piece.columns)
    values = [piece.image.read(*box)] if piece.image is not None else []
    if piece.uncertainty is not None:
        values.append(piece.uncertainty.read(*box)[None])
    return objects.measure(
        labels,
        origin=(piece.rows[0], piece.columns[0]),
        inside=(inside[0], inside[1]),
        intensities=np.concatenate(values) if values else None,
    )


def _cropped(piece: Piece, labels: NDArray[Any]) -> tuple[Piece, NDArray[Any]]:
    """Leave the rows and columns out in which a block has nothing, at its ends."""
    reach = objects.REACH
    filled = labels[reach:-reach, reach:-reach] != 0
    (top, bottom), (left, right) = (
        (int(along[0]), int(along[-1]) + 1)
        for along in (np.flatnonzero(filled.any(axis=axis)) for axis in (1, 0))
    )
    y, x = piece.rows[0], piece.columns[0]
    kept = replace(piece, rows=(y + top, y + bottom), columns=(x + left, x + right))
    return kept, labels[top : bottom + 2 * reach, left : right + 2 * reach]


def count_piece(piece: Piece) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read a block of a class map, and count the pixels of each class that is there."""
    box = (piece.plane, *piece.rows, *piece.columns)
    classes = piece.labels.read(*box)
    if piece.ignore is not None:
        classes = classes[piece.ignore.read(*box) == 0]
    found, counts = np.unique(classes, return_counts=True)
    return found, counts


def count_classes(
    labels: PlaneArray,
    ignore: PlaneArray | None = None,
    *,
    scheduler: str,
    workers: int | None,
    progress: Progress,
) -> list[Counter[int]]:
    """Count the pixels of each class on every plane of a class map, the same in any blocks."""
    found: list[Counter[int]] = [Counter() for _ in range(labels.planes)]

    def add(piece: Piece, part: tuple[NDArray[Any], NDArray[np.int64]]) -> None:
        for number, count in zip(*(column.tolist() for column in part), strict=True):
            found[piece.plane][number] += count
        progress.advance()

    progress.start("measure", total=piece_count(labels))
    pieces = _pieces(labels, None, ignore)
    run_jobs(count_piece, pieces, scheduler=scheduler, workers=workers, on_done=add)
    return found


def piece_count(labels: PlaneArray) -> int:
    """Count the blocks in which labels are measured."""
    return labels.planes * len(blocks_of(labels))


def measure_labels(
    labels: PlaneArray,
    image: PlaneArray | None = None,
    *,
    uncertainty: PlaneArray | None = None,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    run: Callable[..., None] = run_jobs,
) -> list[objects.Objects]:
    """Measure every plane of stored labels.

    Whole numbers give the same in any blocks, to the bit; sums of floating-point intensities are
    the same with any scheduler, and in other blocks but for rounding. The `uncertainty` of a
    prediction is one more channel. `run` runs the jobs, as `run_jobs` does.
    """
    found: list[dict[tuple[int, int], objects.Objects]] = [{} for _ in range(labels.planes)]

    def add(piece: Piece, part: objects.Objects) -> None:
        found[piece.plane][piece.rows[0], piece.columns[0]] = part
        progress.advance()

    progress.start("measure", total=piece_count(labels))
    pieces = (replace(one, uncertainty=uncertainty) for one in _pieces(labels, image))
    run(measure_piece, pieces, scheduler=scheduler, workers=workers, on_done=add)
    return [objects.merge([part for _, part in sorted(parts.items())]) for parts in found]


@dataclass(frozen=True, eq=False)
class ListedPlane:
    """The ids of a plane, and the blocks in which each of them is."""

    pieces: tuple[tuple[Piece, NDArray[Any]], ...]  # in the order of their places

    @property
    def ids(self) -> NDArray[np.uint64]:
        """All ids, ascending, without background."""
        found = [ids.astype(np.uint64) for _, ids in self.pieces]
        ids: NDArray[np.uint64] = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
        return ids


def list_piece(piece: Piece) -> NDArray[Any]:
    """Read a block, and list the ids that are in it."""
    box = (piece.plane, *piece.rows, *piece.columns)
    if piece.labels.is_blank(*box):
        return np.empty(0, piece.labels.dtype)
    ids = np.unique(piece.labels.read(*box))
    kept: NDArray[Any] = ids[ids != 0]
    return kept


def list_objects(
    labels: PlaneArray, *, scheduler: str, workers: int | None, progress: Progress
) -> list[ListedPlane]:
    """List the objects of every plane, a fraction of the work of measuring them all."""
    found: list[list[tuple[Piece, NDArray[Any]]]] = [[] for _ in range(labels.planes)]

    def add(piece: Piece, ids: NDArray[Any]) -> None:
        if len(ids):
            found[piece.plane].append((piece, ids))
        progress.advance()

    progress.start("list", total=piece_count(labels))
    pieces = _pieces(labels, None)
    run_jobs(list_piece, pieces, scheduler=scheduler, workers=workers, on_done=add)
    places = [sorted(plane, key=lambda one: (one[0].rows, one[0].columns)) for plane in found]
    return [ListedPlane(tuple(plane)) for plane in places]


def pieces_with(listed: Sequence[ListedPlane], chosen: Sequence[NDArray[Any]]) -> list[Piece]:
    """Return the blocks that hold some objects of each plane, to measure these alone."""
    return [
        replace(piece, chosen=own)
        for plane, wanted in zip(listed, chosen, strict=True)
        for piece, ids in plane.pieces
        if len(own := ids[np.isin(ids, wanted.astype(ids.dtype))])
    ]


def measure_pieces(
    pieces: Sequence[Piece], *, scheduler: str, workers: int | None, progress: Progress
) -> dict[int, objects.Objects]:
    """Measure what is in some blocks, by plane."""
    found: dict[int, list[objects.Objects]] = {}

    def add(piece: Piece, part: objects.Objects) -> None:
        found.setdefault(piece.plane, []).append(part)
        progress.advance()

    if pieces:
        run_jobs(measure_piece, pieces, scheduler=scheduler, workers=workers, on_done=add)
    return {plane: objects.merge(parts) for plane, parts in found.items()}


def _pieces(
    labels: PlaneArray, image: PlaneArray | None, ignore: PlaneArray | None = None
) -> Iterator[Piece]:
    for plane in range(labels.planes):
        for tile in blocks_of(labels):
            yield Piece(plane, (tile.y0, tile.y1), (tile.x0, tile.x1), labels, image, ignore)
