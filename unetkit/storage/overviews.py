"""Read a stored plane made smaller, from the nearest level of its pyramid where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.storage.metadata import array_below, read_multiscale
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.planes import PlaneArray, plane_array
from unetkit.storage.pyramids import block_mean, every_second

if TYPE_CHECKING:
    from unetkit.storage.nodes import ArrayNode

# Rows that are read at a time, so that a slide is never in memory whole.
ROWS = 1024


def factor_for(height: int, width: int, *, longest: int, pixels: int) -> int:
    """Choose by how much a plane is made smaller: a power of two.

    >>> factor_for(512, 512, longest=2048, pixels=2**22), factor_for(50_000, 400, longest=2048,
    ...     pixels=2**22), factor_for(2048, 2048, longest=2048, pixels=2**20)
    (1, 32, 2)

    Parameters
    ----------
    height, width : int
    longest : int
        The longest side that the result may have.
    pixels : int
        The most pixels that it may have.
    """
    factor = 1
    while (
        -(-max(height, width) // factor) > longest
        or -(-height // factor) * -(-width // factor) > pixels
    ):
        factor *= 2
    return factor


def read_smaller(
    array: PlaneArray, plane: int, *, factor: int, nearest: bool
) -> np.ndarray[Any, Any]:
    """Read a plane, each block of `factor` x `factor` pixels as one.

    Parameters
    ----------
    array : PlaneArray
    plane : int
    factor : int
        A power of two.
    nearest : bool
        Whether a block is its first pixel, as for labels, or its mean.

    Returns
    -------
    ndarray, shape (C, Y, X) for an image, (Y, X) otherwise
    """
    level, there = _level(array, factor)
    step = factor // there
    reduce = every_second if nearest else block_mean
    parts = []
    for y in range(0, level.height, rows := max(ROWS // step, 1) * step):
        block = level.read(plane, y, min(y + rows, level.height), 0, level.width)
        parts.append(reduce(block, step, step))
    return np.concatenate(parts, axis=-2)


def _level(array: PlaneArray, factor: int) -> tuple[PlaneArray, int]:
    """Find the smallest stored level that is no smaller than what is wanted."""
    found, there = array, 1
    if array.item is not None:
        return found, there
    node = read_node(array.url.rstrip("/").rpartition("/")[0] or ".")
    multiscale = read_multiscale(node) if isinstance(node, GroupNode) else None
    for number, path in enumerate(multiscale.paths if multiscale else ()):
        level = array_below(path)
        if number and 2**number <= factor and _is_level(array, level, 2**number):
            found = plane_array(level, axes=array.axes, has_channels=array.has_channels)
            found, there = found.pick(array.picked or ()) if array.picked else found, 2**number
    return found, there


def _is_level(array: PlaneArray, level: ArrayNode, factor: int) -> bool:
    """Whether a stored array is the given one, `factor` times smaller along y and x alone."""
    wanted = [
        -(-size // factor) if axis in "yx" else size
        for axis, size in zip(array.axes, array.shape, strict=True)
    ]
    return list(level.shape) == wanted
