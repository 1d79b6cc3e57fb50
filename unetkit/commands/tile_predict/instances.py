"""From a stored class map to stored instances, block by block, with the same ids for any blocks.

Three stages: each block numbers its own objects; what touches across block faces becomes one
object, and objects are numbered in t, z, y, x order; each block writes its final ids, grown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.boxes import inside
from unetkit.arrays.instances import (
    BlockSummary,
    components,
    foreground_of,
    grow,
    growth_of,
    merge_across_blocks,
    summarize,
)
from unetkit.engine.block_io import write_tile
from unetkit.engine.jobs import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from unetkit.arrays.instances import LabelMapping
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.geometry.tiles import Cover, Tile
    from unetkit.storage.planes import PlaneArray


@dataclass(frozen=True)
class LabelJob:
    """One block whose objects are to be found."""

    classes: PlaneArray  # is read
    provisional: PlaneArray  # is written
    target: str
    plane: int
    block: Tile
    mask: Mask | None = None  # objects that do not touch it are not wanted


def label_block(job: LabelJob) -> BlockSummary:
    """Find a block's own objects, and report what its neighbours must know of them."""
    block = job.block
    classes = job.classes.read(job.plane, block.y0, block.y1, block.x0, block.x1)
    labels, count = components(foreground_of(classes, job.target))
    write_tile(job.provisional, job.plane, block, labels[np.newaxis])
    where = None
    if job.mask is not None:
        where = job.mask.inside(job.plane, block.y0, block.y1, block.x0, block.x1)
    height, width = job.classes.height, job.classes.width
    return summarize(
        labels,
        count,
        y0=block.y0,
        x0=block.x0,
        width=width,
        start=job.plane * height * width,
        where=where,
    )


@dataclass(frozen=True)
class Objects:
    """What all blocks of an image share when they are numbered."""

    classes: PlaneArray
    provisional: PlaneArray
    instances: PlaneArray  # is written, the others are read
    target: str
    grow: int  # how far objects grow, in pixels


@dataclass(frozen=True)
class NumberJob:
    """One block whose objects get their final ids."""

    objects: Objects
    plane: int
    block: Tile
    # For each block within reach, this one included, the final ids of its own ones.
    lookups: Mapping[Tile, NDArray[Any]]


def number_block(job: NumberJob) -> None:
    """Give a block's objects their final ids and grow them, with those of its neighbours."""
    objects, block = job.objects, job.block
    box = (block.y0, block.y1), (block.x0, block.x1)
    y0, y1, x0, x1 = inside(objects.classes, *box, reach=objects.grow)
    labels = np.zeros((y1 - y0, x1 - x0), objects.instances.dtype)
    for source, lookup in job.lookups.items():
        top, bottom = max(y0, source.y0), min(y1, source.y1)
        left, right = max(x0, source.x0), min(x1, source.x1)
        own = objects.provisional.read(job.plane, top, bottom, left, right)[0]
        labels[top - y0 : bottom - y0, left - x0 : right - x0] = lookup[own]
    classes = objects.classes.read(job.plane, y0, y1, x0, x1)
    grown = grow(labels, distance=objects.grow, within=growth_of(classes, objects.target))
    inner = grown[block.y0 - y0 : block.y1 - y0, block.x0 - x0 : block.x1 - x0]
    write_tile(objects.instances, job.plane, block, inner)


def number_objects(
    classes: PlaneArray,
    provisional: PlaneArray,
    *,
    create: Callable[[np.dtype[Any]], PlaneArray],
    blocks: Cover,
    target: str,
    grow: int,
    min_size: int,
    scheduler: Scheduler,
    advance: Callable[[], None],
    mask: Mask | None = None,
) -> int:
    """Find, number and grow the objects of an image of any size; return how many there are.

    `provisional` takes each block's own ids and is of no use afterwards; `create` makes the array
    for the instances once their type is known. Objects of fewer than `min_size` pixels, before
    they grow, are left out, and those that do not touch the `mask`. `advance` is called twice a
    block.
    """
    summaries: dict[tuple[int, int], BlockSummary] = {}

    def keep(job: LabelJob, summary: BlockSummary) -> None:
        summaries[job.plane, job.block.index] = summary
        advance()

    labelled = (
        LabelJob(classes, provisional, target, plane, block, mask)
        for plane in range(classes.planes)
        for block in blocks
    )
    run_jobs(label_block, labelled, scheduler=scheduler, on_done=keep)
    joined = merge_across_blocks(
        [summaries[place] for place in sorted(summaries)],
        grid=(classes.planes, blocks.rows, blocks.columns),
        min_size=min_size,
    )
    objects = Objects(classes, provisional, create(joined.ids.dtype), target, grow)
    run_jobs(
        number_block,
        _number_jobs(objects, blocks, joined),
        scheduler=scheduler,
        on_done=lambda *_: advance(),
    )
    return joined.count


def _number_jobs(objects: Objects, blocks: Cover, joined: LabelMapping) -> Iterator[NumberJob]:
    for plane in range(objects.classes.planes):
        for block in blocks:
            lookups = {
                near: joined.lookup(plane * len(blocks) + near.index)
                for near in _within_reach(blocks, block, reach=objects.grow)
            }
            yield NumberJob(objects, plane, block, lookups)


def _within_reach(blocks: Cover, block: Tile, *, reach: int) -> list[Tile]:
    """List the blocks that have a pixel within `reach` of a block, itself included."""
    side = blocks.tile
    bottom = min(blocks.height, block.y1 + reach) - 1
    right = min(blocks.width, block.x1 + reach) - 1
    rows = range(max(0, block.y0 - reach) // side, bottom // side + 1)
    columns = range(max(0, block.x0 - reach) // side, right // side + 1)
    return [blocks[row * blocks.columns + column] for row in rows for column in columns]
