"""Measure instances from sums that add up over blocks, as scikit-image's regionprops does.

What this module does not know: how an image is cut. A block is read with `REACH` pixels around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from unetkit.kernel_cache import is_kept

Array = np.ndarray[Any, Any]

# An outline pixel is told by its neighbours, and its kind by theirs.
REACH = 2
# What is summed of each object: pixels, y, x, y^2, x^2, xy, and outline pixels that count 1,
# sqrt(2) and (1 + sqrt(2)) / 2 towards the perimeter.
_SUMS = 9
_DY = np.array([-1, 1, 0, 0, -1, -1, 1, 1])
_DX = np.array([0, 0, -1, 1, -1, 1, -1, 1])


@dataclass(frozen=True, eq=False)
class Objects:
    """Sums of the objects of a plane or of a block of it, by id."""

    ids: Array  # uint64, shape (N,): from low to high, without background
    sums: Array  # int64, shape (N, 9): whole numbers, so that any order of adding gives the same
    box: Array  # int64, shape (N, 4): first row and column, and those after the last
    total: Array  # shape (N, C): sums of intensities, int64 for whole numbers, else float64
    low: Array  # float64, shape (N, C): the smallest intensity
    high: Array  # float64, shape (N, C): the largest


def measure(
    labels: Array,
    *,
    origin: tuple[int, int],
    inside: tuple[slice, slice],
    intensities: Array | None = None,
) -> Objects:
    """Sum up the parts of objects that lie in a block.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        The block and `REACH` pixels around it; 0 outside the image.
    origin : tuple of int
        Row and column of the block's first pixel in its plane.
    inside : tuple of slice
        The block in `labels`.
    intensities : ndarray, shape (C, Y, X), optional
        Of the block alone.

    Returns
    -------
    Objects
    """
    block = labels[inside]
    ids, places = np.unique(block, return_inverse=True)
    places = places.reshape(block.shape)
    start = (inside[0].start, inside[1].start)
    sums, box = _sum(labels, places, len(ids), np.array([*origin, *start]))
    values = np.empty((0, *block.shape), np.int64) if intensities is None else intensities
    total, low, high = _intensities(values, places.ravel(), len(ids))
    kept = ids != 0
    parts = (ids.astype(np.uint64), sums, box, total, low, high)
    return Objects(*(part[kept] for part in parts))


def merge(parts: list[Objects]) -> Objects:
    """Add up the blocks of one plane.

    Parameters
    ----------
    parts : list of Objects
        At least one.

    Returns
    -------
    Objects
    """
    ids, row = np.unique(np.concatenate([p.ids for p in parts]), return_inverse=True)

    def gather(name: str, how: Any, start: float) -> Array:
        columns = np.concatenate([getattr(p, name) for p in parts])
        result = np.full((len(ids), columns.shape[1]), start, columns.dtype)
        how.at(result, row, columns)
        return result

    box = gather("box", np.minimum, np.iinfo(np.int64).max)
    box[:, 2:] = gather("box", np.maximum, 0)[:, 2:]
    return Objects(
        ids=ids,
        sums=gather("sums", np.add, 0),
        box=box,
        total=gather("total", np.add, 0),
        low=gather("low", np.minimum, np.inf),
        high=gather("high", np.maximum, -np.inf),
    )


def table(objects: Objects, *, pixel: tuple[float, float] | None = None) -> dict[str, Array]:
    """Work out the measurements of whole objects.

    Parameters
    ----------
    objects : Objects
    pixel : tuple of float, optional
        Height and width of a pixel; left out, lengths are in pixels.

    Returns
    -------
    dict of str to ndarray
        `id`, `area`, `centroid_y`, `centroid_x`, `axis_major`, `axis_minor`, `perimeter`,
        `circularity` (4 pi area / perimeter^2), and for channel N `mean_N`, `min_N`, `max_N`.
        The perimeter of oblong pixels, and what follows from it, is NaN.

    References
    ----------
    scikit-image, `skimage.measure.regionprops_table`; Benkrid and Crookes (2000) for perimeters.
    """
    dy, dx = pixel or (1.0, 1.0)
    count = objects.sums[:, 0]
    y, x, yy, xx, xy = _moments(objects.sums)
    a, b, c = yy * dy * dy, xx * dx * dx, xy * dy * dx
    spread = np.sqrt(((a - b) / 2) ** 2 + c**2)
    major, minor = ((a + b) / 2 + sign * spread for sign in (1, -1))
    area = count * dy * dx
    weights = np.array([1, np.sqrt(2), (1 + np.sqrt(2)) / 2])
    perimeter = objects.sums[:, 6:9] @ weights * (dy if dy == dx else np.nan)
    found = {
        "id": objects.ids,
        "area": area if pixel else count,
        "centroid_y": y * dy,
        "centroid_x": x * dx,
        "axis_major": 4 * np.sqrt(np.maximum(major, 0)),
        "axis_minor": 4 * np.sqrt(np.maximum(minor, 0)),
        "perimeter": perimeter,
        "circularity": _divide(4 * np.pi * area, perimeter**2),
    }
    for channel in range(objects.total.shape[1]):
        found[f"mean_{channel}"] = objects.total[:, channel] / count
        found[f"min_{channel}"] = objects.low[:, channel]
        found[f"max_{channel}"] = objects.high[:, channel]
    return found


def centroid_pixels(objects: Objects) -> Array:
    """Find the pixel that holds the centroid of each object; halves go down and right.

    Only whole numbers are divided, so that it is the same wherever blocks end.

    Parameters
    ----------
    objects : Objects

    Returns
    -------
    ndarray of int64, shape (N, 2)
        Row and column.

    Examples
    --------
    Two pixels beside each other share their edge, which is that of the right one:

    >>> labels = np.pad([[1, 1]], REACH)
    >>> pair = measure(labels, origin=(0, 0), inside=(slice(2, 3), slice(2, 4)))
    >>> centroid_pixels(pair).tolist()
    [[0, 1]]
    """
    count = objects.sums[:, :1]
    pixels: Array = (2 * objects.sums[:, 1:3] + count) // (2 * count)
    return pixels


def _moments(sums: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Work out means and central second moments; exact before the one division of each."""
    n, y, x, yy, xx, xy = (column.astype(object) for column in sums[:, :6].T)
    squared = (n * n).astype(float)
    central = [(n * two - one * other) for two, one, other in ((yy, y, y), (xx, x, x), (xy, y, x))]
    counts = n.astype(float)
    means = [one.astype(float) / counts for one in (y, x)]
    a, b, c = (one.astype(float) / squared for one in central)
    return means[0], means[1], a, b, c


