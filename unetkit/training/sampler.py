"""Draw tiles with their surroundings, move and shade them, and stack them into batches.

Every draw is a function of (seed, step, index) alone, so the number of threads changes nothing.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.appearance import apply_appearance, draw_appearance
from unetkit.arrays.boxes import gather
from unetkit.arrays.deformation import Deformation, deform, draw_deformation
from unetkit.errors import NumbersError, UsageError
from unetkit.geometry.tiles import mirror
from unetkit.training.batch import Batch
from unetkit.training.parallel import ALONE
from unetkit.training.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.geometry.sizes import SizeContract
    from unetkit.training.blocks import BlockCache, Planes
    from unetkit.training.material import Material
    from unetkit.training.parallel import Group
    from unetkit.training.recipes import Recipe
    from unetkit.training.split import Region

# Keeps the random numbers of draws apart from all others of the same seed.
DRAW = 2
NETWORK = 3


class Sampler:
    """Draws the tiles of a training.

    Parameters
    ----------
    materials : mapping of str to Material
        The samples by name.
    regions : sequence of Region
        Where tiles may be drawn; pixels outside of them get weight 0.
    contract : SizeContract
        The model's.
    recipe : Recipe
        How tiles are drawn and changed.
    cache : BlockCache
        Through which the samples are read.
    seed : int
        Where all random numbers come from.
    group : Group
        Who else draws; each draws its share of every batch.

    Raises
    ------
    UsageError
        If a batch has fewer tiles than there are processes.
    """

    def __init__(
        self,
        materials: Mapping[str, Material],
        regions: Sequence[Region],
        *,
        contract: SizeContract,
        recipe: Recipe,
        cache: BlockCache,
        seed: int,
        group: Group = ALONE,
    ) -> None:
        if group.size > recipe.batch:
            raise UsageError(
                f"batch must be at least {group.size} for as many processes, got {recipe.batch};"
                f" add --recipe-set batch={group.size}, or start fewer processes"
            )
        self._share = group.share(recipe.batch)
        self._materials = materials
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
        self._places = Places(materials, regions, cache=cache, side=self.trusted)

    @property
    def pixels_read(self) -> int:
        """Pixels that all processes together read in one step."""
        return self._recipe.batch * self.size**2

    @contextmanager
    def batches(self, *, workers: int, start: int = 0) -> Iterator[Iterator[Batch]]:
        """Hand out the batches of step `start` and all after it, and draw the next ones meanwhile.

        Parameters
        ----------
        workers : int
            Threads that draw; they run beside the network, since the kernels need no lock. With
            0 a batch is drawn when it is asked for.
        start : int
            The first step, counted from 0.
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
        region, plane, y, x = self._places.draw(rng, foreground=foreground)
        need, margin = self._contract.need, self._contract.margin
        image, target, weights = self._read(region, plane, corner=(y - need, x - need))
        moved = deform(
            image,
            self._movement(rng),
            labels=target,
            weights=weights,
            ignore=(weights == 0).astype(np.uint8),
        )
        shading = draw_appearance(rng, strength=self._recipe.grey)
        if moved.image is None or moved.labels is None or moved.weights is None:
            raise NumbersError("a deformed tile must keep its image, target and weights, got none")
        # Labels move to the nearest pixel, and weights between pixels: beside a label that does
        # not count, one that does would lend it a part of its weight.
        weights = np.where(moved.ignore == 0, moved.weights, np.float32(0))
        self._forget_context(weights)
        inner = (slice(margin, margin + self.output),) * 2
        pixels = apply_appearance(moved.image, shading)
        return pixels, moved.labels[inner], weights[inner], region.sample

    def _read(
        self, region: Region, plane: int, *, corner: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
        """Read image, target and weights of what the model sees from `corner` on."""
        material = self._materials[region.sample]
        rows = mirror(corner[0], corner[0] + self.size, material.image.height)
        columns = mirror(corner[1], corner[1] + self.size, material.image.width)

        def read(array: Planes) -> NDArray[Any]:
            return gather(
                lambda y0, y1, x0, x1: self._cache.read(
                    array, plane, rows=(y0, y1), columns=(x0, x1)
                ),
                rows,
                columns,
            )

        image = material.normalization.apply(read(material.image), fill=material.fill)
        target = read(material.target)
        weights = read(material.weights).astype(np.float32)
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
