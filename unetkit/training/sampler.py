"""Draw tiles with their surroundings, move and shade them, and stack them into batches.

Every draw is a function of (seed, step, index) alone, so the number of threads changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.appearance import apply_appearance, draw_appearance
from unetkit.arrays.boxes import Plane, gather
from unetkit.arrays.deformation import Deformation, deform, draw_deformation
from unetkit.errors import NonFiniteError, UsageError
from unetkit.geometry.tiles import mirror
from unetkit.training.distributed import SINGLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.sizes import SizeContract
    from unetkit.training.block_cache import BlockCache
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.recipes import Recipe
    from unetkit.training.split import Region


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How many annotated pixels of each class lie where in a sample."""

    # (N, 5): plane, first row, first column, past-the-last row and column; all of the sample.
    boxes: NDArray[np.int64]
    counts: NDArray[np.int64]  # (N, K), annotated pixels of each class

    @property
    def is_partial(self) -> bool:
        """Whether there are pixels that nobody annotated."""
        _, y0, x0, y1, x1 = self.boxes.T
        return bool(self.counts.sum() < ((y1 - y0) * (x1 - x0)).sum())

    def within(self, region: Region) -> ClassCounts:
        """Keep the boxes that meet a region, cut to it; counts stay those of the whole box."""
        boxes = self.boxes.copy()
        np.maximum(boxes[:, 1:3], (region.y0, region.x0), out=boxes[:, 1:3])
        np.minimum(boxes[:, 3:], (region.y1, region.x1), out=boxes[:, 3:])
        met = (boxes[:, 1] < boxes[:, 3]) & (boxes[:, 2] < boxes[:, 4])
        return ClassCounts(boxes[met], self.counts[met])


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """A labelled sample as training sees it."""

    image: Plane  # raw intensities, (C, Y, X)
    target: Plane  # the class of each pixel, uint8, (Y, X)
    weights: Plane  # of each pixel, float32, (Y, X); 0 where nobody annotated
    normalization: Normalization  # fitted on the whole image
    class_counts: ClassCounts
    background: int = 0  # the class that is not foreground
    replace_nonfinite: bool = False  # take NaN and Inf for 0

    @property
    def planes(self) -> int:
        """How many planes it has."""
        return int(self.class_counts.boxes[:, 0].max()) + 1


# How often a box is chosen anew where the part of it that may be drawn from lacks the class.
TRIES = 10


