"""From class maps to objects: which pixels are objects, their ids, and how they grow.

What this module does not know: blocks and tiles; `unetkit.arrays.joining` joins those.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from unetkit.arrays.joining import (
    BlockSummary,
    Joined,
    first_pixels,
    join,
    merge,
    summarize,
    touching,
)
from unetkit.errors import LabelError, UsageError

__all__ = [
    "SEEDS",
    "BlockSummary",
    "Joined",
    "components",
    "foreground_of",
    "grow",
    "growth_of",
    "has_instances",
    "instances",
    "join",
    "merge",
    "summarize",
    "touching",
]

Array = np.ndarray[Any, Any]

# Which class of a target holds the objects, and into which class they may grow (None: anywhere).
SEEDS: dict[str, tuple[int, int | None]] = {
    "foreground": (1, None),
    "foreground+boundary": (1, 2),
    "boundary": (0, 1),
}


def has_instances(target: str) -> bool:
    """Say whether a prediction with this target has objects (class maps do not)."""
    return target in SEEDS


def foreground_of(class_map: Array, target: str) -> Array:
    """Mark the pixels that belong to objects: foreground, interior or inside.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned: `foreground`, `foreground+boundary` or `boundary`.

    Returns
    -------
    ndarray of bool, shape (Y, X)

    Raises
    ------
    UsageError
        If the target has no instances.
    """
    return np.asarray(class_map == _seeds(target)[0])


def growth_of(class_map: Array, target: str) -> Array | None:
    """Mark the pixels that objects may grow into; None where they may grow anywhere.

    Interior grows into boundary; foreground, whose gaps were cut, grows into background.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned.

    Returns
    -------
    ndarray of bool, shape (Y, X), or None
    """
    area = _seeds(target)[1]
    return None if area is None else np.asarray(class_map == area)


def instances(class_map: Array, target: str, *, min_size: int = 0, distance: int = 1) -> Array:
    """Find, number and grow the objects of a class map that fits in memory.

    Parameters
    ----------
    class_map : ndarray of int, shape (Y, X)
        The most probable class of each pixel.
    target : str
        What the network learned.
    min_size : int
        Objects with fewer pixels, before they grow, are left out.
    distance : int
        How far objects grow, in pixels.

    Returns
    -------
    ndarray of uint32, shape (Y, X)
        The same ids that a tiled prediction gives.
    """
    labels, count = components(foreground_of(class_map, target))
    summary = summarize(labels, count, y0=0, x0=0, width=labels.shape[1])
    kept = join([summary], grid=(1, 1, 1), min_size=min_size).lookup(0)[labels]
    return grow(kept, distance=distance, within=growth_of(class_map, target))


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
    found, count = ndimage.label(mask)
    labels = found.astype(np.uint32)
    first = first_pixels(labels, count)
    order = np.argsort(first)
    if np.array_equal(order, np.arange(count)):
        return labels, count
    rank = np.zeros(count + 1, np.uint32)  # SciPy does not promise raster order
    rank[order + 1] = np.arange(1, count + 1)
    return rank[labels], count


def grow(labels: Array, *, distance: int, within: Array | None = None) -> Array:
    """Grow instances into the free pixels around them, the nearest instance first.

    Equally near instances leave the pixel to the lower id. The result inside a block is exact
    when the block was read with `distance` pixels of context on each side.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is free.
    distance : int
        How far to grow, in pixels between pixel centres.
    within : ndarray of bool, shape (Y, X), optional
        The pixels that may be taken; everywhere when left out.

    Returns
    -------
    ndarray, shape (Y, X), of the dtype of `labels`

    Raises
    ------
    UsageError
        If `distance` is negative.
    LabelError
        If `labels` is not of an integer dtype.

    Examples
    --------
    >>> grow(np.array([[0, 0, 2, 0, 1, 0]]), distance=1)
    array([[0, 2, 2, 1, 1, 1]])
    """
    if distance < 0:
        raise UsageError(f"grow must be at least 0 pixels, got {distance}; 0 leaves objects alone")
    if labels.dtype.kind not in "iu":
        raise LabelError(f"labels must be integers, got {labels.dtype}; 0 stands for background")
    grown = labels.copy()
    if distance == 0 or not labels.any():
        return grown
    away = np.rint(ndimage.distance_transform_edt(labels == 0) ** 2).astype(np.int64)
    free = (away > 0) & (away <= distance**2)
    if within is not None:
        free &= within
    y, x = np.nonzero(free)
    padded = np.pad(labels, distance)
    for squared in np.unique(away[y, x]):
        ring = away[y, x] == squared
        nearest = _lowest_at(padded, y[ring] + distance, x[ring] + distance, squared=int(squared))
        grown[y[ring], x[ring]] = nearest
    return grown


def _seeds(target: str) -> tuple[int, int | None]:
    """Look a target up, or say which have instances."""
    if target not in SEEDS:
        names = ", ".join(SEEDS)
        raise UsageError(f"target must be one with instances, got {target!r}; try {names}")
    return SEEDS[target]


def _lowest_at(padded: Array, y: Array, x: Array, *, squared: int) -> Array:
    """Give the lowest id among the pixels exactly sqrt(squared) away from each (y, x)."""
    reach = int(np.sqrt(squared)) + 1
    steps = np.arange(-reach, reach + 1)
    dy, dx = np.nonzero(steps[:, None] ** 2 + steps**2 == squared)
    nothing = np.iinfo(padded.dtype).max
    lowest = np.full(len(y), nothing, padded.dtype)
    for down, right in zip(steps[dy], steps[dx], strict=True):
        seen = padded[y + down, x + right]
        np.minimum(lowest, np.where(seen == 0, nothing, seen), out=lowest)
    return lowest
