"""From a stored class map to stored instances, block by block, with the same ids for any blocks.

Three stages: each block numbers its own objects; what touches across block faces becomes one
object, and objects are numbered in t, z, y, x order; each block writes its final ids, grown.
Where a watershed parts objects, blocks are flooded before that until their floods agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from unetkit.arrays.boxes import inside
from unetkit.arrays.components import components
from unetkit.arrays.instances import (
    BlockSummary,
    elevation,
    foreground_of,
    grow,
    growth_of,
    merge_across_blocks,
    object_class,
    summarize,
)
from unetkit.arrays.meanings import meaning_of
from unetkit.arrays.watershed import FloodExchange, arrivals, heights_and_seeds, watershed
from unetkit.engine.block_io import write_tile
from unetkit.engine.jobs import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from unetkit.arrays.instances import LabelMapping
    from unetkit.arrays.watershed import Side
    from unetkit.commands.tile_predict.output import NewLabels
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.geometry.tiles import Cover, Tile
    from unetkit.storage.planes import PlaneArray


class Provisional(Protocol):
    """Where the ids that each block gives by itself are kept, as an image (C, Y, X)."""

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box of a plane."""

    def write(self, plane: int, y0: int, x0: int, block: NDArray[Any]) -> None:
        """Keep a block."""


class InMemory:
    """Provisional ids of an image that is one block."""

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box of the one plane."""
        return self._block[:, y0:y1, x0:x1]

    def write(self, plane: int, y0: int, x0: int, block: NDArray[Any]) -> None:
        """Keep the one block."""
        self._block = block


@dataclass(frozen=True)
class LabelJob:
    """One block whose objects are to be found."""

    classes: PlaneArray  # is read
    provisional: Provisional  # is written
    target: str
    plane: int
    block: Tile
    mask: Mask | None = None  # objects that do not touch it are not wanted

    @property
    def place(self) -> tuple[int, int]:
        """The plane, and the block's place in it."""
        return self.plane, self.block.index

    @property
    def box(self) -> tuple[int, int, int, int, int]:
        """What is read of an array."""
        block = self.block
        return self.plane, block.y0, block.y1, block.x0, block.x1

    def foreground(self) -> NDArray[np.bool_]:
        """Read which pixels are objects."""
        return foreground_of(self.classes.read(*self.box), self.target)

    def summary(self, labels: NDArray[Any], count: int, **told: Any) -> BlockSummary:
        """Report what the neighbours must know of labels of the block."""
        y0, x0 = self.block.y0, self.block.x0
        height, width = self.classes.height, self.classes.width
        start = self.plane * height * width
        return summarize(labels, count, y0=y0, x0=x0, width=width, start=start, **told)

    def store(self, labels: NDArray[Any], count: int, **told: Any) -> BlockSummary:
        """Write the block's own ids, and report what its neighbours must know of them."""
        self.provisional.write(self.plane, self.block.y0, self.block.x0, labels[np.newaxis])
        where = None if self.mask is None else self.mask.inside(*self.box)
        return self.summary(labels, count, where=where, **told)


def label_block(job: LabelJob) -> BlockSummary:
    """Find a block's own objects: what touches is one."""
    return job.store(*components(job.foreground()))


@dataclass(frozen=True)
class Separation:
    """Where the heights and the seeds of a watershed come from."""

    probabilities: PlaneArray  # is read
    seed_level: float  # seeds are at least so high
    seed_size: int  # and have at least so many pixels


