"""Objects joined across block faces, with the same ids for any tiling.

What this module does not know: where blocks lie on disk, and who runs them.

A block labels its own foreground and reports a `BlockSummary`; `join` unites what touches across
block faces and numbers the objects by their first pixel in t, z, y, x order; each block then
looks its final ids up. Diagonal contact never joins, so faces are all that blocks must exchange::

    block 0 | block 1         1 1 . | . 1        1 1 . | . 2
    --------+--------   own   . . 1 | 1 .  join  . . 3 | 3 .
    block 2 | block 3   ids   . . 1 | . .        . . 3 | . .
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BlockSummary:
    """What a block tells of its objects, so that blocks can be joined without their pixels.

    Attributes
    ----------
    sizes : ndarray of int64, shape (count,)
        Pixels of object 1, 2, ...
    first : ndarray of int64, shape (count,)
        The raster index, in the whole image, of each object's first pixel.
    top, bottom : ndarray of uint32, shape (X,)
        The ids along the block's first and last row.
    left, right : ndarray of uint32, shape (Y,)
        The ids along its first and last column.
    """

    sizes: Array
    first: Array
    top: Array
    bottom: Array
    left: Array
    right: Array

    @property
    def count(self) -> int:
        """How many objects the block has."""
        return len(self.sizes)


def summarize(
    labels: Array, count: int, *, y0: int, x0: int, width: int, start: int = 0
) -> BlockSummary:
    """Report a labelled block's objects: their sizes, first pixels, and ids along its faces.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Ids 1 to `count` of this block alone, as `components` gives them.
    count : int
        The highest id.
    y0, x0 : int
        Where the block begins in its plane, in pixels.
    width : int
        Width of the whole plane, in pixels.
    start : int
        Raster index of the plane's first pixel: plane number times height times width.

    Returns
    -------
    BlockSummary
    """
    y, x = np.divmod(first_pixels(labels, count), labels.shape[1])
    return BlockSummary(
        sizes=np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64),
        first=start + (y + y0) * width + (x + x0),
        top=labels[0].copy(),
        bottom=labels[-1].copy(),
        left=labels[:, 0].copy(),
        right=labels[:, -1].copy(),
    )


def touching(face: Array, other: Array) -> Array:
    """List which ids meet across the face between two blocks.

    Parameters
    ----------
    face, other : ndarray of int, shape (N,)
        Ids along the last line of one block and the first line of the next.

    Returns
    -------
    ndarray of int64, shape (P, 2)
        Each meeting pair once.
    """
    both = (face != 0) & (other != 0)
    pairs = np.stack([face[both], other[both]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0)


@dataclass(frozen=True)
class Joined:
    """The objects of a whole image, and how each block finds their ids.

    Attributes
    ----------
    sizes : ndarray of int64, shape (N,)
        Pixels of object 1, 2, ..., N.
    ids : ndarray of uint32 or uint64, shape (P + 1,)
        The final id of each provisional one; 0 for background and for what was too small.
    offsets : ndarray of int64, shape (blocks + 1,)
        A block's object k has the provisional id `offsets[block] + k`.
    """

    sizes: Array
    ids: Array = field(repr=False)
    offsets: Array = field(repr=False)

    @property
    def count(self) -> int:
        """How many objects the image has."""
        return len(self.sizes)

    def lookup(self, block: int) -> Array:
        """Give the final ids of one block: `joined.lookup(b)[labels]` relabels it.

        Parameters
        ----------
        block : int
            The block's place among the summaries.

        Returns
        -------
        ndarray of uint32 or uint64, shape (count + 1,)
            Entry 0 is background.
        """
        first, last = self.offsets[block], self.offsets[block + 1]
        return np.concatenate([self.ids[:1], self.ids[first + 1 : last + 1]])


def join(
    summaries: Sequence[BlockSummary], *, grid: tuple[int, int, int], min_size: int = 0
) -> Joined:
    """Unite the objects of all blocks of an image and number them in raster order.

    Parameters
    ----------
    summaries : sequence of BlockSummary
        One a block: plane by plane, in each plane row by row, in each row from left to right.
    grid : tuple of int
        (planes, rows of blocks, blocks in a row).
    min_size : int
        Objects with fewer pixels are left out.

    Returns
    -------
    Joined
        The same ids for any tiling of the same image.

    Raises
    ------
    ValueError
        If `grid` does not hold as many blocks as there are summaries.
    """
    if len(summaries) != np.prod(grid):
        raise ValueError(f"grid must hold {len(summaries)} blocks, got {grid}")
    offsets = np.concatenate([[0], np.cumsum([s.count for s in summaries], dtype=np.int64)])
    return merge(summaries, _grid_pairs(summaries, offsets, grid), min_size=min_size)


def merge(
    summaries: Iterable[BlockSummary], pairs: Iterable[Array], *, min_size: int = 0
) -> Joined:
    """Unite provisional objects along `pairs`, and number the results in raster order.

    Parameters
    ----------
    summaries : iterable of BlockSummary
        One a block, in the order in which provisional ids run on.
    pairs : iterable of ndarray of int, shape (P, 2)
        Provisional ids (block offset + own id) that are one object.
    min_size : int
        Objects with fewer pixels are left out.

    Returns
    -------
    Joined
    """
    blocks = list(summaries)
    offsets = np.concatenate([[0], np.cumsum([s.count for s in blocks], dtype=np.int64)])
    total = int(offsets[-1])
    edges = np.concatenate([np.empty((0, 2), np.int64), *pairs]) - 1
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(total, total))
    groups, root = connected_components(graph, directed=False) if total else (0, offsets[:0])
    sizes = np.zeros(groups, np.int64)
    first = np.full(groups, np.iinfo(np.int64).max)
    if total:
        np.add.at(sizes, root, np.concatenate([s.sizes for s in blocks]))
        np.minimum.at(first, root, np.concatenate([s.first for s in blocks]))
    kept = np.flatnonzero(sizes >= min_size)
    kept = kept[np.argsort(first[kept])]
    final = np.zeros(groups, id_dtype(len(kept)))
    final[kept] = np.arange(1, len(kept) + 1)
    ids = np.concatenate([np.zeros(1, final.dtype), final[root]])
    return Joined(sizes=sizes[kept], ids=ids, offsets=offsets)


def id_dtype(count: int) -> np.dtype[Any]:
    """Choose the type of instance ids: uint32, or uint64 above 4,294,967,295 objects."""
    return np.dtype(np.uint32 if count <= np.iinfo(np.uint32).max else np.uint64)


def first_pixels(labels: Array, count: int) -> Array:
    """Give the raster index of each object's first pixel.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Ids 1 to `count`; 0 is background.
    count : int
        The highest id.

    Returns
    -------
    ndarray of int64, shape (count,)
    """
    flat = labels.ravel()
    filled = np.flatnonzero(flat)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[flat[filled]] = filled  # of repeated indices NumPy keeps the last, here the first pixel
    return first[1:]


def _grid_pairs(
    summaries: Sequence[BlockSummary], offsets: Array, grid: tuple[int, int, int]
) -> Iterable[Array]:
    """Yield the pairs of provisional ids that meet at each face of a grid of blocks."""
    numbers = np.arange(len(summaries)).reshape(grid)
    beside = np.stack([numbers[:, :, :-1], numbers[:, :, 1:]], axis=-1).reshape(-1, 2)
    below = np.stack([numbers[:, :-1], numbers[:, 1:]], axis=-1).reshape(-1, 2)
    for a, b in beside.tolist():
        yield touching(summaries[a].right, summaries[b].left) + offsets[[a, b]]
    for a, b in below.tolist():
        yield touching(summaries[a].bottom, summaries[b].top) + offsets[[a, b]]
