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
        *,
        grid: NDArray[np.float64],
        shape: tuple[int, int],
    ) -> None:
        rows = grid_weights(shape[0], grid.shape[1])
        self._motion = (
            np.column_stack([matrix, offset]),
            # (Y, 2, Q): the displacements of the grid's columns at every image row.
            np.ascontiguousarray((rows @ grid).transpose(1, 0, 2)),
            grid_weights(shape[1], grid.shape[2]),
        )

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
        kernel(_plain(plain), self._motion, out)
        return cast(out, array.dtype).reshape(array.shape)

    def _nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        # Only bits are moved: one kernel for each size of integer.
        bits = _plain(array).view(f"u{array.dtype.itemsize}")
        out = np.empty(bits.shape, bits.dtype)
        _nearest(bits, self._motion, out)
        return out.view(array.dtype)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and writable, since the kernels are compiled for that."""
    return np.require(array, requirements=["C", "W"])


@numba.njit(nogil=True, cache=True)
def _position(y, x, motion):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return where a pixel is taken from, to 1/65536 pixel.

    Rounding makes whole shifts and quarter turns exact, whatever the last bit says.
    """
    affine, rows, columns = motion
    at_y = affine[0, 0] * y + affine[0, 1] * x + affine[0, 2]
    at_x = affine[1, 0] * y + affine[1, 1] * x + affine[1, 2]
    for k in range(columns.shape[1]):
        at_y += rows[y, 0, k] * columns[x, k]
        at_x += rows[y, 1, k] * columns[x, k]
    return np.floor(at_y * 65536.0 + 0.5) / 65536.0, np.floor(at_x * 65536.0 + 0.5) / 65536.0


@numba.njit(nogil=True, cache=True)
def _mirror(i, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    if 0 <= i < n:
        return i
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@numba.njit(nogil=True, cache=True)
def _taps(at, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the four pixels around a position and their weights, those of `keys_weights`."""
    start = int(np.floor(at))
    t = at - start
    weights = (
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    )
    if 1 <= start < n - 2:
        return (start - 1, start, start + 1, start + 2), weights
    pixels = (
        _mirror(start - 1, n),
        _mirror(start, n),
        _mirror(start + 1, n),
        _mirror(start + 2, n),
    )
    return pixels, weights


@numba.njit(nogil=True, cache=True)
def _cubic(array, motion, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    channels, height, width = array.shape
    for y in range(height):
        for x in range(width):
            at_y, at_x = _position(y, x, motion)
            rows, by_y = _taps(at_y, height)
            columns, by_x = _taps(at_x, width)
            for c in range(channels):
                total = 0.0
                for j in range(4):
                    line = 0.0
                    for i in range(4):
                        line += by_x[i] * array[c, rows[j], columns[i]]
                    total += by_y[j] * line
                out[c, y, x] = total


@numba.njit(nogil=True, cache=True)
def _linear(array, motion, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    channels, height, width = array.shape
    for y in range(height):
        for x in range(width):
            at_y, at_x = _position(y, x, motion)
            v, u = int(np.floor(at_y)), int(np.floor(at_x))
            t, s = at_y - v, at_x - u
            v0, v1 = _mirror(v, height), _mirror(v + 1, height)
            u0, u1 = _mirror(u, width), _mirror(u + 1, width)
            for c in range(channels):
                upper = (1 - s) * array[c, v0, u0] + s * array[c, v0, u1]
                lower = (1 - s) * array[c, v1, u0] + s * array[c, v1, u1]
                out[c, y, x] = (1 - t) * upper + t * lower


@numba.njit(nogil=True, cache=True)
def _nearest(array, motion, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = array.shape
    for y in range(height):
        for x in range(width):
            at_y, at_x = _position(y, x, motion)
            v, u = int(np.floor(at_y + 0.5)), int(np.floor(at_x + 0.5))
            out[y, x] = array[_mirror(v, height), _mirror(u, width)]
