"""How deep inside its cell each pixel is, in bands that are as many in every cell.

The depth of a pixel is its distance to the nearest pixel of background, between pixel centres;
gaps between touching cells are cut before, so that it is the distance to the cell's rim. What lies
beyond the edge of the image, and what nobody judged, is no rim: a cell goes on there, and nobody
knows how far. No depth is more than `REACH`, so that a tile with as much context has the depths
that the whole image has. How deep a cell is at its deepest no tile of it knows; `ObjectDepths`
keeps what all tiles found, and since the largest of the largest is the largest, bands are those of
the whole image whatever the tiles. A definition that asks the surroundings of a pixel alone would
spare that table, but would see two cores in a cell longer than these surroundings.

All numbers are whole ones: squares are compared, so that nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.arrays.meanings import REACH
from unetkit.errors import LabelError
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Stands for "no background"; its square is beyond the reach.
_NONE = np.int16(REACH + 1)
# How deep a cell is stands above its number, as classes do.
_SHIFT = 32


def squared_depths(
    cells: NDArray[Any], *, unjudged: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Give the squared distance of each pixel of a cell to the nearest pixel of background.

    Parameters
    ----------
    cells : ndarray of int, shape (Y, X)
        Instance ids with gaps cut; 0 is background.
    unjudged : ndarray of bool, shape (Y, X), optional
        Pixels that nobody annotated; they are no background.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        In pixels, at most ``REACH ** 2``; 0 on background.

    Examples
    --------
    >>> squared_depths(np.array([[0, 1, 1, 1, 0, 2, 2]])).tolist()
    [[0, 1, 4, 1, 0, 1, 4]]
    """
    outside = cells == 0
    rim = outside if unjudged is None else outside & ~unjudged
    across = np.full(cells.shape, _NONE, np.int16)
    _sweep(rim, across)
    out = np.zeros(cells.shape, np.int32)
    _look_up_and_down(across, outside, out)
    return out


