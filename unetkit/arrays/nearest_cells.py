"""Exact distances from background pixels to the two nearest cells, and the terms made of them.

For every pixel the two nearest distinct cells of its own row are kept (two sweeps). Then, for a
short piece of a row at a time, the rows above and below are looked through, nearest first, until
none of the piece's pixels can gain. Memory is twelve bytes a pixel whatever the number of cells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Stands for "no cell"; its square is beyond any reach.
_NONE = np.int16(32767)
# Pixels that are looked at together: some vectors wide, and mostly alike in how far they look.
PIECE = 64
# Numba need not ask whether an unsigned index counts from the end.
_PIECE = np.uintp(PIECE)
# Up to here the squares of whole distances, and their sums, have a single-precision number.
_EXACT = 2048


def distance_terms(
    labels: NDArray[Any],
    *,
    pair: tuple[float, float],
    pair_reach: float,
    single: tuple[float, float] = (0.0, 1.0),
    single_reach: float = 0.0,
    tolerance: float,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float32]:
    """Sum, on background, a Gaussian of d1 + d2 and a Gaussian of d1.

    d1 and d2 are the Euclidean distances, between pixel centres, to the nearest and the second
    nearest cell; a term without its cell is 0. The cost does not depend on the number of cells.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is background. C-contiguous.
    pair, single : tuple of float
        Height and standard deviation of the Gaussian of d1 + d2, and of d1.
    pair_reach, single_reach : float
        Distances beyond which the terms are below the tolerance.
    tolerance : float
        Where a term would be smaller it is exactly 0.
    spacing : tuple of float
        Height and width of a pixel, in the unit of the distances: 1 where that is the pixel.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        0 on cells.
    """
    out = np.zeros(labels.shape, np.float32)
    farthest = max(pair_reach, single_reach)
    if not labels.any():
        return out
    # No distance is longer than the row, and 32767 stands for "none".
    limit = min(math.floor(farthest / spacing[1]), labels.shape[1], 32766)
    across = np.full((2, *labels.shape), _NONE, np.int16)
    ids = np.zeros((2, *labels.shape), np.int32)
    _sweep(_short_ids(labels), limit, across, ids)
    exact = spacing == (1.0, 1.0) and farthest < _EXACT
    real = np.dtype(np.float32 if exact else np.float64)
    metric = np.array([*spacing, farthest, pair_reach / 2 if single[0] == 0 else math.inf], real)
    terms = (pair, single, tolerance)
    _add_terms(labels, (across, ids), metric, terms, out)
    return out


def _short_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Name the cells by 32 bits, so that twice as many are compared at once."""
    if labels.dtype.itemsize == 4:
        return labels.view(np.int32)
    if labels.dtype.itemsize < 4 or (labels.min() >= 0 and labels.max() < 2**31):
        return labels.astype(np.int32)
    names, short = np.unique(labels, return_inverse=True)
    numbers = np.arange(1, len(names) + 1, dtype=np.int32)
    numbers[names == 0] = 0
    return numbers[short.reshape(labels.shape)]


