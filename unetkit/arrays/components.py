"""What touches is one object: the 4-connected components of a mask, and what is told of objects."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from unetkit.kernel_cache import is_kept

Array = np.ndarray[Any, Any]


def components(mask: Array) -> tuple[Array, int]:
    """Find the 4-connected objects of a mask and number them in raster order.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)

    Returns
    -------
    labels : ndarray of uint32, shape (Y, X)
        0 is background.
    count : int
        How many objects there are; also the highest id.

    Examples
    --------
    Diagonal contact does not join:

    >>> components(np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1]], bool))[0]
    array([[1, 0, 2],
           [1, 0, 0],
           [0, 3, 3]], dtype=uint32)
    """
    labels = np.zeros(mask.shape, np.uint32)
    return labels, _connect(np.ascontiguousarray(mask), labels)


def sizes_and_first_pixels(labels: Array, count: int) -> tuple[Array, Array]:
    """Give the size of each of the objects 1 to `count`, and the raster index of its first pixel.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Ids of objects; 0 is background.
    count : int
        The highest id.

    Returns
    -------
    sizes, first : ndarray of int64, shape (count,)
        0 of an id that no pixel has.
    """
    sizes, first = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    _measure(np.ascontiguousarray(labels).reshape(-1), sizes, first)
    return sizes[1:], first[1:]


@numba.njit(nogil=True, cache=is_kept())
def _connect(mask, labels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Give runs along rows numbers, unite those above one another, and number what is united."""
    height, width = mask.shape
    above = np.empty(height * ((width + 1) // 2) + 1, np.uint32)
    count = 0
    for y in range(height):
        left = np.uint32(0)
        for x in range(width):
            if not mask[y, x]:
                left = np.uint32(0)
                continue
            up = labels[y - 1, x] if y else np.uint32(0)
            if left == 0 and up == 0:
                count += 1
                above[count] = count
                left = above[count]
            elif left == 0:
                left = up
            elif up != 0 and up != left:
                while above[left] != left:
                    left = above[left]
                while above[up] != up:
                    above[up] = above[above[up]]
                    up = above[up]
                # The first pixel of what is united is that of the lowest number.
                above[max(left, up)] = left = min(left, up)
            labels[y, x] = left
    found = 0
    for k in range(1, count + 1):
        if above[k] == k:
            found += 1
            above[k] = found
        else:
            above[k] = above[above[k]]
    for y in range(height):
        for x in range(width):
            if labels[y, x]:
                labels[y, x] = above[labels[y, x]]
    return found


@numba.njit(nogil=True, cache=is_kept())
def _measure(labels, sizes, first):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(labels.size):
        number = labels[i]
        if number:
            if sizes[number] == 0:
                first[number] = i
            sizes[number] += 1
