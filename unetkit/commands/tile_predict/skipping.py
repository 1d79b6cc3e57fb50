"""Tiles that are left out: too dark to hold anything, or outside a coarse mask."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unetkit.engine.array_planes import planes_of
from unetkit.engine.regions import drawn_regions
from unetkit.errors import InputError, UsageError
from unetkit.geometry.sizes import are_proportional
from unetkit.progress import warn
from unetkit.storage.annotations import SUFFIXES
from unetkit.storage.atomic import is_stored
from unetkit.storage.images import open_image
from unetkit.storage.readers import open_file
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    from unetkit.engine.regions import Regions
    from unetkit.geometry.tiles import Tile
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.planes import PlaneArray


# Objects that touch a mask are followed so far beyond it, in pixels: our choice, wider than cells.
# It does not depend on the tile, so that the result does not.
REACH = 256
# How much of a mask is read at once along a side, when its pixels are counted.
BAND = 2048


@dataclass(frozen=True, eq=False)
class DrawnMask:
    """Outlines over an image, read as planes that are 1 in any of them."""

    regions: Regions

    @property
    def url(self) -> str:
        """The file that they were read from."""
        return self.regions.url

    @property
    def planes(self) -> int:
        """Those of the image."""
        return self.regions.image.planes

    @property
    def height(self) -> int:
        """Pixels of the image."""
        return self.regions.image.height

    @property
    def width(self) -> int:
        """Pixels of the image."""
        return self.regions.image.width

    def with_absolute_url(self) -> DrawnMask:
        """Return the same: workers are sent what was drawn."""
        return self

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_]:
        """Paint a box of a plane, as an array (1, Y, X)."""
        found = np.zeros((1, y1 - y0, x1 - x0), bool)
        for top, left, layer in self.regions.part(plane, (y0, y1, x0, x1)).layers():
            high, wide = layer.shape
            found[0, top - y0 : top - y0 + high, left - x0 : left - x0 + wide] |= layer != 0
        return found


@dataclass(frozen=True)
class Mask:
    """Where to look: other than 0 where there is something, over the whole image, at any scale."""

    data: PlaneArray | DrawnMask
    height: int  # of the image, in pixels
    width: int
    checksum: int  # of the mask's pixels
    reach: int  # pixels around it that are looked at too

    def covers(self, plane: int, tile: Tile) -> bool:
        """Tell whether a write box has pixels within reach of the mask."""
        return bool(self.near(plane, tile).any())

    def near(self, plane: int, tile: Tile) -> NDArray[np.bool_]:
        """Mark the pixels of a write box that are within reach of the mask along y and x."""
        y0, x0 = max(0, tile.y0 - self.reach), max(0, tile.x0 - self.reach)
        y1, x1 = min(self.height, tile.y1 + self.reach), min(self.width, tile.x1 + self.reach)
        found = self.inside(plane, y0, y1, x0, x1)
        if found.any():
            # Loaded where it is used: most predictions look everywhere.
            from scipy import ndimage

            for axis in (0, 1):
                size = 2 * self.reach + 1
                found = ndimage.maximum_filter1d(found, size, axis=axis, mode="constant")
        return found[tile.y0 - y0 : tile.y1 - y0, tile.x0 - x0 : tile.x1 - x0]

    def areas(self) -> list[int]:
        """Count the pixels of the image in each plane of the mask, the same as `inside` has them.

        No more is read than the mask, however large the image is.
        """
        rows, high = _groups(self.data.height, self.height)
        columns, wide = _groups(self.data.width, self.width)
        found = [0] * self.data.planes
        for plane in range(self.data.planes):
            for y in range(0, len(high), BAND):
                for x in range(0, len(wide), BAND):
                    own = rows[y : y + BAND + 1], columns[x : x + BAND + 1]
                    box = self.data.read(plane, own[0][0], own[0][-1], own[1][0], own[1][-1])
                    there = (box != 0).any(axis=0)
                    for axis, starts in enumerate(own):
                        there = np.logical_or.reduceat(there, starts[:-1] - starts[0], axis=axis)
                    sums = high[y : y + BAND] @ there.astype(np.int64) @ wide[x : x + BAND]
                    found[plane] += int(sums)
        return found

    def inside(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_]:
        """Mark the pixels of a box of the image that lie in the mask."""
        rows = _scaled(y0, y1, self.data.height, self.height)
        columns = _scaled(x0, x1, self.data.width, self.width)
        box = self.data.read(
            plane if self.data.planes > 1 else 0, rows[0], rows[-1], columns[0], columns[-1]
        )
        found = (box != 0).any(axis=0)
        found = np.logical_or.reduceat(found, np.subtract(rows[:-1], rows[0]), axis=0)
        return np.logical_or.reduceat(found, np.subtract(columns[:-1], columns[0]), axis=1)


def _scaled(start: int, stop: int, size: int, length: int) -> list[int]:
    """Return where each of the pixels of an image begins in a mask, and where the last ends."""
    places = [at * size // length for at in range(start, stop)]
    return [*places, max(places[-1] + 1, min(size, stop * size // length))]


def _groups(size: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part a side of a mask by the pixels of the image: where groups start, the end, and how many.

    Where the mask is coarser, several pixels of the image share one of the mask.
    """
    starts, counts = np.unique(np.arange(length) * size // length, return_counts=True)
    return np.append(starts, size), counts


def open_mask(
    url: str, dataset: Dataset, *, stored: Dataset, reach: int, progress: Progress
) -> Mask:
    """Open the mask of an image; it must be meant for a single one and fit its planes.

    `dataset` is seen at the pixel size of the model, `stored` as it was when somebody drew over it.
    """
    if len(dataset.samples) > 1:
        raise UsageError(
            f"mask must be given with a single image, got {len(dataset.samples)} samples in "
            f"{dataset.url}; predict one of them, or leave --mask out"
        )
    image = dataset.samples[0].data
    data, checksum = _read_mask(url, stored.samples[0], progress)
    if data.planes not in (1, image.planes):
        raise UsageError(
            f"mask must have 1 plane or {image.planes} as the image, got {data.planes} in {url}; "
            "give it one plane for all"
        )
    high, wide = data.height, data.width
    if not are_proportional((high, wide), (image.height, image.width)):
        raise InputError(
            f"mask must have the proportions of the image, {image.height} x {image.width} pixels, "
            f"got {high} x {wide} in {url}; draw it over the whole image, at any scale"
        )
    return Mask(data, image.height, image.width, checksum, reach)


def _read_mask(url: str, sample: Sample, progress: Progress) -> tuple[PlaneArray | DrawnMask, int]:
    """Open a store, an image file or outlines; return its planes, and their checksum."""
    if Path(url).suffix.lower() in SUFFIXES and not is_remote(url) and not is_stored(url):
        regions, remarks = drawn_regions(url, sample, what="mask")
        for remark in remarks:
            warn(progress, remark)
        return DrawnMask(regions), zlib.crc32(Path(url).read_bytes())
    if is_remote(url) or not Path(url).is_file():
        stored, checksum = open_image(url).data, 0
        for block in stored.blocks():
            checksum = zlib.crc32(block.tobytes(), checksum)
        return stored, checksum
    file = open_file(url, labels=True)
    if file.size("c") > 1:
        raise InputError(
            f"mask must have one channel, 0 where not to look, got {file.size('c')} in {url};"
            " save it as grey values"
        )
    shape = (file.planes, file.size("y"), file.size("x"))
    there = (file.load().reshape(shape) != 0).astype(np.uint8)
    return planes_of(there, "zyx", shape, there.dtype, name=url), zlib.crc32(there.tobytes())


def is_background(raw: NDArray[Any], tile: Tile, limit: float | None) -> bool:
    """Tell whether no channel of the write box reaches `limit`; NaN and Inf never are dark."""
    if limit is None:
        return False
    rows, columns = tile.crop()
    return bool((raw[:, rows, columns] < limit).all())


def background_result(
    tile: Tile, *, classes: int, background: int, kinds: tuple[np.dtype[Any], ...]
) -> Result:
    """Return what is stored of a tile that is left out: the class `background` for certain.

    `kinds` are the types of the stored probabilities and classes, and of the uncertainty where
    that is stored.
    """
    shape = (tile.y1 - tile.y0, tile.x1 - tile.x0)
    probabilities = np.zeros((classes, *shape), kinds[0])
    probabilities[background] = 255 if kinds[0].kind == "u" else 1
    unsure = (np.zeros(shape, kind) for kind in kinds[2:])
    return probabilities, np.full(shape, background, kinds[1]), *unsure


# Probabilities and classes of a whole tile as they are stored; the uncertainty, where asked for.
Result: TypeAlias = "tuple[NDArray[Any], ...]"

# A slide has few values that fill whole tiles, and a result can take tens of megabytes.
KEPT = 4
# Most tiles that are not constant show it at few pixels.
STRIDE = 61


def constant_values(block: NDArray[Any]) -> tuple[float, ...] | None:
    """Return the value of each channel where it is the same at all pixels, else None."""
    first = block[:, :1, :1]
    if (block[:, ::STRIDE, ::STRIDE] != first).any() or (block != first).any():
        return None
    return tuple(first.ravel().tolist())


class ConstantTiles:
    """The results of tiles of one value; those that were asked for last are kept."""

    def __init__(self) -> None:
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = threading.Lock()

    def result(self, key: Hashable, compute: Callable[[], Result]) -> tuple[Result, bool]:
        """Return the result for all that it depends on, and whether it was there already.

        It is not to be written into.
        """
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key], True
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > KEPT:
                self._results.popitem(last=False)
        return result, False


# Those of this process.
CONSTANT_TILES = ConstantTiles()