@numba.njit(nogil=True, cache=True)
def _sweep(labels, limit, across, ids):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Store, for each pixel, how far in x the two nearest cells of its row are, and which."""
    height, width = labels.shape
    for y in range(height):
        # The last pixel passed of any cell, and the last one of another cell than that.
        near, far, near_id, far_id = -1, -1, labels.dtype.type(0), labels.dtype.type(0)
        for x in range(width):
            own = labels[y, x]
            if own != 0:
                if near >= 0 and own != near_id:
                    far, far_id = near, near_id
                near, near_id = x, own
            if near >= 0 and x - near <= limit:
                across[0, y, x], ids[0, y, x] = x - near, near_id
                if far >= 0 and x - far <= limit:
                    across[1, y, x], ids[1, y, x] = x - far, far_id
        near, far = -1, -1
        for x in range(width - 1, -1, -1):
            own = labels[y, x]
            if own != 0:
                if near >= 0 and own != near_id:
                    far, far_id = near, near_id
                near, near_id = x, own
            if near < 0 or near - x > limit:
                continue
            offset = near - x
            if near_id == ids[0, y, x]:
                across[0, y, x] = min(offset, across[0, y, x])
            elif offset < across[0, y, x]:
                across[1, y, x], ids[1, y, x] = across[0, y, x], ids[0, y, x]
                across[0, y, x], ids[0, y, x] = offset, near_id
            elif offset < across[1, y, x]:
                across[1, y, x], ids[1, y, x] = offset, near_id
            # Whatever is first now is no farther than `near`, and `far` is farther than that.
            offset = far - x
            if far >= 0 and offset < across[1, y, x] and offset <= limit and far_id != ids[0, y, x]:
                across[1, y, x], ids[1, y, x] = offset, far_id


@numba.njit(nogil=True, cache=True)
def _add_terms(labels, rows, metric, terms, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = labels.shape
    pair, single, tolerance = terms
    across, ids = rows
    flat = (across.reshape(across.size), ids.reshape(ids.size), height, width)
    beyond = np.nextafter(metric[2] * metric[2], metric.dtype.type(np.inf))
    # The distance to the nearest, then the one to the second: in one array, since vectors are made
    # only where few arrays might overlap.
    best = np.empty(2 * PIECE, metric.dtype)
    cell = np.empty(PIECE, np.int32)
    for y in range(height):
        for x0 in range(0, width, PIECE):
            size = min(PIECE, width - x0)
            background = False
            for i in range(size):
                # A cell's own pixels look for nothing.
                free = labels[y, x0 + i] == 0
                best[i] = best[i + PIECE] = beyond if free else 0
                cell[i] = 0
                background |= free
            if not background:
                continue
            _look_around(flat, (y, x0, size), metric, (best, cell))
            for i in range(size):
                first, second = best[i], best[i + PIECE]
                total = 0.0
                if 0 < second < beyond:
                    d = math.sqrt(first) + math.sqrt(second)
                    term = pair[0] * math.exp(-d * d / (2 * pair[1] * pair[1]))
                    total += term if term >= tolerance else 0.0
                if single[0] > 0 and 0 < first < beyond:
                    term = single[0] * math.exp(-first / (2 * single[1] * single[1]))
                    total += term if term >= tolerance else 0.0
                out[y, x0 + i] = total


@numba.njit(nogil=True, cache=True)
def _look_around(rows, piece, metric, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find the squared distances of a piece of a row to the two nearest cells, row by row."""
    across, ids, height, width = rows
    y, x0, size = piece
    best, _ = found
    high, wide, farthest, half = metric[0], metric[1], metric[2], metric[3]
    for step in range(height):
        dy = metric.dtype.type(step) * high
        down = dy * dy
        if dy > farthest:
            break
        if dy > half:
            # Of a pair within reach one is no farther than half the reach, and found by now.
            for i in range(size):
                if best[i] > half * half:
                    best[i] = best[i + PIECE] = 0
        worst = best[PIECE]
        for i in range(size):
            worst = max(worst, best[i + PIECE])
        if down >= worst:
            break
        for side in range(2 if step else 1):
            v = y + step if side else y - step
            if 0 <= v < height:
                for k in range(2):
                    start = (k * height + v) * width + x0
                    _compare(across, ids, (np.uintp(start), np.uintp(size)), (down, wide), found)


@numba.njit(nogil=True, cache=True)
def _compare(across, ids, where, metric, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take over what is nearer in another row; nothing here depends on a branch."""
    start, size = where
    down, wide = metric
    best, cell = found
    for i in range(size):
        dx = best.dtype.type(across[start + i]) * wide
        square, name = down + dx * dx, ids[start + i]
        first, second = best[i], best[i + _PIECE]
        closer, same = square < first, name == cell[i]
        rival = first if closer else square
        best[i] = square if closer else first
        best[i + _PIECE] = rival if (rival < second) & (not same) else second
        cell[i] = name if closer else cell[i]
