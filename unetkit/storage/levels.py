"""The levels of a pyramid, and small copies of images of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.storage.metadata import array_below, read_multiscale
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.planes import plane_array
from unetkit.storage.pyramids import BLOCK_SIDE, block_mean, every_second

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.storage.planes import PlaneArray

    Array = np.ndarray[Any, Any]


def thumbnail(data: PlaneArray, plane: int, *, side: int) -> Array:
    """Return a small copy of a plane; no more than some blocks and the copy are held in memory.

    It is made from the smallest stored level that is large enough, which for a whole slide is a
    matter of a few chunks; without a pyramid everything has to be read.

    Parameters
    ----------
    data : PlaneArray
        Level 0 of an image or of labels.
    plane : int
        Which plane.
    side : int
        The least length of the copy's longer side in pixels, where the image has as many; it is
        less than twice as long.

    Returns
    -------
    ndarray, shape (C, Y, X) for an image, (Y, X) otherwise
        An image's pixels are means, those of labels are kept ones.
    """
    level = data
    for other in _levels(data):
        if max(other.height, other.width) >= side:
            level = other
    factor = max(1, max(level.height, level.width) // side)
    reduce = block_mean if data.has_channels else every_second
    rows = [
        np.concatenate([reduce(block, factor, factor) for block in row], axis=-1)
        for row in _blocks(level, plane, factor)
    ]
    return np.concatenate(rows, axis=-2)


def _levels(data: PlaneArray) -> list[PlaneArray]:
    """Open the stored levels of which an array is the first, from large to small."""
    parent, _, name = data.url.rpartition("/")
    node = read_node(parent) if name and data.item is None else None
    multiscale = read_multiscale(node) if isinstance(node, GroupNode) else None
    if multiscale is None or multiscale.paths[0] != data.url:
        return [data]
    opened = [
        plane_array(array_below(path), axes=data.axes, has_channels=data.has_channels)
        for path in multiscale.paths
    ]
    return [replace(level, picked=data.picked) for level in opened]


def _blocks(level: PlaneArray, plane: int, factor: int) -> Iterator[Iterator[Array]]:
    """Read rows of blocks whose sides are multiples of `factor`."""
    step = factor * max(1, BLOCK_SIDE // factor)

    def row(y: int) -> Iterator[Array]:
        y1 = min(y + step, level.height)
        for x in range(0, level.width, step):
            yield level.read(plane, y, y1, x, min(x + step, level.width))

    for y in range(0, level.height, step):
        yield row(y)
