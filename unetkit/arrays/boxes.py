"""Read a box that may overhang a plane; it does not know where the pixels come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from unetkit.geometry.tiles import Tile, mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def gather(
    read: Callable[[int, int, int, int], NDArray[Any]],
    rows: Sequence[int],
    columns: Sequence[int],
) -> NDArray[Any]:
    """Collect the pixels at `rows` and `columns`, such as `geometry.tiles.mirror` names them.

    One contiguous read and an index in memory: a store is slow at picking single rows.

    Parameters
    ----------
    read : callable
        Takes y0, y1, x0, x1 inside the plane and returns shape (C, Y, X) or (Y, X).
    rows, columns : sequence of int
        Coordinates inside the plane; neighbours differ by at most one.

    Returns
    -------
    ndarray, shape (C, len(rows), len(columns)) or (len(rows), len(columns))
    """
    top, left = min(rows), min(columns)
    bottom, right = max(rows) + 1, max(columns) + 1
    block = read(top, bottom, left, right)
    if len(rows) != bottom - top or rows[0] != top:
        block = block[..., [row - top for row in rows], :]
    if len(columns) != right - left or columns[0] != left:
        block = block[..., [column - left for column in columns]]
    return block


class Plane(Protocol):
    """What `read_tile` asks of its input; a `PlaneArray` is one."""

    @property
    def height(self) -> int:
        """Rows of a plane."""

    @property
    def width(self) -> int:
        """Columns of a plane."""

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box that lies inside the plane."""


def read_tile(data: Plane, plane: int, tile: Tile) -> NDArray[Any]:
    """Read a tile's read box; what overhangs the plane is mirrored at its edges.

    Parameters
    ----------
    data : Plane
        An image, labels or weights, stored or in memory.
    plane : int
        Which of the planes along t and z.
    tile : Tile
        Its read box may overhang the plane by any amount.

    Returns
    -------
    ndarray, shape (C, Y, X) or (Y, X)
        As `data` reads. Equal to the same box of the plane padded with
        `numpy.pad(mode="reflect")`.
    """
    return gather(
        lambda y0, y1, x0, x1: data.read(plane, y0, y1, x0, x1),
        mirror(tile.read_y0, tile.read_y1, data.height),
        mirror(tile.read_x0, tile.read_x1, data.width),
    )


def inside(
    data: Plane, rows: tuple[int, int], columns: tuple[int, int], *, reach: int = 0
) -> tuple[int, int, int, int]:
    """Return what lies in the plane of a box and `reach` pixels around it.

    Parameters
    ----------
    data : Plane
        Only its size counts.
    rows, columns : tuple of int
        The first, and the one after the last.
    reach : int
        Pixels around the box.

    Returns
    -------
    tuple of int
        y0, y1, x0, x1, as `Plane.read` takes them.
    """
    return (
        max(rows[0] - reach, 0),
        min(rows[1] + reach, data.height),
        max(columns[0] - reach, 0),
        min(columns[1] + reach, data.width),
    )


def read_around(
    data: Plane, plane: int, rows: tuple[int, int], columns: tuple[int, int], *, reach: int
) -> NDArray[Any]:
    """Read a box of labels and `reach` pixels around it, 0 outside the image.

    Parameters
    ----------
    data : Plane
        Labels.
    plane : int
        Which of the planes along t and z.
    rows, columns : tuple of int
        The first, and the one after the last.
    reach : int
        Pixels around the box.

    Returns
    -------
    ndarray, shape (Y + 2 reach, X + 2 reach)
    """
    y0, y1, x0, x1 = inside(data, rows, columns, reach=reach)
    beside = (
        (y0 - rows[0] + reach, rows[1] + reach - y1),
        (x0 - columns[0] + reach, columns[1] + reach - x1),
    )
    return np.pad(data.read(plane, y0, y1, x0, x1), beside)
