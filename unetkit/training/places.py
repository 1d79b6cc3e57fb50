"""Where tiles are drawn: over the image, or over pixels of the classes that there are few of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unetkit.training.blocks import BlockCache
    from unetkit.training.material import Material
    from unetkit.training.split import Region

# How often a box is chosen anew where the part of it that may be drawn from lacks the class.
TRIES = 10


class Places:
    """Chooses where tiles lie.

    Every class that is not background is sought equally often, and every sample that has it, so
    that a class of few pixels is met as often as one of many. The pixel that is found lies anywhere
    in the tile: a network that always saw it in the middle would learn to expect it there.

    Parameters
    ----------
    materials : mapping of str to Material
        The samples by name.
    regions : sequence of Region
        Where tiles may be drawn.
    cache : BlockCache
        Through which the samples are read.
    side : int
        Pixels a side of what is learned from in a tile.
    """

    def __init__(
        self,
        materials: Mapping[str, Material],
        regions: Sequence[Region],
        *,
        cache: BlockCache,
        side: int,
    ) -> None:
        self._materials = materials
        self._regions = regions
        self._cache = cache
        self._side = side
        self._tallies = [materials[region.sample].tally.within(region) for region in regions]
        self._partial = [materials[region.sample].tally.is_partial for region in regions]
        sums = [tally.counts.sum(axis=0) for tally in self._tallies]
        self._having = {
            k: [i for i, total in enumerate(sums) if k < len(total) and total[k]]
            for k in range(max(len(total) for total in sums))
            if k != materials[regions[0].sample].background
        }
        self._classes = [k for k, having in self._having.items() if having]

    def draw(self, rng: np.random.Generator, *, foreground: bool) -> tuple[Region, int, int, int]:
        """Choose a region, a plane, and the first row and column of what is learned from.

        Parameters
        ----------
        rng : Generator
            Where all choices come from.
        foreground : bool
            Whether the tile shall hold a pixel that is not background. Else it lies anywhere,
            where the sample is annotated in part with a pixel that somebody annotated.
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
            plane = int(rng.integers(self._materials[region.sample].target.planes))
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
        tally, material = self._tallies[number], self._materials[self._regions[number].sample]
        shares = tally.counts.sum(axis=1) if wanted is None else tally.counts[:, wanted]
        if not shares.any():
            return None
        ends = np.cumsum(shares)
        for _ in range(TRIES):
            box = int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))
            plane, y0, x0, y1, x1 = (int(value) for value in tally.boxes[box])
            rows, columns = (y0, y1), (x0, x1)
            found = np.ones((y1 - y0, x1 - x0), bool)
            if wanted is not None:
                target = self._cache.read(material.target, plane, rows=rows, columns=columns)
                found &= target == wanted
            if self._partial[number]:
                weights = self._cache.read(material.weights, plane, rows=rows, columns=columns)
                found &= weights > 0
            places = np.flatnonzero(found)
            if len(places):
                row, column = divmod(int(places[rng.integers(len(places))]), x1 - x0)
                return plane, y0 + row, x0 + column
        return None