def distance_bands(
    cells: NDArray[Any],
    bands: int,
    *,
    unjudged: NDArray[np.bool_] | None = None,
    largest: NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """Divide each cell into bands of the same width, from its rim to its deepest pixel.

    Of a cell that is D deep at its deepest, a pixel of depth d is in band k of K where d is above
    (k - 1) / K of D, and at most k / K of it. Cells smaller than their bands lack the outer ones::

        . 1 1 1 1 1 1 .      . 1 1 1 1 1 1 .
        . 1 1 1 1 1 1 .      . 1 2 2 2 2 1 .
        . 1 1 1 1 1 1 .  ->  . 1 2 3 3 2 1 .
        . 1 1 1 1 1 1 .      . 1 2 2 2 2 1 .
        . 1 1 1 1 1 1 .      . 1 1 1 1 1 1 .

    Parameters
    ----------
    cells : ndarray of int, shape (Y, X)
        Instance ids with gaps cut; 0 is background.
    bands : int
        How many there are.
    unjudged : ndarray of bool, shape (Y, X), optional
        Pixels that nobody annotated; they are no rim.
    largest : ndarray of int64, shape (Y, X), optional
        The squared depth of each pixel's cell at its deepest; left out, `cells` are whole.

    Returns
    -------
    ndarray of uint8, shape (Y, X)
        0 for background, then the bands from 1, at the rim, to `bands`.

    Raises
    ------
    LabelError
        If `largest` is no depth.

    Examples
    --------
    >>> distance_bands(np.array([[0, 1, 1, 1, 1, 1, 1, 1, 0, 2, 0]]), 3).tolist()
    [[0, 1, 2, 3, 3, 3, 2, 1, 0, 3, 0]]
    """
    depths = squared_depths(cells, unjudged=unjudged)
    if largest is None:
        ids, deepest = deepest_of(cells, depths)
        largest = deepest[np.searchsorted(ids, cells)]
    elif ((cells != 0) & ((largest < 1) | (largest > REACH**2))).any():
        raise LabelError(
            f"labels must say how deep each cell is, 1 to {REACH} pixels, got a cell that is"
            " something else; see them as MeasuredLabels does"
        )
    found = np.zeros(cells.shape, np.uint8)
    for band in range(bands):
        found += depths * np.int64(bands**2) > largest * band**2
    return found


def deepest_of(
    labels: NDArray[Any], depths: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the squared depth of each object at its deepest.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids.
    depths : ndarray of int32, shape (Y, X)
        As `squared_depths` gives them.

    Returns
    -------
    ids : ndarray, shape (N,)
        What is there, from low to high; background is there too.
    squared : ndarray of int64, shape (N,)
    """
    flat = labels.ravel()
    # Of a run of one id only the deepest pixel counts, and there are few runs.
    starts = np.flatnonzero(np.concatenate([np.ones(1, bool), flat[1:] != flat[:-1]]))
    starts = starts[: flat.size]
    ids, place = np.unique(flat[starts], return_inverse=True)
    squared = np.zeros(len(ids), np.int64)
    np.maximum.at(squared, place, np.maximum.reduceat(depths.ravel(), starts))
    return ids, squared


@dataclass(frozen=True, eq=False)
class ObjectDepths:
    """How deep the objects of some planes are at their deepest.

    Attributes
    ----------
    ids : tuple of ndarray, each of shape (N,)
        The ids of each plane, from low to high.
    squared : tuple of ndarray of int64, each of shape (N,)
        The squared depth of each at its deepest, at least 1.
    """

    ids: tuple[NDArray[Any], ...]
    squared: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, planes: Iterable[Iterable[tuple[NDArray[Any], NDArray[np.int64]]]]) -> ObjectDepths:
        """Join what the tiles of each plane told: ids, and the squared depth of each there."""
        every, deepest = [], []
        for tiles in planes:
            told = list(tiles)
            ids, place = np.unique(np.concatenate([one for one, _ in told]), return_inverse=True)
            squared = np.ones(len(ids), np.int64)
            np.maximum.at(squared, place, np.concatenate([two for _, two in told]))
            every.append(ids)
            deepest.append(squared)
        return cls(tuple(every), tuple(deepest))

    def above(self, plane: int, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Give each object a number from 1 on, with its squared depth above, times 2^32.

        Parameters
        ----------
        plane : int
            Where the labels are.
        labels : ndarray of int, shape (Y, X)
            Ids that are listed; 0 is background.

        Returns
        -------
        ndarray of int64, shape (Y, X)
        """
        ids, squared = self.ids[plane], self.squared[plane]
        inside = labels != 0
        found = np.zeros(labels.shape, np.int64)
        place = np.searchsorted(ids, labels[inside])
        found[inside] = (squared[place] << _SHIFT) + place + 1
        return found


@numba.njit(nogil=True, cache=is_kept())
def _sweep(rim, across):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Store how far the nearest rim of each pixel's row is, where it is within reach."""
    height, width = rim.shape
    for y in range(height):
        last = -REACH - 1
        for x in range(width):
            if rim[y, x]:
                last = x
            across[y, x] = min(across[y, x], x - last)
        last = width + REACH + 1
        for x in range(width - 1, -1, -1):
            if rim[y, x]:
                last = x
            across[y, x] = min(across[y, x], last - x)


@numba.njit(nogil=True, cache=is_kept())
def _look_up_and_down(across, outside, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Square the distance to the nearest rim: of the rows above and below, as far as it pays."""
    height, width = across.shape
    for y in range(height):
        for x in range(width):
            if outside[y, x]:
                continue
            best = min(np.int32(across[y, x]) ** 2, np.int32(REACH * REACH))
            for away in range(1, REACH):
                down = np.int32(away * away)
                if down >= best:
                    break
                if y >= away:
                    best = min(best, np.int32(across[y - away, x]) ** 2 + down)
                if y + away < height:
                    best = min(best, np.int32(across[y + away, x]) ** 2 + down)
            out[y, x] = best
