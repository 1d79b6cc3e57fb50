"""Sample arrays at moved coordinates, whole or in parts; the loops are in `warp_kernels`.

The field of a coarse grid is never made in full: the grid's rows are combined once an image row,
then each pixel needs one product a grid column. Coordinates are computed once for all arrays, a
strip of rows at a time, so that they never leave the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.arrays import warp_kernels
from unetkit.arrays.dtypes import cast, limits
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


@numba.njit(nogil=True, cache=is_kept())
def locate(motion, corner, frame, found, line):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find where the pixels of a strip are taken from, to 1/65536 pixel.

    Rounding makes whole shifts and quarter turns exact, whatever the last bit says. `motion` is the
    affine part (2, 3); the displacements (Y, 2, Q) of the grid's columns at every row; how much
    each column of the grid counts at every pixel of a row (Q, X). `frame` is height and width of
    the window that is in memory, its first row and column, and the height and width of it all.

    `found` is filled: start, int32 (N, 2, X), the pixel at or before each position; part, float32
    (N, 2, X), what is left, from 0 to below 1; place, int32 or int64 (N, X), the number in the
    window of the first of the 4 by 4 pixels around the position; inside, int64 (N, 2), the run of
    pixels of each row of which `place` is true: around others some may be mirrored.
    """
    affine, rows, columns = motion
    start, part, place, inside = found
    y0, x0 = corner
    for j in range(place.shape[0]):
        y = y0 + j
        for axis in range(2):
            base = affine[axis, 0] * y + affine[axis, 2]
            slope = affine[axis, 1]
            starts, parts = start[j, axis], part[j, axis]
            for x in range(line.size):
                line[x] = base + slope * (x0 + x)
            for k in range(columns.shape[0]):
                height = rows[y, axis, k]
                column = columns[k, x0 : x0 + line.size]
                for x in range(line.size):
                    line[x] += height * column[x]
            for x in range(line.size):
                at = np.floor(line[x] * 65536.0 + 0.5) * (1 / 65536.0)
                whole = np.floor(at)
                starts[x] = np.int32(whole)
                parts[x] = np.float32(at - whole)
        inside[j, 0], inside[j, 1] = _places(start[j, 0], start[j, 1], frame, place[j])


