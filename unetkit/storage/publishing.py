"""Put a complete partial in its place where there is no rename: what makes it readable comes last.

A mark is there while that goes on. Without a root document there is nothing to be read at the
place, and with the mark it is known that the rest is this library's own and may be copied anew.
"""

from __future__ import annotations

from unetkit import remote as stores
from unetkit.remote import exists, read
from unetkit.storage.urls import join

MARK = ".unetkit/publishing"
# What a reader asks for first, in either format of Zarr.
ROOTS = ("zarr.json", ".zattrs", ".zgroup")


def is_half_there(url: str) -> bool:
    """Tell whether a publishing to a URL was cut off, so that nothing there can be read."""
    return _is_stored(join(url, MARK)) and not any(_is_stored(join(url, name)) for name in ROOTS)


def _is_stored(url: str) -> bool:
    try:
        read(url, stop=1)
    except FileNotFoundError:
        return False
    return True


def publish(partial: str, url: str) -> None:
    """Copy a complete partial to its place in the same store, and remove it.

    What is in the place and may be replaced is removed first, its root documents before the rest,
    so that at no moment parts of two outputs are read as one.

    Parameters
    ----------
    partial : str
        What was made: a store, or a single file.
    url : str
        Its place.
    """
    if stores.is_object(partial):
        stores.copy(partial, url, [""])
        stores.remove(partial)
        return
    stores.write(join(url, MARK), b"\n")
    earlier = [name for name in stores.below(url) if name != MARK]
    for chosen in _apart(earlier):
        stores.remove(url, chosen)
    rest, roots = reversed(_apart(stores.below(partial)))
    stores.copy(partial, url, rest)
    stores.copy(partial, url, roots)
    stores.remove(join(url, MARK))
    if exists(partial):
        stores.remove(partial)


def _apart(names: list[str]) -> tuple[list[str], list[str]]:
    """Part root documents from the rest."""
    return [n for n in names if n in ROOTS], [n for n in names if n not in ROOTS]
