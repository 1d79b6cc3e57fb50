"""Exact values at given ranks of pixels that come in blocks; it knows no files.

Unsigned integers of 8 or 16 bits are counted one bin a value. A float32 is counted by the upper
half of its bits first (65,536 bins), then by the lower half inside the few bins that hold a wanted
rank: two passes, a few megabytes of counts, no sorting, no harm from a few very bright pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Blocks = Callable[[], Iterable[NDArray[Any]]]

BINS = 65536


@dataclass(frozen=True)
class OrderCounts:
    """How many pixels of each channel fall into each bin of the upper (or only) 16 bits."""

    values: list[NDArray[np.int64]]
    floating: bool

    @property
    def totals(self) -> list[int]:
        """How many pixels each channel has."""
        return [int(counts.sum()) for counts in self.values]

    def resolve(self, blocks: Blocks, ranks: list[list[int]]) -> list[list[float]]:
        """Find the values at `ranks` (0 is the smallest pixel).

        Parameters
        ----------
        blocks : callable returning an iterable of ndarray, shape (C, Y, X)
            The pixels that were counted; floats are read again.
        ranks : list of list of int
            The wanted ranks of each channel.

        Returns
        -------
        list of list of float
            One value a rank.
        """
        bins = [_bins_of(counts, wanted) for counts, wanted in zip(self.values, ranks, strict=True)]
        if not self.floating:
            return [[float(b) for b in found] for found in bins]
        lower = [{b: np.zeros(BINS, np.int64) for b in found} for found in bins]
        for block in blocks():
            for channel, tables in zip(block, lower, strict=True):
                keys = _keys(channel)
                for upper, table in tables.items():
                    _count_low(keys, upper, table)
        channels = zip(self.values, ranks, bins, lower, strict=True)
        return [_finish(c, wanted, bins=b, lower=low) for c, wanted, b, low in channels]


def _finish(
    counts: NDArray[np.int64],
    ranks: list[int],
    *,
    bins: list[int],
    lower: dict[int, NDArray[np.int64]],
) -> list[float]:
    """Join the upper half of each wanted float with the lower half found inside its bin."""
    before = np.cumsum(counts) - counts
    halves = [
        (upper << 16) | _bins_of(lower[upper], [rank - int(before[upper])])[0]
        for rank, upper in zip(ranks, bins, strict=True)
    ]
    return _unkey(np.array(halves, np.uint32)).astype(float).tolist()  # type: ignore[no-any-return]


def count(blocks: Blocks) -> OrderCounts:
    """Count the pixels of each channel in one pass.

    Parameters
    ----------
    blocks : callable returning an iterable of ndarray, shape (C, Y, X)
        All uint8, all uint16, or all finite float32.

    Returns
    -------
    OrderCounts
        Without any channel where there is no block.
    """
    counts: list[NDArray[np.int64]] = []
    floating = False
    for block in blocks():
        if not counts:
            floating = block.dtype == np.float32
            counts = [np.zeros(BINS, np.int64) for _ in range(block.shape[0])]
        for channel, table in zip(block, counts, strict=True):
            if floating:
                _count_high(_keys(channel), table)
            else:
                _count(np.ascontiguousarray(channel).ravel(), table)
    return OrderCounts(counts, floating)


def _bins_of(counts: NDArray[np.int64], ranks: list[int]) -> list[int]:
    edges = np.cumsum(counts)
    found = np.searchsorted(edges, ranks, side="right")
    return np.minimum(found, BINS - 1).tolist()  # type: ignore[no-any-return]


def _keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map floats to integers of the same order: IEEE 754 sorts by sign and magnitude."""
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    negative = (bits >> np.uint32(31)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint32(0x80000000))


def _unkey(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    positive = (keys >> np.uint32(31)).astype(bool)
    bits = np.where(positive, keys & np.uint32(0x7FFFFFFF), ~keys)
    return bits.astype(np.uint32).view(np.float32)


@numba.njit(nogil=True, cache=True)
def _count(values, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for value in values:
        counts[value] += 1


@numba.njit(nogil=True, cache=True)
def _count_high(keys, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for key in keys:
        counts[key >> 16] += 1


@numba.njit(nogil=True, cache=True)
def _count_low(keys, upper, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for key in keys:
        if key >> 16 == upper:
            counts[key & 0xFFFF] += 1
