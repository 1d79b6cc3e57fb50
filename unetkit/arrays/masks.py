"""Pixels of a mask file to labels: one whole number a pixel, ignored ones apart, classes in order.

What this module does not know: files, and what all masks together mean (`mask_survey`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LARGEST_ID = 2**32 - 1


def one_channel(mask: NDArray[Any], *, name: str) -> NDArray[Any]:
    """Take the single channel of a mask, or one of several that are all equal.

    Parameters
    ----------
    mask : ndarray, shape (C, ...)
        Pixels of a mask file, channels first.
    name : str
        Of the mask, for messages.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    LabelError
        If the channels differ.
    """
    if any(not np.array_equal(mask[0], other) for other in mask[1:]):
        raise LabelError(
            f"mask must hold one number a pixel, got different colours in {name!r};"
            " save it as greys, one number for each object or class"
        )
    first: NDArray[Any] = mask[0]
    return first


def whole_numbers(mask: NDArray[Any], *, name: str) -> NDArray[Any]:
    """Return a mask as unsigned integers, with its numbers kept.

    Parameters
    ----------
    mask : ndarray of any real dtype
        As it was read.
    name : str
        Of the mask, for messages.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, same shape

    Raises
    ------
    LabelError
        If a number is negative, a fraction, NaN, or above 2^32 - 1.

    Examples
    --------
    >>> whole_numbers(np.array([[0.0, 70000.0]]), name="a").dtype
    dtype('uint32')
    """
    if mask.dtype.kind == "b":
        return mask.astype(np.uint8)
    if mask.dtype.kind not in "uif":
        raise LabelError(f"mask must hold whole numbers, got {mask.dtype} in {name!r}")
    low, high = (mask.min(), mask.max()) if mask.size else (0, 0)
    if mask.dtype.kind == "f" and not (np.isfinite(mask).all() and (mask == np.floor(mask)).all()):
        odd = mask[~(np.isfinite(mask) & (mask == np.floor(mask)))]
        raise LabelError(
            f"mask must hold whole numbers, got {odd.size} other values in {name!r}, such as"
            f" {odd[0]:g}; save it as integers"
        )
    if low < 0 or high > LARGEST_ID:
        raise LabelError(
            f"mask must hold numbers from 0 to {LARGEST_ID}, got {low:g} to {high:g} in {name!r}"
        )
    return mask.astype(smallest_dtype(int(high)), copy=False)


def smallest_dtype(largest: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds numbers from 0 to `largest`."""
    return np.dtype("uint8" if largest < 2**8 else "uint16" if largest < 2**16 else "uint32")


def split_ignore(
    labels: NDArray[Any], value: int | None
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Take the pixels to ignore out of labels.

    Parameters
    ----------
    labels : ndarray of int
        As they were drawn.
    value : int, optional
        What marks a pixel that nobody annotated.

    Returns
    -------
    labels : ndarray of int, same shape
        0 where `value` was.
    ignore : ndarray of uint8, same shape, or None
        1 where `value` was; None without a value.
    """
    if value is None:
        return labels, None
    ignore = (labels == value).astype(np.uint8)
    return np.where(ignore, labels.dtype.type(0), labels), ignore


def to_classes(labels: NDArray[Any], mapping: Mapping[int, int]) -> NDArray[np.uint8]:
    """Turn the values of a class map into class numbers.

    Parameters
    ----------
    labels : ndarray of int
        With values that are all in `mapping`.
    mapping : mapping of int to int
        From value to class, at most 256 of them.

    Returns
    -------
    ndarray of uint8, same shape

    Raises
    ------
    LabelError
        If there are more classes than a uint8 holds.

    Examples
    --------
    >>> to_classes(np.array([[0, 255]]), {0: 0, 255: 1})
    array([[0, 1]], dtype=uint8)
    """
    if len(mapping) > 256:
        raise LabelError(f"class maps must have at most 256 classes, got {len(mapping)}")
    values = np.array(sorted(mapping), dtype=np.int64)
    classes = np.array([mapping[int(value)] for value in values], dtype=np.uint8)
    return classes[np.searchsorted(values, labels)]