@dataclass(frozen=True)
class FloodJob:
    """One block whose objects a watershed parts."""

    job: LabelJob
    separation: Separation
    # Which of the block's seeds are large enough; None where all are.
    sown: NDArray[np.bool_] | None = None
    around: Mapping[Side, NDArray[np.int64]] = field(default_factory=dict)  # as for `watershed`

    @property
    def place(self) -> tuple[int, int]:
        """The plane, and the block's place in it."""
        return self.job.place

    def inputs(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
        """Read heights, objects and seeds, as a watershed takes them."""
        mask = self.job.foreground()
        found = self.separation.probabilities.read(*self.job.box)
        height = elevation(found, self.job.target)
        heights, seeds = heights_and_seeds(height, self.separation.seed_level)
        seeds &= mask
        return heights, mask, seeds if self.sown is None else self.sown[components(seeds)[0]]


def find_seeds(job: FloodJob) -> BlockSummary:
    """Report a block's seeds of any size; nothing is written."""
    return job.job.summary(*components(job.inputs()[2]))


def flood_block(job: FloodJob) -> dict[Side, NDArray[np.int64]]:
    """Report when floods arrive along a block's faces; nothing is written."""
    return arrivals(*job.inputs(), around=job.around)


def part_block(job: FloodJob) -> BlockSummary:
    """Find a block's own objects: what belongs to one seed is one."""
    basins = watershed(*job.inputs(), around=job.around)
    return job.job.store(basins.labels, basins.count, flooded_faces=basins.flooded_faces)


@dataclass(frozen=True)
class Objects:
    """What all blocks of an image share when they are numbered."""

    classes: PlaneArray
    provisional: Provisional
    instances: PlaneArray  # is written, the others are read
    target: str
    grow: int  # how far objects grow, in pixels
    # Where objects have classes: is read, one channel a class from this one on.
    probabilities: PlaneArray | None = None
    first: int = 0


@dataclass(frozen=True)
class NumberJob:
    """One block whose objects get their final ids."""

    objects: Objects
    plane: int
    block: Tile
    # For each block within reach, this one included, the final ids of its own ones.
    lookups: Mapping[Tile, NDArray[Any]]
    # The same of what they grow by, where objects that are not wanted hold their ground.
    ranks: Mapping[Tile, NDArray[Any]] | None = None

    def final(self, grown: NDArray[Any]) -> NDArray[Any]:
        """Turn what objects grew by into final ids."""
        if self.ranks is None:
            return grown
        ranks, first = np.unique(np.concatenate(list(self.ranks.values())), return_index=True)
        ids = np.concatenate([self.lookups[near] for near in self.ranks])[first]
        return ids[np.searchsorted(ranks, grown)]


def number_block(job: NumberJob) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Give a block's objects their final ids and grow them, with those of its neighbours.

    Where they have classes, return ids and what each class has of them in the block.
    """
    objects, block = job.objects, job.block
    box = (block.y0, block.y1), (block.x0, block.x1)
    y0, y1, x0, x1 = inside(objects.classes, *box, reach=objects.grow)
    numbers = job.lookups if job.ranks is None else job.ranks
    labels = np.zeros((y1 - y0, x1 - x0), next(iter(numbers.values())).dtype)
    for source, lookup in numbers.items():
        top, bottom = max(y0, source.y0), min(y1, source.y1)
        left, right = max(x0, source.x0), min(x1, source.x1)
        own = objects.provisional.read(job.plane, top, bottom, left, right)[0]
        labels[top - y0 : bottom - y0, left - x0 : right - x0] = lookup[own]
    classes = objects.classes.read(job.plane, y0, y1, x0, x1)
    grown = grow(labels, distance=objects.grow, within=growth_of(classes, objects.target))
    inner = job.final(grown[block.y0 - y0 : block.y1 - y0, block.x0 - x0 : block.x1 - x0])
    write_tile(objects.instances, job.plane, block, inner)
    if objects.probabilities is None:
        return None
    own = objects.probabilities.read(job.plane, block.y0, block.y1, block.x0, block.x1)
    return class_sums(inner, own[objects.first :])


def class_sums(
    labels: NDArray[Any], probabilities: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Add up the probability of each class over the pixels of each object, in 255ths.

    Whole numbers give the same sums in whichever blocks.
    """
    if probabilities.dtype != np.uint8:
        probabilities = np.rint(probabilities * 255).astype(np.uint8)
    inside = labels != 0
    ids, place = np.unique(labels[inside], return_inverse=True)
    sums = [np.bincount(place, one[inside], minlength=len(ids)) for one in probabilities]
    return ids, np.stack(sums, axis=1).astype(np.int64)


def stages(blocks: Cover, separation: Separation | None) -> int:
    """Say how often `number_objects` goes through the blocks of a plane."""
    if separation is None:
        return 2
    return 2 + (separation.seed_size > 1) + (len(blocks) > 1)


@dataclass(frozen=True)
class Labelling:
    """The blocks of an image whose objects are being found."""

    classes: PlaneArray
    provisional: Provisional
    blocks: Cover
    target: str
    scheduler: Scheduler | None
    advance: Callable[..., None]
    mask: Mask | None = None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Planes, rows of blocks, blocks in a row."""
        return self.classes.planes, self.blocks.rows, self.blocks.columns

    def components(self) -> list[BlockSummary]:
        """Take what touches for one object."""
        return list(self._run(label_block, self._job, self._all).values())

    def basins(self, separation: Separation) -> list[BlockSummary]:
        """Part objects by a watershed; blocks are done again until their floods agree."""
        job = self._flood_jobs(separation)
        exchange = FloodExchange(self.grid)
        if len(self.blocks) > 1:
            exchange.update(self._run(flood_block, job, self._all))
        summaries: dict[int, BlockSummary] = {}
        left: Iterable[int] = self._all
        while left:
            found = self._run(
                part_block,
                lambda number: replace(job(number), around=exchange.around(number)),
                left,
                again=bool(summaries),
            )
            summaries |= found
            exchange.update(
                {
                    number: {side: face.arrival for side, face in (one.flooded_faces or {}).items()}
                    for number, one in found.items()
                }
            )
            left = exchange.outdated
        return [summaries[number] for number in self._all]

    @property
    def _all(self) -> range:
        return range(self.classes.planes * len(self.blocks))

    def _job(self, number: int) -> LabelJob:
        plane, index = divmod(number, len(self.blocks))
        block = self.blocks[index]
        return LabelJob(self.classes, self.provisional, self.target, plane, block, self.mask)

    def _flood_jobs(self, separation: Separation) -> Callable[[int], FloodJob]:
        """Return what makes the job of a block, with those of its seeds that are large enough."""

        def bare(number: int) -> FloodJob:
            return FloodJob(self._job(number), separation)

        if separation.seed_size <= 1:
            return bare
        seeds = merge_across_blocks(
            list(self._run(find_seeds, bare, self._all).values()),
            grid=self.grid,
            min_size=separation.seed_size,
        )
        return lambda number: replace(bare(number), sown=seeds.lookup(number) > 0)

    def _run(
        self,
        function: Callable[[Any], Any],
        job: Callable[[int], Any],
        numbers: Iterable[int],
        *,
        again: bool = False,
    ) -> dict[int, Any]:
        """Run a function on the jobs of blocks; give what it returns, in the order of numbers."""
        found: dict[int, Any] = {}

        def keep(job: LabelJob | FloodJob, result: Any) -> None:
            plane, index = job.place
            found[plane * len(self.blocks) + index] = result
            # What is done again was counted before.
            self.advance(*[0] * again)

        run_jobs(function, map(job, numbers), scheduler=self.scheduler, on_done=keep)
        return dict(sorted(found.items()))


def number_objects(
    classes: PlaneArray,
    provisional: Provisional,
    *,
    create: Callable[[np.dtype[Any]], PlaneArray],
    blocks: Cover,
    target: str,
    grow: int,
    min_size: int,
    scheduler: Scheduler | None,
    advance: Callable[..., None],
    mask: Mask | None = None,
    separation: Separation | None = None,
    probabilities: PlaneArray | None = None,
) -> NumberedObjects:
    """Find, number and grow the objects of an image of any size.

    `provisional` takes each block's own ids and is of no use afterwards; `create` makes the array
    for the instances once their type is known. Objects of fewer than `min_size` pixels, before
    they grow, are left out, and those that do not touch the `mask`. `advance` is called `stages`
    times a block, and with 0 for what is done again. An object whose target has several classes of
    them is of the one with the highest sum of its `probabilities`, of equal ones the first.
    """
    found = Labelling(classes, provisional, blocks, target, scheduler, advance, mask)
    summaries = found.components() if separation is None else found.basins(separation)
    joined = merge_across_blocks(summaries, grid=found.grid, min_size=min_size)
    first = object_class(target)
    classed = probabilities if meaning_of(target).classed else None
    objects = Objects(classes, provisional, create(joined.ids.dtype), target, grow, classed, first)
    count = 0 if classed is None else classed.channel_count - first
    sums = np.zeros((joined.count + 1, count), np.int64)

    def add(_: NumberJob, found: tuple[NDArray[Any], NDArray[np.int64]] | None) -> None:
        if found is not None:
            sums[found[0]] += found[1]
        advance()

    jobs = _number_jobs(objects, blocks, joined)
    run_jobs(number_block, jobs, scheduler=scheduler, on_done=add)
    return NumberedObjects(joined.count, None if classed is None else sums[1:].argmax(axis=1) + 1)


@dataclass(frozen=True, eq=False)
class NumberedObjects:
    """The objects of an image: 1 to `count`."""

    count: int
    classes: NDArray[np.int64] | None  # shape (count,), from 1 up, where the target has classes


@dataclass(frozen=True)
class ImageObjects:
    """An image whose objects are to be found; as `number_objects` takes it."""

    number: int
    classes: PlaneArray
    instances: NewLabels
    blocks: Cover
    target: str
    grow: int
    min_size: int
    mask: Mask | None
    separation: Separation | None
    probabilities: PlaneArray

    def __str__(self) -> str:
        return f"objects of {self.classes.url}"

    @property
    def is_small(self) -> bool:
        """Whether it is one block, so that one job does it all, beside those of other images."""
        return self.classes.planes * len(self.blocks) == 1

    @property
    def parts(self) -> int:
        """How often `find` advances."""
        return stages(self.blocks, self.separation) * len(self.blocks) * self.classes.planes

    def find(
        self,
        provisional: Provisional,
        *,
        scheduler: Scheduler | None,
        advance: Callable[..., None],
    ) -> NumberedObjects:
        """Find, number and grow them."""
        return number_objects(
            self.classes,
            provisional,
            create=self.instances.create,
            blocks=self.blocks,
            target=self.target,
            grow=self.grow,
            min_size=self.min_size,
            scheduler=scheduler,
            advance=advance,
            mask=self.mask,
            separation=self.separation,
            probabilities=self.probabilities,
        )


def number_small(image: ImageObjects) -> NumberedObjects:
    """Do a small image in one go; nothing provisional is stored."""
    return image.find(InMemory(), scheduler=None, advance=lambda *_: None)


def _number_jobs(objects: Objects, blocks: Cover, joined: LabelMapping) -> Iterator[NumberJob]:
    for plane in range(objects.classes.planes):
        for block in blocks:
            near = {
                other: plane * len(blocks) + other.index
                for other in _within_reach(blocks, block, reach=objects.grow)
            }
            lookups = {other: joined.lookup(number) for other, number in near.items()}
            found = {other: joined.ranks_of(number) for other, number in near.items()}
            ranks = {other: ranks for other, ranks in found.items() if ranks is not None}
            yield NumberJob(objects, plane, block, lookups, ranks or None)


def _within_reach(blocks: Cover, block: Tile, *, reach: int) -> list[Tile]:
    """List the blocks that have a pixel within `reach` of a block, itself included."""
    side = blocks.tile
    bottom = min(blocks.height, block.y1 + reach) - 1
    right = min(blocks.width, block.x1 + reach) - 1
    rows = range(max(0, block.y0 - reach) // side, bottom // side + 1)
    columns = range(max(0, block.x0 - reach) // side, right // side + 1)
    return [blocks[row * blocks.columns + column] for row in rows for column in columns]