@numba.njit(nogil=True, cache=is_kept())
def _places(starts_y, starts_x, frame, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill in where the pixels around the positions of a row begin, and return `inside` of it."""
    height, width, top, left = frame[0], frame[1], frame[2], frame[3]
    whole = place.dtype.type
    rows, columns = np.uint32(max(height - 3, 0)), np.uint32(max(width - 3, 0))
    count = 0
    for x in range(place.size):
        # One pixel before: what is negative is beyond any size as an unsigned number.
        v, u = np.int32(starts_y[x] - (top + 1)), np.int32(starts_x[x] - (left + 1))
        ok = (np.uint32(v) < rows) & (np.uint32(u) < columns)
        place[x] = whole(whole(v) * width + u) if ok else whole(-1)
        count += 1 if ok else 0
    low, high = 0, place.size
    while low < high and place[low] < 0:
        low += 1
    while high > low and place[high - 1] < 0:
        high -= 1
    if high - low > count:
        # There are several runs, as where an image is folded; one is enough.
        high = low
        while place[high] >= 0:
            high += 1
    return low, high


# Single precision holds what is computed from these, to the last digit that is kept.
_SMALL = (np.uint8, np.uint16, np.int8, np.int16, np.float32)
# Numba knows no arrays of these.
_WIDENED = (np.float16, np.bool_)
# Pixels whose coordinates are computed at a time: half a megabyte.
STRIP = 2**15

Box = tuple[int, int, int, int]
Found = tuple["NDArray[np.int32]", "NDArray[np.float32]", "NDArray[Any]", "NDArray[np.int64]"]


def keys_weights(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights (N, 4) of Keys' cubic (a = -0.5) for points -1, 0, 1, 2 around `t`.

    Examples
    --------
    >>> keys_weights(np.array([0.5]))
    array([[-0.0625,  0.5625,  0.5625, -0.0625]])
    """
    return np.stack(
        [
            t * (-0.5 + t * (1 - 0.5 * t)),
            1 + t * t * (-2.5 + 1.5 * t),
            t * (0.5 + t * (2 - 1.5 * t)),
            t * t * (-0.5 + 0.5 * t),
        ],
        axis=-1,
    )


@lru_cache(maxsize=64)
def grid_weights(size: int, points: int) -> NDArray[np.float64]:
    """Return how much each grid point counts at each pixel along one axis, (size, points).

    The first point lies on the first pixel, the last on the last; rows add up to 1. The result is
    read-only, since the same one is returned again.
    """
    pixels = np.arange(size, dtype=np.float64)
    # A single pixel lies in the middle of the grid.
    at = pixels * (points - 1) / (size - 1) if size > 1 else np.array([(points - 1) / 2])
    weights = point_weights(at, points)
    weights.setflags(write=False)
    return weights


def point_weights(at: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return how much each grid point counts at positions from 0 to ``points - 1``, (N, points).

    There are at least 2 points; the outermost are repeated.
    """
    start = np.minimum(np.floor(at), points - 2).astype(int)
    taps = keys_weights(at - start)
    weights = np.zeros((len(at), points))
    for k in range(4):
        point = np.clip(start + k - 1, 0, points - 1)
        np.add.at(weights, (np.arange(len(at)), point), taps[:, k])
    return weights


class Sampler:
    """Samples arrays of one height and width at ``matrix @ p + offset + field(p)``.

    Parameters
    ----------
    matrix : ndarray of float64, shape (2, 2)
        The linear part.
    offset : ndarray of float64, shape (2,)
        The constant part, in pixels.
    grid : ndarray of float64, shape (2, P, Q)
        Displacements in pixels at the points of a coarse grid over the result.
    shape : tuple of int
        Height and width of the arrays.
    result_shape : tuple of int, optional
        Height and width of what comes out; left out, those of the arrays.
    """

    def __init__(
        self,
        matrix: NDArray[np.float64],
        offset: NDArray[np.float64],
        *,
        grid: NDArray[np.float64],
        shape: tuple[int, int],
        result_shape: tuple[int, int] | None = None,
    ) -> None:
        self.shape = shape
        self.result_shape = result_shape or shape
        rows = grid_weights(self.result_shape[0], grid.shape[1])
        columns = grid_weights(self.result_shape[1], grid.shape[2])
        self._motion = (
            np.column_stack([matrix, offset]),
            # (Y, 2, Q): the displacements of the grid's columns at every row.
            np.ascontiguousarray((rows @ grid).transpose(1, 0, 2)),
            np.ascontiguousarray(columns.T),
        )

    def __call__(
        self,
        arrays: Sequence[tuple[NDArray[Any], str]],
        *,
        box: Box | None = None,
        corner: tuple[int, int] = (0, 0),
    ) -> list[NDArray[Any]]:
        """Sample arrays by one set of coordinates.

        Parameters
        ----------
        arrays : sequence of (ndarray, str)
            What is sampled, shape (C, Y, X) or (Y, X), and how: ``cubic`` or ``nearest``.
            Their dtypes are kept.
        box : tuple of int, optional
            Which rows y0 to y1 and columns x0 to x1 of the result are wanted.
        corner : tuple of int
            First row and column of the arrays, where they are but the part that `source` names.

        Returns
        -------
        list of ndarray
            Of the height and width of the box.
        """
        y0, y1, x0, x1 = box or (0, self.result_shape[0], 0, self.result_shape[1])
        height, width = arrays[0][0].shape[-2:]
        frame = (height, width, *corner, *self.shape)
        loops = [_LOOPS[kind](array, (y1 - y0, x1 - x0)) for array, kind in arrays]
        for row, *found in self._strips((y0, y1, x0, x1), frame):
            for loop in loops:
                loop.fill((*found, frame, row))
        return [loop.result() for loop in loops]

    def source(self, box: Box) -> Box:
        """Name the rows and columns of the arrays that a part of the result is made of.

        Parameters
        ----------
        box : tuple of int
            Rows y0 to y1 and columns x0 to x1 of the result.

        Returns
        -------
        tuple of int
            y0, y1, x0, x1, inside the arrays.
        """
        low, high = np.full(2, 2**31 - 1), np.full(2, -(2**31))
        whole = (*self.shape, 0, 0, *self.shape)
        for _, start, *_ in self._strips(box, whole):
            low = np.minimum(low, start.min(axis=(0, 2)))
            high = np.maximum(high, start.max(axis=(0, 2)))
        # The taps of the cubic reach one pixel before and two after.
        (y0, y1), (x0, x1) = (
            _unmirrored(int(first) - 1, int(last) + 2, size)
            for first, last, size in zip(low, high, self.shape, strict=True)
        )
        return y0, y1, x0, x1

    def _strips(self, box: Box, frame: tuple[int, ...]) -> Iterator[tuple[int, *Found]]:
        """Locate the pixels of a box, a strip of rows at a time, in the same memory."""
        y0, y1, x0, x1 = box
        width = x1 - x0
        high = max(1, min(STRIP // width, y1 - y0))
        starts = np.empty((high, 2, width), np.int32)
        parts = np.empty((high, 2, width), np.float32)
        places = np.empty((high, width), _numbers(frame[0] * frame[1]))
        inside = np.empty((high, 2), np.int64)
        line = np.empty(width)
        for y in range(y0, y1, high):
            rows = min(high, y1 - y)
            found = starts[:rows], parts[:rows], places[:rows], inside[:rows]
            locate(self._motion, (y, x0), frame, found, line)
            yield y - y0, *found


def _numbers(pixels: int) -> type[np.integer[Any]]:
    """Return what numbers the pixels of a window: the shorter, the more are computed at once."""
    return np.int32 if pixels < 2**31 else np.int64


def _unmirrored(first: int, last: int, size: int) -> tuple[int, int]:
    """Return where the coordinates from `first` to `last` lie once they are mirrored."""
    if first <= -size or last >= 2 * size - 1:
        return 0, size
    low, high = max(first, 0), min(last, size - 1)
    if first < 0:
        low, high = 0, max(high, -first)
    if last >= size:
        low, high = min(low, 2 * (size - 1) - last), size - 1
    return low, high + 1


class _Loop:
    """An array, how it is sampled, its result, and the memory that this takes."""

    def __init__(self, array: NDArray[Any], shape: tuple[int, int]) -> None:
        # The kernels are compiled for contiguous and writable arrays in the machine's byte order.
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        self._array = np.require(native, requirements=["C", "W"])
        self._out = np.empty((*array.shape[:-2], *shape), native.dtype)

    def fill(self, where: tuple[Any, ...]) -> None:
        """Sample a strip."""
        raise NotImplementedError

    def result(self) -> NDArray[Any]:
        """Return the whole, once it is filled."""
        return self._out


class _Cubic(_Loop):
    def __init__(self, array: NDArray[Any], shape: tuple[int, int]) -> None:
        wide = array.astype(np.float32) if array.dtype in _WIDENED else array
        super().__init__(wide.reshape(-1, *array.shape[-2:]), shape)
        real = np.dtype(np.float32 if wide.dtype in _SMALL else np.float64)
        self._final = ((*array.shape[:-2], *shape), array.dtype.newbyteorder("="))
        self._limits = limits(wide.dtype, real) if wide.dtype.kind in "iu" else None
        width = shape[1]
        self._room = (
            np.empty((2, 4, width), real),
            np.empty(4 * width, real),
        )

    def fill(self, where: tuple[Any, ...]) -> None:
        warp_kernels.cubic(self._array, where, self._room, self._limits, self._out)

    def result(self) -> NDArray[Any]:
        shape, dtype = self._final
        out = self._out if self._out.dtype == dtype else cast(self._out, dtype)
        return out.reshape(shape)


class _Nearest(_Loop):
    def __init__(self, array: NDArray[Any], shape: tuple[int, int]) -> None:
        super().__init__(array, shape)
        self._room = np.empty(shape[1], _numbers(array.size))
        # Only bits are moved: one kernel for each size of integer.
        bits = np.dtype(f"u{array.dtype.itemsize}")
        self._bits = self._array.view(bits), self._out.view(bits)

    def fill(self, where: tuple[Any, ...]) -> None:
        array, out = self._bits
        warp_kernels.nearest(array, where, self._room, out)


_LOOPS: dict[str, type[_Loop]] = {"cubic": _Cubic, "nearest": _Nearest}
