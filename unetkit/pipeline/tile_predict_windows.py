"""Which windows of a prediction are looked at once more: across seams, the same ones every time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unetkit.geometry.tiles import Tile
from unetkit.pipeline.tile_predict_tile import ImageTask, job_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.geometry.tiles import Cover
    from unetkit.pipeline.tile_predict_average import Averaging
    from unetkit.pipeline.tile_predict_plan import Plan

SEED = 0
# Side of a window in pixels: enough to hold objects, and little beside a tile.
SIDE = 256


@dataclass(frozen=True)
class AuditJob:
    """A window that is predicted once more.

    Parameters
    ----------
    task : ImageTask
        What all windows of an image share.
    plane : int
        Which plane.
    tile : Tile
        The window, and what is read for it.
    averaging : Averaging
        Where the networks look for it.
    left_out : tuple of Tile
        Tiles that were left out as empty, about which the network was not asked.
    """

    task: ImageTask
    plane: int
    tile: Tile
    averaging: Averaging
    left_out: tuple[Tile, ...]

    def __str__(self) -> str:
        return (
            f"the window of {self.task.name}/{self.plane} at row {self.tile.y0}, "
            f"column {self.tile.x0}"
        )


def draw_windows(
    plan: Plan, tasks: Sequence[ImageTask], count: int, *, left_out: frozenset[str]
) -> Iterator[AuditJob]:
    """Draw windows that lie across the seams of tiles, always the same for the same plan.

    Parameters
    ----------
    plan : Plan
        Says where the seams are. An image of one tile has none; its windows lie anywhere.
    tasks : sequence of ImageTask
        One for each sample.
    count : int
        How many.
    left_out : frozenset of str
        Keys of tiles that were left out.
    """
    step = plan.model.header.contract.step
    side = max(2 * step, min(SIDE, plan.tile) // (2 * step) * 2 * step)
    averaging = plan.averaging
    if averaging.merge == "crop":
        averaging = replace(averaging, tile=side)
    covers = [plan.tiles(sample) for sample in plan.samples]
    planes = [sample.data.planes for sample in plan.samples]
    ends = np.cumsum([len(c) * many for c, many in zip(covers, planes, strict=True)])
    for number in range(count):
        rng = np.random.default_rng([SEED, number])
        index = int(rng.integers(ends[-1]))
        place = int(np.searchsorted(ends, index, side="right"))
        tiles, task = covers[place], tasks[place]
        plane, at = divmod(index - (int(ends[place - 1]) if place else 0), len(tiles))
        near = tiles[at]
        starts = [
            _start(first, length, tiles.tile, side=side, rng=rng) // step * step
            for first, length in ((near.y0, tiles.height), (near.x0, tiles.width))
        ]
        tile = _window(averaging, tiles, starts, side=side)
        empty = [t for t in _touched(tiles, tile) if job_key(task.name, plane, t) in left_out]
        yield AuditJob(task, plane, tile, averaging, tuple(empty))


def _start(first: int, length: int, tile: int, *, side: int, rng: np.random.Generator) -> int:
    """Return where a window begins that has the seam before a tile in its middle."""
    if length <= tile:
        return int(rng.integers(max(1, length - side + 1)))
    return max(first, tile) - side // 2


def _window(averaging: Averaging, image: Cover, starts: Sequence[int], *, side: int) -> Tile:
    (y0, x0), ends = starts, (image.height, image.width)
    y1, x1 = (min(start + side, end) for start, end in zip(starts, ends, strict=True))
    (top, bottom), (left, right) = averaging.reads(y0, y1), averaging.reads(x0, x1)
    return Tile(0, y0, x0, y1, x1, top, left, bottom, right)


def _touched(tiles: Cover, window: Tile) -> list[Tile]:
    """List the tiles of which a window has pixels."""
    rows = range(window.y0 // tiles.tile, -(-window.y1 // tiles.tile))
    columns = range(window.x0 // tiles.tile, -(-window.x1 // tiles.tile))
    return [tiles[row * tiles.columns + column] for row in rows for column in columns]
