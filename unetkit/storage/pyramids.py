"""Smaller levels of an image and its labels, each made from the stored level before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.storage.creation import create_array, replace_attributes
from unetkit.storage.files import discard
from unetkit.storage.metadata import array_below, multiscales, ome, ome_part, read_multiscale
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.planes import PlaneArray, plane_array
from unetkit.storage.urls import exists, inside, join

if TYPE_CHECKING:
    from collections.abc import Callable

    Reduce = Callable[[np.ndarray[Any, Any], int, int], np.ndarray[Any, Any]]

# Viewers open a level of this side at once.
LARGEST_TOP = 1024
# Blocks of whole chunks up to this side are made in one go, whatever the size of the image.
BLOCK_SIDE = 1024


def add_pyramid(url_of_image: str, *, anew: bool = False) -> None:
    """Add levels of half the size until the longer side is at most 1024 pixels.

    The image's pixels are means of blocks of two by two, those of its labels are every second
    pixel of every second row, since a mean of labels is no label. Labels get as many levels as
    their image. Each level is made from the stored one before, a few chunks at a time, and is
    listed in the metadata once all levels are whole; what an interrupted call left is made again.

    Parameters
    ----------
    url_of_image : str
        An OME-Zarr image that this library may write to.
    anew : bool
        Make levels that are there already again, for when they may not be what was written.

    Raises
    ------
    InputError
        If there is no such image.
    """
    node = _group(url_of_image)
    count = _add_levels(node, count=None, nearest=False, anew=anew)
    folder = join(url_of_image, "labels")
    listing = read_node(folder)
    names = ome(listing).get("labels", []) if isinstance(listing, GroupNode) else []
    for name in names:
        labels = _group(inside(folder, name, what="a label's name"))
        _add_levels(labels, count=count, nearest=True, anew=anew)


def _group(url: str) -> GroupNode:
    node = read_node(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be an OME-Zarr image, got something else there")
    return node


def _add_levels(node: GroupNode, *, count: int | None, nearest: bool, anew: bool) -> int:
    multiscale = read_multiscale(node)
    if multiscale is None:
        raise InputError(f"{node.url} must be an OME-Zarr image, got something else there")
    axes = multiscale.axes
    level = plane_array(array_below(multiscale.paths[0]), axes=axes, has_channels="c" in axes)
    if count is None:
        count = level_count(level.height, level.width)
    factors = [(1, 1)]
    for number in range(1, count):
        steps = (2 if level.height > 1 else 1, 2 if level.width > 1 else 1)
        factors.append((factors[-1][0] * steps[0], factors[-1][1] * steps[1]))
        place = join(node.url, str(number))
        if number < len(multiscale.paths) and not anew:
            level = plane_array(array_below(place), axes=axes, has_channels=level.has_channels)
            continue
        if exists(place):
            discard(place)
        level = _halve(level, place, steps=steps, reduce=every_second if nearest else block_mean)
    if count > len(multiscale.paths):
        document = multiscales(
            name=multiscale.name,
            axes=axes,
            pixel_size=multiscale.pixel_size,
            factors=factors,
            nearest=nearest,
        )
        found = {**(ome(node) if node.zarr_format == 3 else {}), "multiscales": document}
        replace_attributes(node.url, ome_part(found, zarr_format=node.zarr_format))
    return count


def level_count(height: int, width: int) -> int:
    """Count the levels until the longer side is at most 1024 pixels.

    >>> level_count(1024, 800), level_count(1025, 10), level_count(100_000, 100_000)
    (1, 2, 8)
    """
    count, side = 1, max(height, width)
    while side > LARGEST_TOP:
        side = -(-side // 2)
        count += 1
    return count


def _halve(level: PlaneArray, place: str, *, steps: tuple[int, int], reduce: Reduce) -> PlaneArray:
    """Store the next smaller level, a few chunks at a time."""
    fy, fx = steps
    sizes = {"y": -(-level.height // fy), "x": -(-level.width // fx)}
    chunks = dict(zip(level.axes, level.chunks, strict=True))
    node = create_array(
        place,
        shape=[sizes.get(axis, level.size(axis)) for axis in level.axes],
        axes=level.axes,
        dtype=level.dtype,
        chunks=[min(chunks[axis], sizes.get(axis, chunks[axis])) for axis in level.axes],
        zarr_format=level.zarr_format,
    )
    smaller = plane_array(node, axes=level.axes, has_channels=level.has_channels)
    high, wide = (side * max(1, BLOCK_SIDE // side) for side in smaller.chunk)
    for plane in range(level.planes):
        for y in range(0, smaller.height, high):
            for x in range(0, smaller.width, wide):
                y1, x1 = min(y + high, smaller.height), min(x + wide, smaller.width)
                block = level.read(
                    plane, y * fy, min(y1 * fy, level.height), x * fx, min(x1 * fx, level.width)
                )
                smaller.write(plane, y, x, reduce(block, fy, fx))
    return smaller


def every_second(block: np.ndarray[Any, Any], fy: int, fx: int) -> np.ndarray[Any, Any]:
    """Keep the first pixel of each block of `fy` x `fx`.

    >>> every_second(np.arange(6).reshape(2, 3), 2, 2)
    array([[0, 2]])
    """
    return block[..., ::fy, ::fx]


def block_mean(block: np.ndarray[Any, Any], fy: int, fx: int) -> np.ndarray[Any, Any]:
    """Average blocks of `fy` x `fx` pixels; a block cut off at the end averages what it has.

    Integers are rounded, halves to even.

    >>> block_mean(np.array([[0, 4, 9], [2, 2, 9]], np.uint8), 2, 2)
    array([[2, 9]], dtype=uint8)
    """
    pad = [(0, 0)] * (block.ndim - 2) + [(0, -block.shape[-2] % fy), (0, -block.shape[-1] % fx)]
    # Repeating the last row where one is missing leaves the mean of what there is.
    whole = np.pad(block, pad, mode="edge")
    lead, (high, wide) = whole.shape[:-2], whole.shape[-2:]
    exact = np.float32 if block.dtype.itemsize <= 2 or block.dtype == np.float32 else np.float64
    blocks = whole.reshape(*lead, high // fy, fy, wide // fx, fx)
    mean: np.ndarray[Any, Any] = blocks.mean(axis=(-3, -1), dtype=exact)
    if block.dtype.kind in "iu":
        mean = np.rint(mean)
    return mean.astype(block.dtype)
