"""Arrays that are read block by block and kept in memory up to a limit; not where they come from.

A sampler reads the same few pixels again and again, and some of what it reads is computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    # plane, y0, y1, x0, x1 -> the pixels of that box.
    Load = Callable[[int, int, int, int, int], NDArray[Any]]

# Pixels a side: the chunk of what the library writes.
BLOCK = 512

# Bytes. Our own choice: the 40 images of a usual data set, with labels and weights, take a third.
LIMIT = 512 * 2**20


class BlockCache:
    """The blocks that were read last, shared by all arrays of a training; safe among threads.

    Parameters
    ----------
    limit : int
        Bytes that are kept; a single larger block passes through.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held = 0
        self._blocks: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes in memory now."""
        return self._held

    def get(self, key: Hashable, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the block of a key, loaded if it is not there."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        # Outside the lock, so that threads load different blocks at a time. Two may load the same
        # one; they find the same pixels.
        block = load()
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._held += block.nbytes
            while self._held > self._limit:
                _, oldest = self._blocks.popitem(last=False)
                self._held -= oldest.nbytes
        return block


@dataclass(frozen=True)
class Blocks:
    """An array of planes whose boxes are put together from cached blocks.

    Parameters
    ----------
    key : hashable
        Tells it from the other arrays in the cache.
    height, width : int
        Size of a plane, in pixels.
    load : callable
        Reads or computes a box ``(plane, y0, y1, x0, x1)`` of shape (C, Y, X) or (Y, X); the same
        pixels whatever the box.
    cache : BlockCache
        Where blocks are kept.
    """

    key: Hashable
    height: int
    width: int
    load: Load = field(repr=False)
    cache: BlockCache = field(repr=False)

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box that lies inside the plane.

        Returns
        -------
        ndarray, shape (C, Y, X) or (Y, X)
            A new array.
        """
        bands = []
        for row in range(y0 // BLOCK, -(-y1 // BLOCK)):
            rows = slice(max(y0 - row * BLOCK, 0), y1 - row * BLOCK)
            pieces = []
            for column in range(x0 // BLOCK, -(-x1 // BLOCK)):
                columns = slice(max(x0 - column * BLOCK, 0), x1 - column * BLOCK)
                pieces.append(self._block(plane, row, column)[..., rows, columns])
            bands.append(np.concatenate(pieces, axis=-1))
        return np.concatenate(bands, axis=-2)

    def _block(self, plane: int, row: int, column: int) -> NDArray[Any]:
        y0, x0 = row * BLOCK, column * BLOCK
        box = (y0, min(y0 + BLOCK, self.height), x0, min(x0 + BLOCK, self.width))
        return self.cache.get(
            (self.key, plane, row, column), load=lambda: self.load(plane, *box)
        )
