"""The inner loops of a warp: where pixels come from, and what is there; one image row at a time.

Rows of numbers that lie in the nearest cache are worked through one after the other, so that all
but the look-ups themselves are vector instructions. No sum is re-ordered and none is fused: a pixel
has the same bits wherever in an array, a tile or a strip it lies.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_THREE_HALVES = np.float32(1.5)
_TWO = np.float32(2.0)
_FIVE_HALVES = np.float32(2.5)


@numba.njit(nogil=True, cache=True)
def locate(motion, corner, start, part, line):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find where the pixels of a strip are taken from, to 1/65536 pixel.

    Rounding makes whole shifts and quarter turns exact, whatever the last bit says.

    Parameters
    ----------
    motion : tuple
        The affine part (2, 3); the displacements (Y, 2, Q) of the grid's columns at every row; how
        much each column of the grid counts at every pixel of a row (Q, X).
    corner : tuple of int
        First row and column of the strip.
    start : ndarray of int32, shape (2, N, X)
        Gets the pixel at or before each position.
    part : ndarray of float32, shape (2, N, X)
        Gets what is left, from 0 to below 1.
    line : ndarray of float64, shape (X,)
        Room to work in.
    """
    affine, rows, columns = motion
    y0, x0 = corner
    for j in range(start.shape[1]):
        y = y0 + j
        for axis in range(2):
            base = affine[axis, 0] * y + affine[axis, 2]
            slope = affine[axis, 1]
            starts, parts = start[axis, j], part[axis, j]
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


