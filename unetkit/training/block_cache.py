"""Boxes of planes from a bounded memory of decoded blocks; it does not know what they hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.boxes import Plane

BLOCK = 512  # pixels a side, the chunk that imports write
# Bytes; our own choice: the 40 images of a usual dataset, with labels and weights, take a third.
BUDGET = 512 * 2**20


class BlockCache:
    """Reads boxes by way of blocks that stay in memory until others need their place.

    Small datasets are decoded once; larger ones cost what their tiles cost.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._blocks: OrderedDict[tuple[int, int, int, int], NDArray[Any]] = OrderedDict()
        # Holds the arrays alive whose id is part of a key.
        self._known: dict[int, Plane] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def read(
        self, array: Plane, plane: int, *, rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[Any]:
        """Read a box that lies inside a plane, (C, Y, X) or (Y, X), as a new array.

        `rows` and `columns` are the first and the past-the-last.
        """
        (y0, y1), (x0, x1) = rows, columns
        parts = [
            [
                self._cut(array, (plane, i, j), rows=rows, columns=columns)
                for j in range(x0 // BLOCK, (x1 - 1) // BLOCK + 1)
            ]
            for i in range(y0 // BLOCK, (y1 - 1) // BLOCK + 1)
        ]
        if len(parts) == len(parts[0]) == 1:
            return parts[0][0].copy()
        return np.concatenate([np.concatenate(row, axis=-1) for row in parts], axis=-2)

    def _cut(
        self,
        array: Plane,
        place: tuple[int, int, int],
        *,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> NDArray[Any]:
        """Return the part of a block that lies in the box."""
        _, i, j = place
        top, left = i * BLOCK, j * BLOCK
        block = self._block(array, place)
        height, width = block.shape[-2:]
        return block[
            ...,
            max(rows[0] - top, 0) : min(rows[1] - top, height),
            max(columns[0] - left, 0) : min(columns[1] - left, width),
        ]

    def _block(self, array: Plane, place: tuple[int, int, int]) -> NDArray[Any]:
        plane, i, j = place
        key = (id(array), plane, i, j)
        with self._lock:
            self._known.setdefault(id(array), array)
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        # Not under the lock: two threads may decode the same block, which is waste but no error.
        top, left = i * BLOCK, j * BLOCK
        bottom, right = min(top + BLOCK, array.height), min(left + BLOCK, array.width)
        block = array.read(plane, top, bottom, left, right)
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._bytes += block.nbytes
            while self._bytes > self._budget and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= oldest.nbytes
        return block
