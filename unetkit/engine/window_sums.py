"""What the windows of an image hold: sums over cells, block by block, added up at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.geometry.windows import Windows
    from unetkit.progress import Progress
    from unetkit.storage.planes import PlaneArray

    Ends = tuple[int, int]


@dataclass(frozen=True)
class Layers:
    """An image with what a prediction says of it, and the cells in which it is summed up.

    The prediction may have another size than the image; cells are those of the image.
    """

    image: PlaneArray
    uncertainty: PlaneArray
    classes: PlaneArray | None
    class_count: int  # 0 without classes
    windows: Windows

    def predicted(self, edges: Sequence[int], axis: int) -> list[int]:
        """Return where rows (0) or columns (1) of the image lie in the prediction."""
        data, whole = self.uncertainty, (self.image.height, self.image.width)[axis]
        return [edge * (data.height, data.width)[axis] // whole for edge in edges]


@dataclass(frozen=True)
class CellJob:
    """A block of one plane of the image."""

    layers: Layers
    plane: int
    rows: Ends
    columns: Ends


@dataclass(frozen=True, eq=False)
class CellSums:
    """What lies in the cells of a plane, or in some of them, shape (F, cells y, cells x).

    First pixels of the image and of the prediction, and the disagreement; then of each channel the
    sum of its values and of their squares; then the pixels of each class.
    """

    first: tuple[int, int]  # the number of the first cell along y and x
    sums: NDArray[np.float64]


def sum_cells(job: CellJob) -> CellSums:
    """Sum up a block, each cell's part of it apart."""
    layers = job.layers
    cuts, first = [], []
    for ends, edges in zip((job.rows, job.columns), layers.windows.edges, strict=True):
        found = np.array(edges)
        low = int(np.searchsorted(found, ends[0], side="right")) - 1
        high = int(np.searchsorted(found, ends[1], side="left"))
        first.append(low)
        cuts.append(np.clip(found[low : high + 1], *ends).tolist())
    image = layers.image.read(job.plane, *job.rows, *job.columns)
    predicted = [layers.predicted(cut, axis) for axis, cut in enumerate(cuts)]
    box = (job.plane, predicted[0][0], predicted[0][-1], predicted[1][0], predicted[1][-1])
    apart = layers.uncertainty.read(*box)
    values = np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0)
    sums = [_areas(cuts), _areas(predicted), _parts(apart, predicted)]
    for channel in values:
        sums += [_parts(channel, cuts), _parts(channel * channel, cuts)]
    if layers.classes is not None:
        kinds = layers.classes.read(*box)
        sums += [_parts(kinds == number, predicted) for number in range(layers.class_count)]
    return CellSums((first[0], first[1]), np.stack(sums))


def _areas(cuts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Count the pixels between cuts along y and x."""
    return np.asarray(np.outer(*(np.diff(cut) for cut in cuts)), np.float64)


def _parts(values: NDArray[Any], cuts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Sum up what lies between cuts along y and x, also between two that are the same."""
    found: NDArray[np.float64] = values.astype(np.float64)
    for axis, cut in enumerate(cuts):
        total = np.insert(np.cumsum(found, axis=axis), 0, 0, axis=axis)
        found = np.diff(total.take(np.array(cut) - cut[0], axis=axis), axis=axis)
    return found


def block_count(layers: Layers) -> int:
    """Count the blocks in which windows are summed up."""
    return layers.image.planes * len(blocks_of(layers.image))


def sum_windows(
    layers: Layers, *, scheduler: str, workers: int | None, progress: Progress
) -> list[NDArray[np.float64]]:
    """Sum up what each window of each plane holds, shape (F, windows); see `CellSums`.

    Sums of whole numbers are exact, and the same for any blocks. In memory are a few blocks, and
    for each cell a handful of numbers.
    """
    found: list[list[CellSums]] = [[] for _ in range(layers.image.planes)]

    def add(job: CellJob, part: CellSums) -> None:
        found[job.plane].append(part)
        progress.advance()

    progress.start("look for windows", total=block_count(layers))
    jobs = (
        CellJob(layers, plane, (tile.y0, tile.y1), (tile.x0, tile.x1))
        for plane in range(layers.image.planes)
        for tile in blocks_of(layers.image)
    )
    run_jobs(sum_cells, jobs, scheduler=scheduler, workers=workers, on_done=add)
    return [_in_windows(layers.windows, parts) for parts in found]


def _in_windows(windows: Windows, parts: Sequence[CellSums]) -> NDArray[np.float64]:
    """Add up cells, in the order of their blocks, and then those of each window."""
    shape = [len(edges) - 1 for edges in windows.edges]
    total = np.zeros((len(parts[0].sums), *shape))
    for part in sorted(parts, key=lambda one: one.first):
        (y, x), (high, wide) = part.first, part.sums.shape[1:]
        total[:, y : y + high, x : x + wide] += part.sums
    for axis in (0, 1):
        ends = windows.cells(axis)
        total = np.stack(
            [total.take(range(*end), axis=axis + 1).sum(axis=axis + 1) for end in ends],
            axis=axis + 1,
        )
    return total.reshape(len(total), -1)
