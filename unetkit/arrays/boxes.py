"""Read a box that may overhang a plane; it does not know where the pixels come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
