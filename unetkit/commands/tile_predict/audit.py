"""Windows across seams, predicted once more from scratch and compared with what is stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.boxes import read_tile
from unetkit.arrays.instances import object_class, object_probability
from unetkit.arrays.meanings import has_threshold, meaning_of
from unetkit.commands.tile_predict.averaging import ReadBox
from unetkit.commands.tile_predict.blocks import ImageTask, job_key, normalized
from unetkit.commands.tile_predict.precision import FLIPS
from unetkit.engine.jobs import run_jobs
from unetkit.errors import CheckError
from unetkit.geometry.tiles import Tile
from unetkit.models.inference import (
    check_finite,
    lowest_stored,
    stored,
    stored_and_classes,
    to_classes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from unetkit.commands.tile_predict.averaging import Averaging
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.engine.pools import Scheduler
    from unetkit.geometry.tiles import Cover

SEED = 0
# Side of a window in pixels: enough to hold objects, and little beside a tile.
SIDE = 256


@dataclass(frozen=True)
class AuditJob:
    """A window that is predicted once more."""

    task: ImageTask  # what all windows of an image share
    plane: int
    tile: Tile  # the window, and what is read for it
    averaging: Averaging
    left_out: tuple[Tile, ...]  # tiles about which the network was not asked

    def __str__(self) -> str:
        return (
            f"the window of {self.task.name}/{self.plane} at row {self.tile.y0}, "
            f"column {self.tile.x0}"
        )


def draw_windows(
    plan: Plan, tasks: Sequence[ImageTask], count: int, *, left_out: frozenset[str]
) -> Iterator[AuditJob]:
    """Draw windows that lie across the seams of tiles, always the same for the same plan.

    An image of one tile has no seams; its windows lie anywhere. `left_out` holds keys of tiles.
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


# `float32` promises logits this close to those of a pass over the whole image, as a share of the
# largest, at least of 1. Two tiles may differ by twice as much, and a probability changes by at
# most half of what its logits do, so that it is the limit for probabilities as well.
CLOSE = 1e-5
# A low precision that the user chose promises nothing, but rounding flips not one label in 100.
MANY_FLIPS = 1e-2


@dataclass(frozen=True)
class Compared:
    """What became of one window, or of several together."""

    pixels: int = 0
    largest_difference: float = 0.0  # between a stored probability and that of the second time
    differing: int = 0  # pixels at which it is more than rounding explains
    flipped: int = 0  # labels that are another the second time
    # Those of them where the second time the label won by more than rounding explains.
    flipped_clearly: int = 0

    def with_another(self, other: Compared) -> Compared:
        """Return what became of both."""
        return Compared(
            self.pixels + other.pixels,
            max(self.largest_difference, other.largest_difference),
            self.differing + other.differing,
            self.flipped + other.flipped,
            self.flipped_clearly + other.flipped_clearly,
        )


def audit_window(job: AuditJob) -> Compared:
    """Predict a window again and compare it with what is stored.

    A low precision is compared with float32, since it is what that leaves of the labels that
    counts.
    """
    task, tile = job.task, job.tile
    largest = [1.0]

    def on_logits(logits: torch.Tensor, at: Tile) -> None:
        check_finite(logits, at)
        largest.append(float(logits.abs().max()))

    inference = replace(task.inference, averaging=job.averaging)
    if inference.precision != "exact":
        inference = replace(inference, precision="float32")
    blocks = normalized(task, read_tile(task.data, job.plane, tile))
    shape = (task.data.height, task.data.width)
    predictor = replace(inference.predictor(), on_logits=on_logits)
    (again,) = predictor.probabilities([ReadBox(blocks, tile, shape)])
    kind = task.probabilities.dtype
    _, classes = stored_and_classes(again, kind, threshold=task.threshold, target=task.target)
    box = (job.plane, tile.y0, tile.y1, tile.x0, tile.x1)
    asked = np.ones(classes.shape, bool)
    for empty in job.left_out:
        asked[_within(empty, tile)] = False
    if task.mask is not None:
        asked &= task.mask.near(job.plane, tile)
    # A GPU promises the same bits for tiles of the same size only, and a window is smaller.
    exact = inference.precision == "exact" and inference.device == "cpu"
    tolerance = 0.0 if exact else CLOSE * max(largest)
    gap = _gap(task.probabilities.read(*box), again, exact=exact) * asked
    flipped = (task.classes.read(*box) != classes) & asked
    lead = _lead(again, kind, threshold=task.threshold, target=task.target)
    return Compared(
        pixels=int(asked.sum()),
        largest_difference=float(gap.max(initial=0)),
        differing=int((gap > tolerance).sum()),
        flipped=int(flipped.sum()),
        flipped_clearly=int((flipped & (lead >= 2 * tolerance)).sum()),
    )


