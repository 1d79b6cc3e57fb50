"""Why pixels could not be read, in one sentence that names the chunk or the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, SurroundingsError, TryAgainError, UnetkitError
from unetkit.storage.nodes import first_damaged, read_node
from unetkit.storage.patience import WAITS, is_passing
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    import zarr


def read_failure(
    array: zarr.Array[Any],
    selection: tuple[Any, ...],
    error: Exception,
    *,
    url: str,
    axes: str,
) -> UnetkitError:
    """Tell what a disk or a network refuses from a chunk that does not decode.

    Parameters
    ----------
    array : zarr.Array
        What was read.
    selection : tuple
        One index, slice or list for each axis.
    error : Exception
        What came of it.
    url : str
        Where the array lies, for people.
    axes : str
        Letters of its last axes.

    Returns
    -------
    UnetkitError
        To be raised. A damaged chunk is named with the pixels that it holds.
    """
    if isinstance(error, OSError) and is_passing(error):
        return (TryAgainError if is_remote(url) else SurroundingsError)(
            f"{url} must be readable, got '{error}' {len(WAITS) + 1} times in a row; "
            "see to the disk or the network, then give the same command with --resume"
        )
    # A store that no longer answers says so itself when it is asked for the metadata again.
    if is_remote(url) and read_node(url) is None:
        return InputError(f"{url} must stay where it was, got nothing there any more")
    found = first_damaged(array, selection)
    if found is None:
        return InputError(f"{url} must be readable, got: {error}; check the disk")
    place, cause = found
    units = array.shards or array.chunks
    rows, columns = (
        f"{place[at] * units[at]}:{min((place[at] + 1) * units[at], array.shape[at])}"
        for at in (axes.index(axis) - len(axes) for axis in "yx")
    )
    return InputError(
        f"{url} chunk {array.metadata.encode_chunk_key(place)} (rows {rows}, columns {columns}) "
        f"must be readable, got {type(cause).__name__}: {cause!s:.100}; "
        "restore it from the original"
    )