class TileLocations:
    """Chooses where tiles lie.

    Every class that is not background is sought equally often, and every sample that has it, so
    that a class of few pixels is met as often as one of many. The pixel that is found lies anywhere
    in the tile: a network that always saw it in the middle would learn to expect it there. `side`
    is that of what is learned from in a tile, in pixels.
    """

    def __init__(
        self,
        samples: Mapping[str, TrainingSample],
        regions: Sequence[Region],
        *,
        cache: BlockCache,
        side: int,
    ) -> None:
        self._samples = samples
        self._regions = regions
        self._cache = cache
        self._side = side
        self._counts = [samples[region.sample].class_counts.within(region) for region in regions]
        self._partial = [samples[region.sample].class_counts.is_partial for region in regions]
        sums = [one.counts.sum(axis=0) for one in self._counts]
        self._having = {
            k: [i for i, total in enumerate(sums) if k < len(total) and total[k]]
            for k in range(max(len(total) for total in sums))
            if k != samples[regions[0].sample].background
        }
        self._classes = [k for k, having in self._having.items() if having]

    def draw(self, rng: np.random.Generator, *, foreground: bool) -> tuple[Region, int, int, int]:
        """Choose a region, a plane, and the first row and column of what is learned from.

        With `foreground` the tile holds a pixel that is not background. Else it lies anywhere;
        where the sample is annotated in part, over a pixel that somebody annotated.
        """
        chosen = None
        if foreground and self._classes:
            wanted = self._classes[int(rng.integers(len(self._classes)))]
            having = self._having[wanted]
            number = having[int(rng.integers(len(having)))]
            chosen = self._pixel(rng, number, wanted)
        else:
            number = int(rng.integers(len(self._regions)))
            if self._partial[number]:
                chosen = self._pixel(rng, number, None)
        region = self._regions[number]
        if chosen is None:
            plane = int(rng.integers(self._samples[region.sample].planes))
            y = self._origin(rng, region.y0, region.y1)
            return region, plane, y, self._origin(rng, region.x0, region.x1)
        plane, row, column = chosen
        y = self._origin(rng, region.y0, region.y1, meet=row)
        return region, plane, y, self._origin(rng, region.x0, region.x1, meet=column)

    def _origin(
        self, rng: np.random.Generator, start: int, stop: int, *, meet: int | None = None
    ) -> int:
        """Place a tile inside the region, or the region inside of it, and over a given pixel."""
        last = stop - self._side
        least, most = min(start, last), max(start, last)
        if meet is not None:
            least, most = max(least, meet - self._side + 1), min(most, meet)
        return int(rng.integers(least, most + 1))

    def _pixel(
        self, rng: np.random.Generator, number: int, wanted: int | None
    ) -> tuple[int, int, int] | None:
        """Find an annotated pixel of a class, or of any, all of them with the same chance."""
        found, sample = self._counts[number], self._samples[self._regions[number].sample]
        shares = found.counts.sum(axis=1) if wanted is None else found.counts[:, wanted]
        if not shares.any():
            return None
        ends = np.cumsum(shares)
        for _ in range(TRIES):
            box = int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))
            plane, y0, x0, y1, x1 = (int(value) for value in found.boxes[box])
            rows, columns = (y0, y1), (x0, x1)
            fits = np.ones((y1 - y0, x1 - x0), bool)
            if wanted is not None:
                target = self._cache.read(sample.target, plane, rows=rows, columns=columns)
                fits &= target == wanted
            if self._partial[number]:
                weights = self._cache.read(sample.weights, plane, rows=rows, columns=columns)
                fits &= weights > 0
            places = np.flatnonzero(fits)
            if len(places):
                row, column = divmod(int(places[rng.integers(len(places))]), x1 - x0)
                return plane, y0 + row, x0 + column
        return None


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from."""

    images: NDArray[np.float32]  # (N, C, Y, X), normalized, with the context that the model needs
    targets: NDArray[np.int64]  # (N, Y', X'), classes inside the model's margin
    weights: NDArray[np.float32]  # (N, Y', X')
    samples: tuple[str, ...]  # where the tiles come from
    seed: int = 0  # of what the network draws in this step

    def parts(self, count: int) -> Iterator[Batch]:
        """Cut the batch into at most `count` parts of nearly the same number of tiles."""
        total = len(self.images)
        for own in np.array_split(np.arange(total), min(count, total)):
            cut = slice(own[0], own[-1] + 1)
            yield replace(
                self,
                images=self.images[cut],
                targets=self.targets[cut],
                weights=self.weights[cut],
                samples=self.samples[cut],
            )


# The version of how tiles are made: trainings that began by another one are told so.
TILES = 2

# Keeps the random numbers of draws apart from all others of the same seed.
DRAW = 2
NETWORK = 3
SIDE = 4


class Sampler:
    """Draws the tiles of a training; pixels outside of the regions get weight 0."""

    def __init__(
        self,
        samples: Mapping[str, TrainingSample],
        regions: Sequence[Region],
        *,
        contract: SizeContract,
        recipe: Recipe,
        cache: BlockCache,
        seed: int,
        group: ProcessGroup = SINGLE,
        new: frozenset[str] = frozenset(),
        share: float = 0.0,
    ) -> None:
        """Begin; each tile comes with the chance `share` from the `new` samples, where any are.

        Of a batch as nearly that share is new as whole tiles allow.
        """
        if group.size > recipe.batch:
            raise UsageError(
                f"batch must be at least {group.size} for as many processes, got {recipe.batch};"
                f" add --recipe-set batch={group.size}, or start fewer processes"
            )
        self._share = group.share(recipe.batch)
        self._samples = samples
        self._contract = contract
        self._recipe = recipe
        self._seed = seed
        self._cache = cache
        longest = max(max(region.height, region.width) for region in regions)
        self.size = contract.legal(min(recipe.tile, longest) + 2 * contract.need)
        """Pixels a side that the model reads."""
        self.output = contract.output(self.size)
        """Pixels a side that the model returns."""
        self.trusted = self.output - 2 * contract.halo
        """Pixels a side that are learned from: those that a prediction would use as well."""
        self._share_of_new = share
        sides = [[region for region in regions if (region.sample in new) == one] for one in (0, 1)]
        # The new ones last.
        self._locations = [
            TileLocations(samples, side, cache=cache, side=self.trusted) for side in sides if side
        ]

    @property
    def pixels_read(self) -> int:
        """Pixels that all processes together read in one step."""
        return self._recipe.batch * self.size**2

    @contextmanager
    def batches(self, *, workers: int, start: int = 0) -> Iterator[Iterator[Batch]]:
        """Hand out the batches from step `start` on, and draw the next ones meanwhile.

        The threads run beside the network, since the kernels need no lock; without workers a batch
        is drawn when it is asked for.
        """
        if workers == 0:
            yield map(self.batch, count(start))
            return
        pool = ThreadPoolExecutor(workers)

        def stream() -> Iterator[Batch]:
            steps = count(start)
            waiting = deque(pool.submit(self.batch, next(steps)) for _ in range(workers + 1))
            while True:
                ready = waiting.popleft().result()
                waiting.append(pool.submit(self.batch, next(steps)))
                yield ready

        try:
            yield stream()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """Draw this process's tiles of a step."""
        drawn = [self.draw(step, index) for index in self._share]
        rng = np.random.default_rng([self._seed, NETWORK, step])
        return Batch(
            images=np.stack([tile[0] for tile in drawn]),
            targets=np.stack([tile[1] for tile in drawn]).astype(np.int64),
            weights=np.stack([tile[2] for tile in drawn]),
            samples=tuple(tile[3] for tile in drawn),
            seed=int(rng.integers(2**48)),
        )

    def draw(
        self, step: int, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32], str]:
        """Draw one tile: image with context, target, weights, and the name of its sample."""
        rng = np.random.default_rng([self._seed, DRAW, step, index])
        foreground = rng.uniform() < self._recipe.foreground
        locations = self._locations[self._side(step, index)]
        region, plane, y, x = locations.draw(rng, foreground=foreground)
        need, margin = self._contract.need, self._contract.margin
        image, target, weights = self._read(region, plane, corner=(y - need, x - need))
        moved = deform(image, self._movement(rng), labels=target, weights=weights)
        shading = draw_appearance(rng, strength=self._recipe.grey)
        if moved.image is None or moved.labels is None or moved.weights is None:
            raise NonFiniteError(
                "a deformed tile must keep its image, target and weights, got none"
            )
        self._forget_context(moved.weights)
        inner = (slice(margin, margin + self.output),) * 2
        pixels = apply_appearance(moved.image, shading)
        return pixels, moved.labels[inner], moved.weights[inner], region.sample

    def _side(self, step: int, index: int) -> int:
        """Say which side a tile comes from.

        The tiles of a step are counted through in shares, from a place that is drawn: batch
        normalization then sees both sides in every step, as the network that predicts must.
        """
        if len(self._locations) == 1:
            return 0
        start = np.random.default_rng([self._seed, SIDE, step]).uniform()
        before, after = (start + self._share_of_new * n for n in (index, index + 1))
        return math.floor(after) - math.floor(before)

    def _read(
        self, region: Region, plane: int, *, corner: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
        """Read image, target and weights of what the model sees from `corner` on."""
        sample = self._samples[region.sample]
        rows = mirror(corner[0], corner[0] + self.size, sample.image.height)
        columns = mirror(corner[1], corner[1] + self.size, sample.image.width)

        def read(array: Plane) -> NDArray[Any]:
            return gather(
                lambda y0, y1, x0, x1: self._cache.read(
                    array, plane, rows=(y0, y1), columns=(x0, x1)
                ),
                rows,
                columns,
            )

        image = sample.normalization.apply(
            read(sample.image), replace_nonfinite=sample.replace_nonfinite
        )
        target = read(sample.target)
        weights = read(sample.weights).astype(np.float32)
        y, x = np.asarray(rows), np.asarray(columns)
        weights[(y < region.y0) | (y >= region.y1), :] = 0
        weights[:, (x < region.x0) | (x >= region.x1)] = 0
        return image, target, weights

    def _movement(self, rng: np.random.Generator) -> Deformation:
        """Draw flips and quarter turns always, the rest as often as the recipe says."""
        recipe = self._recipe
        elastic, turned = rng.uniform(size=2) < (recipe.elastic, recipe.rotated)
        return draw_deformation(
            rng,
            sigma=recipe.sigma if elastic else 0.0,
            rotation=180.0 if turned else 0.0,
            scale=recipe.scale if turned else 1.0,
            # The place is drawn already.
            shift=0.0,
            flips=recipe.flips,
        )

    def _forget_context(self, weights: NDArray[np.float32]) -> None:
        """Learn nothing from pixels that a prediction would not use either."""
        need = self._contract.need
        trusted = slice(need, need + self.trusted)
        inside = np.zeros(weights.shape, bool)
        inside[trusted, trusted] = True
        weights[~inside] = 0
