"""The inner loops of a warp: what is found at positions in an array; one image row at a time.

Rows of numbers that lie in the nearest cache are worked through one after the other, so that all
but the look-ups themselves are vector instructions. No sum is re-ordered and none is fused: a pixel
has the same bits wherever in an array, a tile or a strip it lies. Where the positions come from is
`resampling`'s affair.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from unetkit.kernel_cache import is_kept

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_THREE_HALVES = np.float32(1.5)
_TWO = np.float32(2.0)
_FIVE_HALVES = np.float32(2.5)


@numba.njit(nogil=True, cache=is_kept())
def _mirror(i, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the coordinate within 0 to n - 1 that shows what lies at any coordinate."""
    last = np.int64(n - 1)
    # One reflection is enough nearly always, and a division takes as long as forty pixels.
    once = last - abs(last - abs(np.int64(i)))
    if once >= 0 or last == 0:
        return max(once, 0)
    return last - abs(last - abs(np.int64(i)) % (2 * last))


@numba.njit(nogil=True, cache=is_kept())
def _keys(part, j, taps):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill in the four weights of `resampling.keys_weights`, along y and x, for a row."""
    for axis in range(2):
        for x in range(taps.shape[2]):
            # Stored and read again, it has the precision that the sums are made with.
            taps[axis, 0, x] = part[j, axis, x]
            t = taps[axis, 0, x]
            taps[axis, 0, x] = t * (-_HALF + t * (_ONE - _HALF * t))
            taps[axis, 1, x] = _ONE + t * t * (-_FIVE_HALVES + _THREE_HALVES * t)
            taps[axis, 2, x] = t * (_HALF + t * (_TWO - _THREE_HALVES * t))
            taps[axis, 3, x] = t * t * (-_HALF + _HALF * t)


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


@numba.njit(nogil=True, cache=is_kept())
def cubic(array, where, room, limits, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sample a strip of an array (C, Y, X), the window that is in memory, by 4 by 4 Keys taps.

    `where` is start, part, place and inside, as `resampling.locate` fills them, the frame that it
    was given, and the row of `out` where the strip begins. `room` is taps (2, 4, X) and sums
    (4 * X,), of the precision of the sums; `limits`, if any, what integers are clipped to, after
    rounding.
    """
    start, part, places, inside, frame, first = where
    taps, sums = room
    height, width = frame[0], frame[1]
    pixels = array.reshape(array.size)
    for j in range(places.shape[0]):
        _keys(part, j, taps)
        low, high = inside[j, 0], inside[j, 1]
        for c in range(array.shape[0]):
            base = c * height * width
            for k in range(low, high):
                # Unsigned, since one that might be negative costs each look-up a test.
                x = np.uintp(k)
                weights = (taps[0, 0, x], taps[0, 1, x], taps[0, 2, x], taps[0, 3, x])
                _sum_rows(sums, 4 * k, pixels, base + places[j, x], width, weights)
            for k in range(places.shape[1] - (high - low)):
                x = np.uintp(k if k < low else k + (high - low))
                weights = (taps[0, 0, x], taps[0, 1, x], taps[0, 2, x], taps[0, 3, x])
                at = (start[j, 0, x] - 1, start[j, 1, x] - 1)
                _sum_mirrored(pixels, base, at, frame, weights, sums, np.uintp(4) * x)
            _across(sums, taps, limits, out, (c, first + j))


@numba.njit(nogil=True, cache=is_kept())
def _sum_mirrored(pixels, base, at, frame, weights, sums, to):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Do what `_sum_rows` does where some of the 4 by 4 pixels lie beyond the border."""
    _, wide, top, left, height, width = frame
    base -= top * wide + left
    first = base + _mirror(at[0], height) * wide
    second = base + _mirror(at[0] + 1, height) * wide
    third = base + _mirror(at[0] + 2, height) * wide
    fourth = base + _mirror(at[0] + 3, height) * wide
    real = sums.dtype.type
    for i in range(4):
        u = _mirror(at[1] + i, width)
        total = weights[0] * real(pixels[np.uintp(first + u)])
        total += weights[1] * real(pixels[np.uintp(second + u)])
        total += weights[2] * real(pixels[np.uintp(third + u)])
        total += weights[3] * real(pixels[np.uintp(fourth + u)])
        sums[to + np.uintp(i)] = total


@numba.njit(nogil=True, cache=is_kept())
def _across(sums, taps, limits, out, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Combine the four column sums of each pixel, and store them in the dtype of the result."""
    c, y = row
    for x in range(out.shape[2]):
        k = 4 * x
        left = taps[1, 0, x] * sums[k] + taps[1, 1, x] * sums[k + 1]
        value = left + (taps[1, 2, x] * sums[k + 2] + taps[1, 3, x] * sums[k + 3])
        if limits is None:
            out[c, y, x] = value
        else:
            out[c, y, x] = min(max(np.floor(value + _HALF), limits[0]), limits[1])


@numba.njit(nogil=True, cache=is_kept())
def nearest(array, where, near, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sample a strip by the nearest pixel; `where` as for `cubic`, halves go to the later pixel.

    `near` (X,), of the dtype of `place`, is room to work in.
    """
    start, part, places, inside, frame, first = where
    _, width, top, left, full_height, full_width = frame
    pixels = array.reshape(array.size)
    whole = near.dtype.type
    for j in range(places.shape[0]):
        low, high = inside[j, 0], inside[j, 1]
        for i in range(near.size):
            down = 2 * width if part[j, 0, i] >= _HALF else width
            right = 2 if part[j, 1, i] >= _HALF else 1
            near[i] = whole(places[j, i] + down + right)
        for k in range(low, high):
            x = np.uintp(k)
            out[first + j, x] = pixels[np.uintp(near[x])]
        for k in range(near.size - (high - low)):
            x = np.uintp(k if k < low else k + (high - low))
            v = start[j, 0, x] + (1 if part[j, 0, x] >= _HALF else 0)
            u = start[j, 1, x] + (1 if part[j, 1, x] >= _HALF else 0)
            at = (_mirror(v, full_height) - top) * width + _mirror(u, full_width) - left
            out[first + j, x] = pixels[np.uintp(at)]
