"""The jobs on one tile of labels: count its classes, weigh its pixels, survey its objects."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.boxes import inside
from unetkit.arrays.distance_bands import ObjectDepths, deepest_of, squared_depths
from unetkit.arrays.instances import neighbours
from unetkit.arrays.meanings import meaning_of
from unetkit.arrays.targets import CLASS_SHIFT, cut_gaps, make_target
from unetkit.arrays.weight_map import Preset, weight_map
from unetkit.engine.block_io import write_tile
from unetkit.engine.jobs import run_jobs
from unetkit.errors import InputError
from unetkit.geometry.tiles import cover
from unetkit.storage.planes import PlaneArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.engine.pools import Scheduler
    from unetkit.geometry.tiles import Cover, Tile
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.object_classes import ObjectClasses

CLASSES = 256
# Adds nothing, and looks no further than a target does.
BARE = Preset(source="", w0=0.0, sigma=1.0)
# Pixels a side: the larger, the less context is read twice; some 50 MB at work.
TILE = 1024


@dataclass(frozen=True)
class ClassifiedLabels(PlaneArray):
    """Instances read with the class of each above its id: class times 2^32, and the id."""

    source: PlaneArray = field(kw_only=True)
    classes: ObjectClasses = field(kw_only=True)

    @classmethod
    def of(cls, labels: PlaneArray, classes: ObjectClasses) -> ClassifiedLabels:
        """See labels so."""
        told = {one.name: getattr(labels, one.name) for one in fields(PlaneArray)}
        return cls(**{**told, "dtype": np.dtype(np.int64)}, source=labels, classes=classes)

    def with_absolute_url(self) -> ClassifiedLabels:
        """Name the array so that a worker with another working folder finds it too."""
        return ClassifiedLabels.of(self.source.with_absolute_url(), self.classes)

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.int64]:
        """Read a box of a plane."""
        ids = self.source.read(plane, y0, y1, x0, x1)
        classes = self.classes.of(ids) << CLASS_SHIFT
        return np.asarray(classes | ids.astype(np.int64))


@dataclass(frozen=True)
class MeasuredLabels(PlaneArray):
    """Instances read as numbers from 1 on, with how deep each is above, see `ObjectDepths`."""

    source: PlaneArray = field(kw_only=True)
    depths: ObjectDepths = field(kw_only=True)

    @classmethod
    def of(cls, labels: PlaneArray, depths: ObjectDepths) -> MeasuredLabels:
        """See labels so."""
        told = {one.name: getattr(labels, one.name) for one in fields(PlaneArray)}
        return cls(**{**told, "dtype": np.dtype(np.int64)}, source=labels, depths=depths)

    def with_absolute_url(self) -> MeasuredLabels:
        """Name the array so that a worker with another working folder finds it too."""
        return MeasuredLabels.of(self.source.with_absolute_url(), self.depths)

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.int64]:
        """Read a box of a plane."""
        return self.depths.above(plane, self.source.read(plane, y0, y1, x0, x1))


@dataclass(frozen=True)
class TileJob:
    """A tile of one plane of labels; small, so that it travels to any worker."""

    labels: PlaneArray
    ignore: PlaneArray | None  # not 0 where nobody annotated
    plane: int
    tile: Tile  # its read box may overhang the plane; there are no labels outside
    target: str
    preset: Preset
    balance: tuple[float, ...] = ()  # w_c, one a class
    output: PlaneArray | None = None  # where `weigh_tile` writes

    def read(self) -> tuple[NDArray[Any], tuple[slice, slice]]:
        """Return the labels around the tile, and where in them the tile itself is.

        What would lie outside the plane is left out, not mirrored: a mirrored neighbour would cut a
        gap along the edge of the image that the whole image does not have.
        """
        tile, box = self.tile, self._box
        top, _, left, _ = box
        block = self.labels.read(self.plane, *box)
        if self.ignore is not None:
            # What nobody judged is no cell: the rim of the annotated region makes no border,
            # neither in gaps nor across a cell that goes on beyond it.
            ignored = self.ignore.read(self.plane, *box) != 0
            if block[ignored].any():
                ignored &= ~self._goes_on(block, box)
            block[ignored] = 0
        rows = slice(tile.y0 - top, tile.y1 - top)
        return block, (rows, slice(tile.x0 - left, tile.x1 - left))

    @property
    def _box(self) -> tuple[int, int, int, int]:
        """What of the plane is read."""
        tile = self.tile
        rows, columns = (tile.read_y0, tile.read_y1), (tile.read_x0, tile.read_x1)
        return inside(self.labels, rows, columns)

    def unjudged(self) -> NDArray[np.bool_] | None:
        """Return which pixels around the tile nobody judged; None where all count."""
        if self.ignore is None:
            return None
        return np.asarray(self.ignore.read(self.plane, *self._box) != 0)

    def make_target(self, block: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the target of what `read` gave."""
        if not meaning_of(self.target).bands:
            return make_target(block, self.target)
        return make_target(block, self.target, unjudged=self.unjudged(), measured=True)

    def _goes_on(self, block: NDArray[Any], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """Mark the pixels beside a judged one of the same object, as the whole plane has them."""
        (y0, y1, x0, x1), array = box, self.labels
        top, bottom, left, right = near = inside(array, (y0 - 1, y1 + 1), (x0 - 1, x1 + 1))
        around = np.zeros((y1 - y0 + 2, x1 - x0 + 2), block.dtype)
        place = np.s_[top - y0 + 1 : bottom - y0 + 1, left - x0 + 1 : right - x0 + 1]
        judged = self.ignore is None or self.ignore.read(self.plane, *near) == 0
        around[place] = np.where(judged, array.read(self.plane, *near), 0)
        found = np.zeros(block.shape, np.bool_)
        for dy, dx in product(range(3), repeat=2):
            found |= around[dy : dy + block.shape[0], dx : dx + block.shape[1]] == block
        found &= block != 0
        return found

    @property
    def key(self) -> str:
        """Name the tile among those of its sample."""
        return f"{self.plane}/{self.tile.y0}/{self.tile.x0}"

    def read_ignore(self) -> NDArray[Any] | None:
        """Return the ignore mask of the tile itself."""
        if self.ignore is None:
            return None
        tile = self.tile
        return self.ignore.read(self.plane, tile.y0, tile.y1, tile.x0, tile.x1)


@dataclass(frozen=True)
class TileJobs:
    """The tiles of all labelled samples, made one at a time."""

    samples: Sequence[Sample]
    outputs: Sequence[PlaneArray]  # one a sample
    preset: Preset
    target: str
    presets: Sequence[Preset] = ()  # of each sample, where they differ

    @property
    def balanced(self) -> bool:
        """Whether the weights make use of w_c."""
        return self.target == "classes" or self.preset.background is None

    @property
    def total(self) -> int:
        """How many tiles there are."""
        return sum(
            output.planes * len(self._cover(output, preset))
            for output, preset in zip(self.outputs, self._presets, strict=True)
        )

    @property
    def _presets(self) -> Sequence[Preset]:
        return self.presets or [self.preset] * len(self.outputs)

    def tiles(self, balance: tuple[float, ...] = ()) -> Iterator[TileJob]:
        """Make one job after the other."""
        places = zip(self.samples, self.outputs, self._presets, strict=True)
        for sample, output, preset in places:
            for plane in range(output.planes):
                for tile in self._cover(output, preset):
                    yield TileJob(
                        labels=sample.labels(),
                        ignore=sample.ignore,
                        plane=plane,
                        tile=tile,
                        target=self.target,
                        preset=preset,
                        balance=balance,
                        output=output,
                    )

    def _cover(self, array: PlaneArray, preset: Preset) -> Cover:
        overlap = context_of(self.target, preset)
        return cover(array.height, array.width, tile=TILE, overlap=overlap)


def context_of(target: str, preset: Preset) -> int:
    """Return how many pixels around a tile decide about its weights."""
    return max(preset.halo, meaning_of(target).context)


def measure_tile(job: TileJob) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the ids in a tile, and the squared depth of each there at its deepest."""
    block, inner = job.read()
    depths = squared_depths(cut_gaps(block), unjudged=job.unjudged())[inner]
    tile = job.tile
    # Also of what nobody judged, which is listed like the others.
    own = job.labels.read(job.plane, tile.y0, tile.y1, tile.x0, tile.x1)
    ids, squared = deepest_of(own, depths)
    return ids[ids != 0], squared[ids != 0]


def survey_depths(
    labels: PlaneArray,
    ignore: PlaneArray | None,
    *,
    target: str,
    scheduler: str | Scheduler,
    advance: Callable[[], None] = lambda: None,
) -> PlaneArray:
    """Look through all labels once, to see them with how deep each object is at its deepest.

    `advance` is called after each tile.
    """
    found: list[list[tuple[NDArray[Any], NDArray[np.int64]]]] = [[] for _ in range(labels.planes)]

    def add(job: TileJob, depths: tuple[NDArray[Any], NDArray[np.int64]]) -> None:
        found[job.plane].append(depths)
        advance()

    jobs = (
        TileJob(labels=labels, ignore=ignore, plane=plane, tile=tile, target=target, preset=BARE)
        for plane, tile in product(range(labels.planes), _measured_in(labels, target))
    )
    run_jobs(measure_tile, jobs, scheduler=scheduler, on_done=add)
    return MeasuredLabels.of(labels, ObjectDepths.of(found))


def _measured_in(labels: PlaneArray, target: str) -> Cover:
    overlap = meaning_of(target).context
    return cover(labels.height, labels.width, tile=TILE, overlap=overlap)


def measured(
    samples: Sequence[Sample],
    target: str,
    *,
    scheduler: str | Scheduler,
    progress: Progress,
    advance: Callable[[], None] | None = None,
) -> tuple[Sample, ...]:
    """See the labels of samples so, where a target asks for that; `advance` is told of tiles."""
    if not meaning_of(target).bands:
        return tuple(samples)
    every = [sample.labels() for sample in samples]
    total = sum(labels.planes * len(_measured_in(labels, target)) for labels in every)
    progress.start("measuring objects", total=total)
    found = []
    for sample, labels in zip(samples, every, strict=True):
        seen = survey_depths(
            *(labels, sample.ignore),
            target=target,
            scheduler=scheduler,
            advance=advance or progress.advance,
        )
        told = {**sample.image.labels, "instances": seen}
        found.append(replace(sample, image=replace(sample.image, labels=told)))
    return tuple(found)


def count_tile(job: TileJob) -> NDArray[np.int64]:
    """Count the annotated pixels of each of 256 classes in a tile."""
    block, inner = job.read()
    target = job.make_target(block)[inner]
    ignore = job.read_ignore()
    annotated = target.ravel() if ignore is None else target[ignore == 0]
    return np.bincount(annotated, minlength=CLASSES).astype(np.int64)


def tile_weights(job: TileJob) -> NDArray[np.float32]:
    """Compute the weights of a tile's write box."""
    block, inner = job.read()
    if job.target == "classes":
        cells, target = None, make_target(block[inner], "classes")
    else:
        cells = cut_gaps(block)
        target = job.make_target(cells)
    found = weight_map(cells, target=target, class_weight=job.balance, preset=job.preset)
    if cells is not None:
        found = found[inner]
    ignore = job.read_ignore()
    if ignore is not None:
        found[ignore != 0] = 0
    return found


def weigh_tile(job: TileJob) -> int:
    """Write the weights of a tile, and return the checksum of what was written."""
    found = np.ascontiguousarray(tile_weights(job))
    if job.output is not None:
        write_tile(job.output, job.plane, job.tile, found)
    return zlib.crc32(found.data)


def stored_checksum(job: TileJob) -> int | None:
    """Return the checksum of what is stored of a tile; None where that can't be read."""
    tile = job.tile
    if job.output is None:
        return None
    try:
        stored = job.output.read(job.plane, tile.y0, tile.y1, tile.x0, tile.x1)
    except InputError:
        return None
    return zlib.crc32(stored.data)


@dataclass(frozen=True)
class Survey:
    """What there is in a tile."""

    ids: NDArray[Any]
    pairs: NDArray[Any]  # objects that touch, be it by a corner; shape (M, 2), the lower id first
    border: int  # pixels between objects, where the border term is a tenth of its height or more
    annotated: int  # pixels that somebody judged


def survey_tile(job: TileJob) -> Survey:
    """Look at the objects of a tile of instances, and at the borders between them."""
    block, (rows, columns) = job.read()
    # Pairs are sought one pixel beyond the tile, so that none is lost between two tiles.
    near = block[: rows.stop + 1, : columns.stop + 1][max(rows.start - 1, 0) :]
    near = near[:, max(columns.start - 1, 0) :]
    bare = replace(job.preset, background=None)
    cells = cut_gaps(block)
    none = np.zeros(cells.shape, np.uint8)
    term = weight_map(cells, target=none, class_weight=(0.0,), preset=bare)[rows, columns]
    ignore = job.read_ignore()
    judged = np.ones(term.shape, bool) if ignore is None else ignore == 0
    ids = np.unique(block[rows, columns])
    return Survey(
        ids=ids[ids != 0],
        pairs=neighbours(near),
        border=int(((term >= bare.w0 / 10) & judged).sum()) if bare.w0 else 0,
        annotated=int(judged.sum()),
    )
