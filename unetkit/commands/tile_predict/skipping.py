"""Tiles that are left out: too dark to hold anything, or outside a coarse mask."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unetkit.errors import UsageError
from unetkit.storage.images import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    from unetkit.geometry.tiles import Tile
    from unetkit.storage.datasets import Dataset
    from unetkit.storage.planes import PlaneArray


@dataclass(frozen=True)
class Mask:
    """Where to look: other than 0 where there is something, over the whole image, at any scale."""

    data: PlaneArray
    height: int  # of the image, in pixels
    width: int
    checksum: int  # of the mask's pixels

    def covers(self, plane: int, tile: Tile) -> bool:
        """Tell whether any pixel of the mask that touches a write box is set."""
        high, wide = self.data.height, self.data.width
        box = self.data.read(
            plane if self.data.planes > 1 else 0,
            tile.y0 * high // self.height,
            -(-tile.y1 * high // self.height),
            tile.x0 * wide // self.width,
            -(-tile.x1 * wide // self.width),
        )
        return bool(box.any())


def open_mask(url: str, dataset: Dataset) -> Mask:
    """Open the mask of an image; it must be meant for a single one and fit its planes."""
    if len(dataset.samples) > 1:
        raise UsageError(
            f"mask must be given with a single image, got {len(dataset.samples)} samples in "
            f"{dataset.url}; predict one of them, or leave --mask out"
        )
    image, data = dataset.samples[0].data, open_image(url).data
    if data.planes not in (1, image.planes):
        raise UsageError(
            f"mask must have 1 plane or {image.planes} as the image, got {data.planes} in {url}; "
            "give it one plane for all"
        )
    checksum = 0
    for block in data.blocks():
        checksum = zlib.crc32(block.tobytes(), checksum)
    return Mask(data, image.height, image.width, checksum)


def is_background(raw: NDArray[Any], tile: Tile, limit: float | None) -> bool:
    """Tell whether no channel of the write box reaches `limit`; NaN and Inf never are dark."""
    if limit is None:
        return False
    rows, columns = tile.crop()
    return bool((raw[:, rows, columns] < limit).all())


def background_result(
    tile: Tile, *, classes: int, background: int, kinds: tuple[np.dtype[Any], np.dtype[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is stored of a tile that is left out: the class `background` for certain.

    `kinds` are the types of the stored probabilities and classes.
    """
    shape = (tile.y1 - tile.y0, tile.x1 - tile.x0)
    probabilities = np.zeros((classes, *shape), kinds[0])
    probabilities[background] = 255 if kinds[0].kind == "u" else 1
    return probabilities, np.full(shape, background, kinds[1])


# Probabilities and classes of a whole tile, as they are stored.
Result: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"

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
