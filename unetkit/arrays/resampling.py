"""Sample an array at moved coordinates: the kernels under `deformation`.

The field of a coarse grid is never made in full: the grid's rows are combined once an image row,
then each pixel needs one product a grid column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.arrays.dtypes import cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALL = (np.uint8, np.uint16, np.int8, np.int16, np.float16, np.float32)


def keys_weights(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the four weights of Keys' cubic (a = -0.5) for points -1, 0, 1, 2 around `t`.

    Parameters
    ----------
    t : ndarray of float, shape (N,)
        Position between point 0 and point 1, from 0 to 1.

    Returns
    -------
    ndarray of float64, shape (N, 4)

    Examples
    --------
    >>> keys_weights(np.array([0.0, 0.5]))
    array([[ 0.    ,  1.    ,  0.    ,  0.    ],
           [-0.0625,  0.5625,  0.5625, -0.0625]])
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


def grid_weights(size: int, points: int) -> NDArray[np.float64]:
    """Return how much each grid point counts at each pixel along one axis.

    Parameters
    ----------
    size : int
        Pixels along the axis.
    points : int
        Grid points along it, the first on the first pixel, the last on the last.

    Returns
    -------
    ndarray of float64, shape (size, points)
        Rows add up to 1.
    """
    pixels = np.arange(size, dtype=np.float64)
    # A single pixel lies in the middle of the grid.
    at = pixels * (points - 1) / (size - 1) if size > 1 else np.array([(points - 1) / 2])
    return point_weights(at, points)


def point_weights(at: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return how much each grid point counts at given positions; the outermost are repeated.

    Parameters
    ----------
    at : ndarray of float, shape (N,)
        Positions from 0 to ``points - 1``.
    points : int
        How many grid points there are; at least 2.

    Returns
    -------
    ndarray of float64, shape (N, points)
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
        Displacements in pixels at the points of a coarse grid.
    shape : tuple of int
        Height and width of the arrays.
    """

    def __init__(
        self,
        matrix: NDArray[np.float64],
        offset: NDArray[np.float64],
        grid: NDArray[np.float64],
        shape: tuple[int, int],
    ) -> None:
        rows = grid_weights(shape[0], grid.shape[1])
        self._affine = np.column_stack([matrix, offset])
        # (Y, 2, Q): the displacements of the grid's columns at every image row.
        self._rows = np.ascontiguousarray((rows @ grid).transpose(1, 0, 2))
        self._columns = grid_weights(shape[1], grid.shape[2])

    def __call__(self, array: NDArray[Any], kind: str) -> NDArray[Any]:
        """Sample an array.

        Parameters
        ----------
        array : ndarray, shape (C, Y, X) or (Y, X)
            What is sampled; its dtype is kept.
        kind : str
            ``cubic``, ``linear`` or ``nearest``.

        Returns
        -------
        ndarray, shape as the array
        """
        if kind == "nearest":
            return self._nearest(array)
        planes = array.reshape(-1, *array.shape[-2:])
        real = np.float32 if array.dtype in _SMALL or array.dtype == bool else np.float64
        plain = planes if planes.dtype in (np.uint8, np.uint16) else planes.astype(real)
        out = np.empty(planes.shape, real)
        kernel = _cubic if kind == "cubic" else _linear
        kernel(_plain(plain), self._affine, self._rows, self._columns, out)
        return cast(out, array.dtype).reshape(array.shape)

    def _nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        # Only bits are moved: one kernel for each size of integer.
        bits = _plain(array).view(f"u{array.dtype.itemsize}")
        out = np.empty(bits.shape, bits.dtype)
        _nearest(bits, self._affine, self._rows, self._columns, out)
        return out.view(array.dtype)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and writable, since the kernels are compiled for that."""
    return np.require(array, requirements=["C", "W"])


@numba.njit(nogil=True, cache=True)
def _position(y, x, axis, affine, rows, columns):  # type: ignore[no-untyped-def]  # pragma: no cover
    at = affine[axis, 0] * y + affine[axis, 1] * x + affine[axis, 2]
    for k in range(columns.shape[1]):
        at += rows[y, axis, k] * columns[x, k]
    # Rounding makes whole shifts and quarter turns exact, whatever the last bit says.
    return np.floor(at * 65536.0 + 0.5) / 65536.0


@numba.njit(nogil=True, cache=True)
def _mirror(i, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    if 0 <= i < n:
        return i
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@numba.njit(nogil=True, cache=True)
def _taps(at, n, indices, weights):  # type: ignore[no-untyped-def]  # pragma: no cover
    start = int(np.floor(at))
    t = at - start
    weights[0] = t * (-0.5 + t * (1.0 - 0.5 * t))
    weights[1] = 1.0 + t * t * (-2.5 + 1.5 * t)
    weights[2] = t * (0.5 + t * (2.0 - 1.5 * t))
    weights[3] = t * t * (-0.5 + 0.5 * t)
    for k in range(4):
        indices[k] = _mirror(start - 1 + k, n)


@numba.njit(nogil=True, cache=True)
def _cubic(array, affine, rows, columns, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    channels, height, width = array.shape
    at_y, at_x = np.empty(4, np.int64), np.empty(4, np.int64)
    by_y, by_x = np.empty(4, out.dtype), np.empty(4, out.dtype)
    for y in range(height):
        for x in range(width):
            _taps(_position(y, x, 0, affine, rows, columns), height, at_y, by_y)
            _taps(_position(y, x, 1, affine, rows, columns), width, at_x, by_x)
            for c in range(channels):
                total = by_y[0] * 0
                for j in range(4):
                    line = by_x[0] * array[c, at_y[j], at_x[0]]
                    for i in range(1, 4):
                        line += by_x[i] * array[c, at_y[j], at_x[i]]
                    total += by_y[j] * line
                out[c, y, x] = total


@numba.njit(nogil=True, cache=True)
def _linear(array, affine, rows, columns, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    channels, height, width = array.shape
    for y in range(height):
        for x in range(width):
            at_y = _position(y, x, 0, affine, rows, columns)
            at_x = _position(y, x, 1, affine, rows, columns)
            v, u = int(np.floor(at_y)), int(np.floor(at_x))
            t, s = at_y - v, at_x - u
            v0, v1 = _mirror(v, height), _mirror(v + 1, height)
            u0, u1 = _mirror(u, width), _mirror(u + 1, width)
            for c in range(channels):
                upper = (1 - s) * array[c, v0, u0] + s * array[c, v0, u1]
                lower = (1 - s) * array[c, v1, u0] + s * array[c, v1, u1]
                out[c, y, x] = (1 - t) * upper + t * lower


@numba.njit(nogil=True, cache=True)
def _nearest(array, affine, rows, columns, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = array.shape
    for y in range(height):
        for x in range(width):
            v = int(np.floor(_position(y, x, 0, affine, rows, columns) + 0.5))
            u = int(np.floor(_position(y, x, 1, affine, rows, columns) + 0.5))
            out[y, x] = array[_mirror(v, height), _mirror(u, width)]
