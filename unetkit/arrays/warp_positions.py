"""The inner loop that says where the pixels of a warp come from, once for all arrays that move.

It computes row by row in vector instructions, and finds out which look-ups need no care at the
border.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def locate(motion, corner, frame, found, line):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find where the pixels of a strip are taken from, to 1/65536 pixel.

    Rounding makes whole shifts and quarter turns exact, whatever the last bit says.

    Parameters
    ----------
    motion : tuple
        The affine part (2, 3); the displacements (Y, 2, Q) of the grid's columns at every row; how
        much each column of the grid counts at every pixel of a row (Q, X).
    corner : tuple of int
        First row and column of the strip.
    frame : tuple of int
        Height and width of the window that is in memory, its first row and column, and the height
        and width of it all.
    found : tuple of ndarray
        Are filled. start, int32, shape (N, 2, X): the pixel at or before each position. part,
        float32, shape (N, 2, X): what is left, from 0 to below 1. place, int32 or int64, shape
        (N, X): the number, in the window, of the first of the 4 by 4 pixels around the position.
        inside, int64, shape (N, 2): the run of pixels of each row of which `place` is true; around
        all others there may be some that are mirrored.
    line : ndarray of float64, shape (X,)
        Room to work in.
    """
    affine, rows, columns = motion
    start, part, place, inside = found
    y0, x0 = corner
    for j in range(place.shape[0]):
        y = y0 + j
        for axis in range(2):
            base = affine[axis, 0] * y + affine[axis, 2]
            slope = affine[axis, 1]
            starts, parts = start[j, axis], part[j, axis]
            for x in range(line.size):
                line[x] = base + slope * (x0 + x)
            for k in range(columns.shape[0]):
                height = rows[y, axis, k]
                column = columns[k, x0 : x0 + line.size]
                for x in range(line.size):
                    line[x] += height * column[x]
            for x in range(line.size):
                at = np.floor(line[x] * 65536.0 + 0.5) * (1 / 65536.0)
                whole = np.floor(at)
                starts[x] = np.int32(whole)
                parts[x] = np.float32(at - whole)
        inside[j, 0], inside[j, 1] = _places(start[j, 0], start[j, 1], frame, place[j])


@numba.njit(nogil=True, cache=True)
def _places(starts_y, starts_x, frame, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill in where the pixels around the positions of a row begin, and return `inside` of it."""
    height, width, top, left = frame[0], frame[1], frame[2], frame[3]
    whole = place.dtype.type
    rows, columns = np.uint32(max(height - 3, 0)), np.uint32(max(width - 3, 0))
    count = 0
    for x in range(place.size):
        # One pixel before: what is negative is beyond any size as an unsigned number.
        v, u = np.int32(starts_y[x] - (top + 1)), np.int32(starts_x[x] - (left + 1))
        ok = (np.uint32(v) < rows) & (np.uint32(u) < columns)
        place[x] = whole(whole(v) * width + u) if ok else whole(-1)
        count += 1 if ok else 0
    low, high = 0, place.size
    while low < high and place[low] < 0:
        low += 1
    while high > low and place[high - 1] < 0:
        high -= 1
    if high - low > count:
        # There are several runs, as where an image is folded; one is enough.
        high = low
        while place[high] >= 0:
            high += 1
    return low, high
