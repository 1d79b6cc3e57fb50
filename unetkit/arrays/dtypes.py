"""Turn computed numbers back into the dtype of the image that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cast(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return floats as `dtype`; for integers and bool they are rounded and clipped to its range.

    Halves are rounded up.

    Examples
    --------
    >>> cast(np.array([-3.0, 1.5, 300.0]), np.dtype("uint8"))
    array([  0,   2, 255], dtype=uint8)
    """
    if dtype.kind not in "iub":
        return values.astype(dtype, copy=False)
    low, high = limits(dtype, values.dtype)
    return np.clip(np.floor(values + values.dtype.type(0.5)), low, high).astype(dtype)


def limits(dtype: np.dtype[Any], real: np.dtype[Any]) -> tuple[np.floating[Any], np.floating[Any]]:
    """Return the smallest and the largest float of type `real` that fit an integer type or bool.

    >>> limits(np.dtype("uint8"), np.dtype("float32"))
    (np.float32(0.0), np.float32(255.0))
    """
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    top = real.type(high)
    if int(top) > high:
        # The largest integer has no float of its own; the next float above it would overflow.
        top = np.nextafter(top, real.type(0))
    return real.type(low), top