@numba.njit(nogil=True, cache=True)
def _mirror(i, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    if 0 <= i < n:
        return i
    # One reflection is enough nearly always, and a division takes as long as forty pixels.
    once = -i if i < 0 else 2 * (n - 1) - i
    if 0 <= once < n:
        return once
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@numba.njit(nogil=True, cache=True)
def _places(starts, reach, frame, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find the number of the first pixel that each position needs; -1 where some are mirrored.

    `reach` is how many pixels before and after the start are needed; `frame` the height and width
    of the window that is in memory, its first row and column, and the height and width of it all.
    """
    starts_y, starts_x = starts
    before, after = reach
    height, width, top, left = frame[0], frame[1], frame[2], frame[3]
    for x in range(place.size):
        v, u = np.int64(starts_y[x]) - top - before, np.int64(starts_x[x]) - left - before
        ok = (v >= 0) & (v < height - before - after) & (u >= 0) & (u < width - before - after)
        place[x] = v * width + u if ok else -1


@numba.njit(nogil=True, cache=True)
def _keys(part, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill in the four weights of `resampling.keys_weights` for a row of positions."""
    first, second, third, fourth = out[0], out[1], out[2], out[3]
    for x in range(part.size):
        # Stored and read again, it has the precision that the sums are made with.
        first[x] = part[x]
        t = first[x]
        first[x] = t * (-_HALF + t * (_ONE - _HALF * t))
        second[x] = _ONE + t * t * (-_FIVE_HALVES + _THREE_HALVES * t)
        third[x] = t * (_HALF + t * (_TWO - _THREE_HALVES * t))
        fourth[x] = t * t * (-_HALF + _HALF * t)


@intrinsic
def _sum_rows(context, out, at, pixels, place, stride, weights):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Store at `out[at]` the weighted sum of rows of pixels, as many in a row as there are rows.

    The compiler does not find these short vectors by itself; with them the warp takes half the
    time.
    """
    signature = types.void(out, at, pixels, place, stride, weights)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out, at, pixels, place, stride, weights = args
        out_type, _, pixel_type, _, _, weights_type = signature.args
        real = context.get_value_type(out_type.dtype)
        element = context.get_data_type(pixel_type.dtype)
        count = len(weights_type)
        vector = ir.VectorType(real, count)
        source = context.make_array(pixel_type)(context, builder, pixels).data
        total = None
        for k in range(count):
            where = builder.bitcast(
                builder.gep(source, [place]), ir.VectorType(element, count).as_pointer()
            )
            row = builder.load(where, align=context.get_abi_sizeof(element))
            if isinstance(pixel_type.dtype, types.Integer):
                signed = pixel_type.dtype in types.signed_domain
                row = (builder.sitofp if signed else builder.uitofp)(row, vector)
            factor = ir.Constant(vector, ir.Undefined)
            for i in range(count):
                lane = ir.Constant(ir.IntType(32), i)
                factor = builder.insert_element(factor, builder.extract_value(weights, k), lane)
            term = builder.fmul(row, factor)
            total = term if total is None else builder.fadd(total, term)
            place = builder.add(place, stride)
        target = context.make_array(out_type)(context, builder, out).data
        where = builder.bitcast(builder.gep(target, [at]), vector.as_pointer())
        builder.store(total, where, align=context.get_abi_sizeof(real))
        return context.get_dummy_value()

    return signature, generate


@numba.njit(nogil=True, cache=True)
def cubic(array, where, room, limits, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sample a strip by 4 by 4 Keys taps.

    Parameters
    ----------
    array : ndarray, shape (C, Y, X)
        The window that is in memory.
    where : tuple
        start and part, as `locate` fills them; `frame`, as `_places` takes it; the row of `out`
        where the strip begins.
    room : tuple of ndarray
        place, int64, shape (X,); taps, shape (2, 4, X); sums, shape (4 * X,); patch, shape (16,);
        these three of the precision of the sums.
    limits : tuple of float, or None
        What integers are clipped to, after rounding.
    out : ndarray, shape (C, Y, X)
        The strip's rows are filled.
    """
    start, part, frame, first = where
    place, taps, sums, patch = room
    height, width = frame[0], frame[1]
    below, right = taps[0], taps[1]
    for j in range(start.shape[1]):
        _places((start[0, j], start[1, j]), (1, 2), frame, place)
        _keys(part[0, j], below)
        _keys(part[1, j], right)
        for c in range(array.shape[0]):
            pixels = array[c].reshape(height * width)
            for x in range(place.size):
                weights = (below[0, x], below[1, x], below[2, x], below[3, x])
                at = place[x]
                if at >= 0:
                    _sum_rows(sums, 4 * x, pixels, at, width, weights)
                else:
                    _mirrored(array[c], (start[0, j, x] - 1, start[1, j, x] - 1), frame, patch)
                    _sum_rows(sums, 4 * x, patch, 0, 4, weights)
            _across(sums, right, limits, out[c, first + j])


@numba.njit(nogil=True, cache=True)
def _mirrored(pixels, corner, frame, patch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Collect 4 by 4 or 2 by 2 pixels, some of which lie beyond the border."""
    _, _, top, left, height, width = frame
    side = 4 if patch.size == 16 else 2
    for j in range(side):
        v = _mirror(corner[0] + j, height) - top
        for i in range(side):
            patch[side * j + i] = pixels[v, _mirror(corner[1] + i, width) - left]


@numba.njit(nogil=True, cache=True)
def _across(sums, weights, limits, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Combine the four column sums of each pixel, and store them in the dtype of the row."""
    first, second, third, fourth = weights[0], weights[1], weights[2], weights[3]
    for x in range(row.size):
        k = 4 * x
        left = first[x] * sums[k] + second[x] * sums[k + 1]
        value = left + (third[x] * sums[k + 2] + fourth[x] * sums[k + 3])
        if limits is None:
            row[x] = value
        else:
            row[x] = min(max(np.floor(value + _HALF), limits[0]), limits[1])


@numba.njit(nogil=True, cache=True)
def nearest(array, where, room, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sample a strip by the nearest pixel; `where` as for `cubic`, halves go to the later pixel.

    Parameters
    ----------
    array : ndarray, shape (Y, X)
        The window that is in memory.
    where : tuple
        As for `cubic`.
    room : tuple of ndarray
        place, int64, shape (X,); near, int32, shape (2, X).
    out : ndarray, shape (Y, X)
        The strip's rows are filled.
    """
    start, part, frame, first = where
    place, near = room
    _, _, top, left, height, width = frame
    pixels = array.reshape(array.size)
    near_y, near_x = near[0], near[1]
    for j in range(start.shape[1]):
        for axis in range(2):
            starts, parts, rounded = start[axis, j], part[axis, j], near[axis]
            for x in range(place.size):
                rounded[x] = starts[x] + np.int32(parts[x] + _HALF)
        _places((near_y, near_x), (0, 0), frame, place)
        row = out[first + j]
        for x in range(place.size):
            at = place[x]
            if at >= 0:
                row[x] = pixels[np.uintp(at)]
            else:
                row[x] = array[_mirror(near_y[x], height) - top, _mirror(near_x[x], width) - left]


@numba.njit(nogil=True, cache=True)
def linear(array, where, room, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sample a strip by the four pixels around each position.

    Parameters
    ----------
    array : ndarray of float32, shape (Y, X)
        The window that is in memory.
    where : tuple
        As for `cubic`.
    room : tuple of ndarray
        place, int64, shape (X,); sums, shape (2 * X,), and patch, shape (4,), of float32.
    out : ndarray of float32, shape (Y, X)
        The strip's rows are filled.
    """
    start, part, frame, first = where
    place, sums, patch = room
    pixels = array.reshape(array.size)
    for j in range(start.shape[1]):
        _places((start[0, j], start[1, j]), (0, 1), frame, place)
        down, right, row = part[0, j], part[1, j], out[first + j]
        for x in range(place.size):
            weights = (_ONE - down[x], down[x])
            at = place[x]
            if at >= 0:
                _sum_rows(sums, 2 * x, pixels, at, frame[1], weights)
            else:
                _mirrored(array, (start[0, j, x], start[1, j, x]), frame, patch)
                _sum_rows(sums, 2 * x, patch, 0, 2, weights)
        for x in range(place.size):
            row[x] = (_ONE - right[x]) * sums[2 * x] + right[x] * sums[2 * x + 1]
