"""Boxes that cover an image, and mirrored coordinates; knows whole numbers only, no arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from unetkit.errors import UsageError


@dataclass(frozen=True)
class Tile:
    """A box to write inside the image, and the box around it to read.

    ::

        read_y0, read_x0 ------------------+
        |         (may overhang the image) |
        |      y0, x0 --------+            |
        |      |    write     |            |
        |      +-------- y1, x1            |
        |                                  |
        +------------------ read_y1, read_x1

    Boxes are half open: rows `y0` to ``y1 - 1``. All numbers are pixels of the image.

    Parameters
    ----------
    index : int
        Place in the row of all tiles, in y, x order.
    y0, x0, y1, x1 : int
        The write box, clipped to the image.
    read_y0, read_x0, read_y1, read_x1 : int
        The read box, of the same size for all tiles of an image.
    """

    index: int
    y0: int
    x0: int
    y1: int
    x1: int
    read_y0: int
    read_x0: int
    read_y1: int
    read_x1: int

    def crop(self, margin: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of a read box that belong to the write box.

        Parameters
        ----------
        margin : int
            Pixels that a model took off each side of what was read.

        Returns
        -------
        tuple of slice
            Rows and columns inside the array that the model returned.
        """
        top, left = self.read_y0 + margin, self.read_x0 + margin
        return slice(self.y0 - top, self.y1 - top), slice(self.x0 - left, self.x1 - left)


@dataclass(frozen=True)
class Cover(Sequence[Tile]):
    """The tiles of an image in y, x order, made one at a time when asked for.

    Parameters
    ----------
    height, width : int
        Size of the image, in pixels.
    tile : int
        Size of the write boxes, and the distance of their origins.
    overlap : int
        Context before the write box; after it there is at least as much.
    size : int
        Size of the read boxes.
    """

    height: int
    width: int
    tile: int
    overlap: int
    size: int

    @property
    def rows(self) -> int:
        """How many tiles lie below one another."""
        return -(-self.height // self.tile)

    @property
    def columns(self) -> int:
        """How many tiles lie side by side."""
        return -(-self.width // self.tile)

    def __len__(self) -> int:
        return self.rows * self.columns

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | list[Tile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"tile must be one of {count}, got {index}")
        index %= count
        row, column = divmod(index, self.columns)
        y0, x0 = row * self.tile, column * self.tile
        read_y0, read_x0 = y0 - self.overlap, x0 - self.overlap
        return Tile(
            index,
            y0,
            x0,
            min(y0 + self.tile, self.height),
            min(x0 + self.tile, self.width),
            read_y0,
            read_x0,
            read_y0 + self.size,
            read_x0 + self.size,
        )


def cover(
    height: int, width: int, *, tile: int, overlap: int = 0, size: int | None = None
) -> Cover:
    """Cover an image with tiles whose write boxes meet without overlap.

    ::

        overlap  tile  tile  tile(clipped)
        |-------|-----|-----|---:   image of `width` pixels
        [ read box of tile 0 ........ ]
                [ read box of tile 1 ........ ]

    Parameters
    ----------
    height, width : int
        Size of the image, in pixels.
    tile : int
        Size of the write boxes; those at the far edges are clipped to the image.
    overlap : int
        Context that is read before each write box.
    size : int, optional
        Size of every read box; left out: ``tile + 2 * overlap``. A surplus lies at the far side.

    Returns
    -------
    Cover
        A sequence of `Tile` that holds none of them.

    Raises
    ------
    UsageError
        If a size is less than one pixel, or `size` can't hold a tile and its context.

    Examples
    --------
    >>> [(t.x0, t.x1, t.read_x0, t.read_x1) for t in cover(4, 10, tile=4, overlap=1)]
    [(0, 4, -1, 5), (4, 8, 3, 9), (8, 10, 7, 13)]
    """
    whole = tile + 2 * overlap
    size = whole if size is None else size
    least = {"height": 1, "width": 1, "tile": 1, "overlap": 0, "size": whole}
    given = {"height": height, "width": width, "tile": tile, "overlap": overlap, "size": size}
    for name, bound in least.items():
        if given[name] < bound:
            raise UsageError(
                f"{name} of a cover must be at least {bound}, got {given[name]};"
                f" use {bound} or more"
            )
    return Cover(height, width, tile=tile, overlap=overlap, size=size)


def mirror(start: int, stop: int, n: int) -> list[int]:
    """Return the pixels that stand at `start` to ``stop - 1`` when an axis is mirrored.

    The edge pixel is not repeated, and the overhang may be longer than the axis. This equals
    ``numpy.pad(mode="reflect")`` of the whole axis.

    Parameters
    ----------
    start, stop : int
        A half open range that may overhang the axis on either side.
    n : int
        Length of the axis, in pixels.

    Returns
    -------
    list of int
        ``stop - start`` coordinates, each from 0 to ``n - 1``.

    Raises
    ------
    UsageError
        If the axis has no pixel.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, figure 2: the missing context is mirrored.

    Examples
    --------
    >>> mirror(-3, 6, 4)
    [3, 2, 1, 0, 1, 2, 3, 2, 1]
    """
    if n < 1:
        raise UsageError(f"an axis to mirror must have at least 1 pixel, got {n}; give it one")
    period = max(2 * (n - 1), 1)
    return [min(i % period, period - i % period) if n > 1 else 0 for i in range(start, stop)]


def mirror_span(start: int, stop: int, n: int) -> tuple[int, int]:
    """Return which pixels of an axis `mirror` names for a range that reads at least one of them.

    Parameters
    ----------
    start, stop : int
        A half open range that may overhang the axis on either side.
    n : int
        Length of the axis, in pixels.

    Returns
    -------
    tuple of int
        The first of them, and the one after the last.

    Examples
    --------
    >>> mirror_span(-3, 2, 10), mirror_span(7, 13, 10), mirror_span(-50, 60, 10)
    ((0, 4), (6, 10), (0, 10))
    """
    first = min(max(start, 0), 2 * n - 1 - stop)
    last = max(min(stop, n), 1 - start)
    return max(first, 0), min(last, n)