def _gap(there: NDArray[Any], again: NDArray[np.float32], *, exact: bool) -> NDArray[np.float64]:
    """Return the largest difference of probabilities at each pixel, less what storing rounds."""
    if there.dtype != np.uint8:
        gap = np.abs(there - again).max(axis=0)
    elif exact:
        gap = np.abs(there - stored(again, there.dtype).astype(float)).max(axis=0) / 255
    else:
        gap = np.maximum(np.abs(there / 255 - again).max(axis=0) - 0.5 / 255, 0)
    return np.asarray(gap, np.float64)


def _lead(
    probabilities: NDArray[np.float32], kind: np.dtype[Any], *, threshold: float, target: str
) -> NDArray[np.float32]:
    """Return by how much the class of each pixel wins; `kind` is the type of stored ones."""
    first, several = object_class(target), meaning_of(target).several
    has_edge = has_threshold(target, classes=len(probabilities))
    if not has_edge and not several:
        return _first_lead(probabilities)
    inside = object_probability(probabilities, target)
    if has_edge:
        # What is stored as uint8 is rounded before it is decided about.
        lowest = lowest_stored(threshold, kind)
        edge = (lowest - 0.5) / 255 if kind == np.uint8 else lowest
        lead = np.asarray(np.abs(inside - np.float32(edge)))
    else:
        lead = _first_lead(np.concatenate([probabilities[:first], inside[None]]))
    if not several or len(probabilities) == first + 1:
        return lead
    own = _first_lead(probabilities[first:])
    if has_edge and kind == np.uint8:
        # Both may be rounded the other way.
        own = np.maximum(own - np.float32(1 / 255), 0)
    classes = to_classes(probabilities, threshold=threshold, target=target)
    return np.where(classes >= first, np.minimum(lead, own), lead)


def _first_lead(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by how much the highest is above the second at each pixel."""
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(first - second)


def _within(empty: Tile, tile: Tile) -> tuple[slice, slice]:
    return (
        slice(max(0, empty.y0 - tile.y0), max(0, empty.y1 - tile.y0)),
        slice(max(0, empty.x0 - tile.x0), max(0, empty.x1 - tile.x0)),
    )


def audit(
    plan: Plan,
    tasks: Sequence[ImageTask],
    *,
    left_out: frozenset[str],
    scheduler: Scheduler,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Compare windows across seams with what is stored, and tell what was found.

    CheckError if it is more than the precision allows; `advance` is called after each window.
    """
    found, worst = Compared(), ""

    def add(job: AuditJob, result: Compared) -> None:
        nonlocal found, worst
        if (result.differing, result.flipped) > (0, 0) and not worst:
            worst = str(job)
        found = found.with_another(result)
        advance()

    count = plan.options.audit
    jobs = draw_windows(plan, tasks, count, left_out=left_out)
    run_jobs(audit_window, jobs, scheduler=scheduler, on_done=add)
    flips_allowed = _flips_allowed(plan)
    if flips_allowed is not None:
        _judge(found, flips_allowed, worst=worst)
    return {
        "windows": count,
        "seed": SEED,
        "compared_in": "exact" if plan.precision == "exact" else "float32",
        "flips_allowed": flips_allowed,
        **asdict(found),
    }


def _flips_allowed(plan: Plan) -> float | None:
    """Return the share of labels that may be others the second time; None for any."""
    if plan.averaging.merge == "crop" and not plan.model.header.contract.exact:
        # Such a model sees the whole tile, and promises nothing about another one.
        return None
    if plan.precision in ("exact", "float32"):
        return 0.0
    return FLIPS if plan.options.precision == "auto" else MANY_FLIPS


def _judge(found: Compared, flips_allowed: float, *, worst: str) -> None:
    if flips_allowed:
        expected = flips_allowed * found.pixels
        # Windows are few: a share that holds for the image may be passed by chance in them, but
        # hardly by four standard deviations of such a count.
        holds = found.flipped <= expected + 4 * expected**0.5
    else:
        holds = not found.differing and not found.flipped_clearly
    if holds:
        return
    raise CheckError(
        f"stored pixels must be what the network says again, got {found.flipped} other labels and "
        f"probabilities that differ by up to {found.largest_difference:.3g} at {found.pixels} "
        f"pixels, first in {worst}; nothing is published, --overwrite starts afresh"
    )
