"""Tiles of one value, such as the glass around a tissue, are computed once and then copied.

The same input gives the same output bit for bit, so what is copied is what would be computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

# Probabilities and classes of a whole tile, as they are stored.
Result: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"

# A slide has few values that fill whole tiles, and a result can take tens of megabytes.
KEPT = 4
# Most tiles that are not constant show it at few pixels.
STRIDE = 61

_RESULTS: OrderedDict[Hashable, Result] = OrderedDict()
_LOCK = threading.Lock()


def constant(block: NDArray[Any]) -> tuple[float, ...] | None:
    """Return the value of each channel where it is the same at all pixels, else None."""
    first = block[:, :1, :1]
    if (block[:, ::STRIDE, ::STRIDE] != first).any() or (block != first).any():
        return None
    return tuple(first.ravel().tolist())


def computed_once(key: Hashable, compute: Callable[[], Result]) -> tuple[Result, bool]:
    """Return what was computed for `key` before in this process, else compute it.

    Parameters
    ----------
    key : hashable
        All that the result depends on.
    compute : callable
        Computes it.

    Returns
    -------
    tuple
        The result, not to be written into, and whether it was there already.
    """
    with _LOCK:
        if key in _RESULTS:
            _RESULTS.move_to_end(key)
            return _RESULTS[key], True
    result = compute()
    with _LOCK:
        _RESULTS[key] = result
        while len(_RESULTS) > KEPT:
            _RESULTS.popitem(last=False)
    return result, False
