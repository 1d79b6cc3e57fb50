"""Exact distances from background pixels to the two nearest cells, and the terms made of them.

For every pixel the two nearest distinct cells of its own row are kept as offsets (two sweeps), then
each background pixel looks up and down its column, row by row, until the row distance alone rules
out any gain. Memory is two int16 a pixel whatever the number of cells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NONE = np.int16(32767)
_FAR = 1 << 60


def distance_terms(
    labels: NDArray[Any],
    *,
    pair: tuple[float, float],
    pair_reach: float,
    single: tuple[float, float] = (0.0, 1.0),
    single_reach: float = 0.0,
    tolerance: float,
) -> NDArray[np.float32]:
    """Sum, on background, a Gaussian of d1 + d2 and a Gaussian of d1.

    d1 and d2 are the Euclidean distances, between pixel centres, to the nearest and the second
    nearest cell; a term without its cell is 0.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is background. C-contiguous.
    pair, single : tuple of float
        Height and standard deviation (in pixels) of the Gaussian of d1 + d2, and of d1.
    pair_reach, single_reach : float
        Distances in pixels beyond which the terms are below the tolerance.
    tolerance : float
        Where a term would be smaller it is exactly 0.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        0 on cells.
    """
    # No offset is longer than the row, and 32767 stands for "none".
    limit = min(math.floor(max(pair_reach, single_reach)), labels.shape[1], 32766)
    offsets = np.full((2, *labels.shape), _NONE, np.int16)
    _sweep(labels, limit, offsets)
    out = np.zeros(labels.shape, np.float32)
    terms = ((*pair, pair_reach), (*single, single_reach), tolerance)
    _add_terms((labels, offsets), terms, out)
    return out


@numba.njit(nogil=True, cache=True)
def _sweep(labels, limit, offsets):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Store, for each pixel, where the two nearest cells of its row are, as offsets in x."""
    height, width = labels.shape
    for y in range(height):
        row = (labels[y], offsets[:, y])
        for step in (1, -1):
            # The last pixel passed of any cell, and the last one of another cell than that.
            near, far = -1, -1
            for i in range(width):
                x = i if step == 1 else width - 1 - i
                own = labels[y, x]
                if own != 0:
                    if near >= 0 and labels[y, near] != own:
                        far = near
                    near = x
                if near >= 0 and abs(near - x) <= limit:
                    _offer(row, x, near)
                if far >= 0 and abs(far - x) <= limit:
                    _offer(row, x, far)


@numba.njit(nogil=True, cache=True)
def _offer(row, x, candidate):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Keep a candidate where it is nearer than one of the two kept, which are distinct cells."""
    labels, offsets = row
    first, second = offsets[0, x], offsets[1, x]
    offset = candidate - x
    if first == _NONE:
        offsets[0, x] = offset
    elif labels[x + first] == labels[candidate]:
        if abs(offset) < abs(first):
            offsets[0, x] = offset
    elif abs(offset) < abs(first):
        offsets[1, x] = first
        offsets[0, x] = offset
    elif second == _NONE or abs(offset) < abs(second):
        offsets[1, x] = offset


@numba.njit(nogil=True, cache=True)
def _two_nearest(cells, at, reaches):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the squared distances to the two nearest cells, or _FAR where none is in reach."""
    labels, offsets = cells
    y, x = at
    pair_reach, single_reach = reaches
    first, second, cell = _FAR, _FAR, labels[y, x]
    nearest = math.inf
    for dy in range(labels.shape[0]):
        # One of the two distances still to be improved is at least dy, the other at least the
        # smaller of dy and the nearest found.
        pair = dy * dy < second and dy + min(nearest, dy) <= pair_reach
        if not pair and not (dy * dy < first and dy <= single_reach):
            break
        for v in (y - dy, y + dy):
            if v < 0 or v >= labels.shape[0]:
                continue
            for k in range(2):
                offset = int(offsets[k, v, x])
                if offset == _NONE:
                    break
                other = labels[v, x + offset]
                square = dy * dy + offset * offset
                if square < first:
                    if other != cell:
                        second = first
                    first, cell = square, other
                    nearest = math.sqrt(first)
                elif square < second and other != cell:
                    second = square
    return first, second


@numba.njit(nogil=True, cache=True)
def _add_terms(cells, terms, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    labels, _ = cells
    pair, single, tolerance = terms
    reaches = (pair[2], single[2])
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != 0:
                continue
            first, second = _two_nearest(cells, (y, x), reaches)
            total = 0.0
            if second < _FAR:
                d = math.sqrt(first) + math.sqrt(second)
                term = pair[0] * math.exp(-d * d / (2 * pair[1] * pair[1]))
                total += term if term >= tolerance else 0.0
            if first < _FAR and single[0] > 0:
                term = single[0] * math.exp(-first / (2 * single[1] * single[1]))
                total += term if term >= tolerance else 0.0
            out[y, x] = total