def _divide(part: Array, whole: Array) -> Array:
    """Divide, infinite where a perimeter is 0."""
    with np.errstate(divide="ignore"):
        result: Array = part / whole
    return result


def _intensities(values: Array, places: Array, count: int) -> tuple[Array, Array, Array]:
    """Sum intensities up, and find the smallest and the largest."""
    exact = values.dtype.kind in "iub"
    total = np.zeros((count, len(values)), np.int64 if exact else np.float64)
    low = np.full((count, len(values)), np.inf)
    high = np.full((count, len(values)), -np.inf)
    for n, channel in enumerate(values):
        flat = channel.ravel()
        np.add.at(total[:, n], places, flat)
        np.minimum.at(low[:, n], places, flat)
        np.maximum.at(high[:, n], places, flat)
    return total, low, high


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _sum(labels: Array, places: Array, count: int, at: Array) -> tuple[Array, Array]:
    """Go through a block pixel by pixel; `at` is its place in the plane, and in `labels`."""
    sums = np.zeros((count, _SUMS), np.int64)
    box = np.zeros((count, 4), np.int64)
    box[:, :2] = np.iinfo(np.int64).max
    for j in range(places.shape[0]):
        for i in range(places.shape[1]):
            y, x, row = j + at[0], i + at[1], places[j, i]
            own = labels[j + at[2], i + at[3]]
            if own == 0:
                continue
            sums[row, 0] += 1
            sums[row, 1] += y
            sums[row, 2] += x
            sums[row, 3] += y * y
            sums[row, 4] += x * x
            sums[row, 5] += x * y
            box[row, 0], box[row, 1] = min(box[row, 0], y), min(box[row, 1], x)
            box[row, 2], box[row, 3] = max(box[row, 2], y + 1), max(box[row, 3], x + 1)
            kind = _outline(labels, j + at[2], i + at[3])
            if kind:
                sums[row, 5 + kind] += 1
    return sums, box


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _on_outline(labels: Array, y: int, x: int) -> bool:
    """Whether a pixel has an edge neighbour outside its object."""
    own = labels[y, x]
    same = 0
    for k in range(4):
        same += labels[y + _DY[k], x + _DX[k]] == own
    return same < 4


@njit(cache=is_kept())  # type: ignore[untyped-decorator]
def _outline(labels: Array, y: int, x: int) -> int:
    """Tell how an outline pixel counts: 1, sqrt(2), (1 + sqrt(2)) / 2 as 1, 2, 3; others 0.

    The kind follows from how many outline pixels it meets at edges and at corners.
    """
    if not _on_outline(labels, y, x):
        return 0
    own, edges, corners = labels[y, x], 0, 0
    for k in range(8):
        to_y, to_x = y + _DY[k], x + _DX[k]
        if labels[to_y, to_x] == own and _on_outline(labels, to_y, to_x):
            if k < 4:
                edges += 1
            else:
                corners += 1
    if edges >= 2 and corners <= 2 and (edges <= 3):
        return 1
    if (corners == 2 and edges == 0) or (corners == 3 and edges == 1):
        return 2
    if edges == 1 and corners in (1, 2):
        return 3
    return 0
