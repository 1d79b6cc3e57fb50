"""The contingency table: how many pixels carry a true label and a predicted one together.

Tables add up over blocks, so every score built on them is exact at any size. What this module
does not know: which score needs what, and where blocks lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Contingency:
    """Sparse counts of (image, true label, predicted label), each triple once, in that order.

    Attributes
    ----------
    image : ndarray of int64, shape (K,)
        Which of several images, from 0: the same id in two images is two objects. Planes of a
        stack or a movie are images.
    true, pred : ndarray of uint64, shape (K,)
        The labels; 0 is background.
    counts : ndarray of int64, shape (K,)
        Pixels that carry both.
    images : int
        How many images stand side by side in this table.
    """

    image: Array
    true: Array
    pred: Array
    counts: Array
    images: int = 1

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def pixels(self) -> int:
        """How many pixels were counted."""
        return int(self.counts.sum())

    def segments(self, side: str) -> Segments:
        """Give the labels of one side, background too, numbered and measured.

        Parameters
        ----------
        side : {"true", "pred"}
        """
        ids = self.true if side == "true" else self.pred
        order = np.lexsort((ids, self.image))
        new = changes(self.image[order], ids[order])
        row = np.empty(len(self), np.int64)
        row[order] = np.cumsum(new) - 1
        sizes = np.zeros(int(new.sum()), np.int64)
        np.add.at(sizes, row, self.counts)
        return Segments(image=self.image[order][new], ids=ids[order][new], sizes=sizes, row=row)

    def of_class(self, true: Array, pred: Array, number: int) -> Contingency:
        """Give the table of the objects of one class, as if there were no others.

        Parameters
        ----------
        true, pred : ndarray of int, shape (K,)
            The class of each entry's true label, and of its predicted one.
        number : int
            The class.
        """
        is_true, is_pred = true == number, pred == number
        kept = is_true | is_pred
        nothing = np.uint64(0)
        return _reduce(
            (
                self.image[kept],
                np.where(is_true, self.true, nothing)[kept],
                np.where(is_pred, self.pred, nothing)[kept],
                self.counts[kept],
            ),
            images=self.images,
        )

    def foreground(self) -> Contingency:
        """Give the table of the two classes background (label 0) and foreground (any other)."""
        return _reduce(
            (self.image, self.true != 0, self.pred != 0, self.counts), images=self.images
        )


@dataclass(frozen=True, eq=False)
class Segments:
    """The labels on one side of a table, image by image, numbered 0, 1, ...

    Attributes
    ----------
    image : ndarray of int64, shape (S,)
        Each segment's image.
    ids : ndarray of uint64, shape (S,)
        Each segment's label in its image; 0 is background.
    sizes : ndarray of int64, shape (S,)
        Pixels of each segment.
    row : ndarray of int64, shape (K,)
        The segment of each entry of the table.
    """

    image: Array
    ids: Array
    sizes: Array
    row: Array

    @property
    def objects(self) -> int:
        """How many segments are not background."""
        return int(np.count_nonzero(self.ids))


def from_labels(truth: Array, prediction: Array, *, ignore: Array | None = None) -> Contingency:
    """Count the label pairs of two arrays of one image, or of one block of it.

    Parameters
    ----------
    truth, prediction : ndarray of int, shape (Y, X)
        Labels; 0 is background. Any shape does, if it is the same.
    ignore : ndarray of int or bool, shape (Y, X), optional
        Pixels where it is not 0 are not counted.

    Raises
    ------
    LabelError
        If the shapes differ, or labels are not integers from 0 up.

    Examples
    --------
    >>> table = from_labels(np.array([[1, 1, 0]]), np.array([[7, 0, 0]]))
    >>> list(zip(table.true.tolist(), table.pred.tolist(), table.counts.tolist()))
    [(0, 0, 1), (1, 0, 1), (1, 7, 1)]
    """
    if truth.shape != prediction.shape:
        raise LabelError(
            f"labels of prediction and truth must have one shape, got {prediction.shape} and "
            f"{truth.shape}; cut both to the same field"
        )
    true, pred = _flat(truth), _flat(prediction)
    if ignore is not None:
        counted = ignore.ravel() == 0
        true, pred = true[counted], pred[counted]
    # Labels run on from pixel to pixel: few runs are left to sort.
    starts = np.flatnonzero(changes(true, pred))
    lengths = np.diff(starts, append=len(true))
    image = np.zeros(len(starts), np.int64)
    return _reduce((image, true[starts], pred[starts], lengths), images=1)


def merge(tables: Iterable[Contingency]) -> Contingency:
    """Add up the tables of the blocks of one image, or of tables of the same images.

    Parameters
    ----------
    tables : iterable of Contingency
        Ids mean the same in all of them.
    """
    parts = list(tables)
    return _reduce(_columns(parts), images=max((p.images for p in parts), default=1))


def apart(tables: Iterable[Contingency]) -> list[Contingency]:
    """Keep the ids of several tables apart by numbering their images on.

    Parameters
    ----------
    tables : iterable of Contingency
        Of different images.

    Returns
    -------
    list of Contingency
        As many tables, each of which knows how many images there are in all.
    """
    parts = list(tables)
    *starts, images = np.cumsum([0, *(p.images for p in parts)]).tolist()
    return [
        Contingency(p.image + start, p.true, p.pred, p.counts, images)
        for p, start in zip(parts, starts, strict=True)
    ]


def pool(tables: Iterable[Contingency]) -> Contingency:
    """Set the tables of different images side by side, so that their ids stay apart.

    Returns
    -------
    Contingency
        A score of it is the score over all images as one.
    """
    parts = apart(tables)
    return _reduce(_columns(parts), images=parts[0].images if parts else 0)


def stack(tables: Iterable[Contingency]) -> tuple[Array, Contingency]:
    """Put tables one under the other, without adding anything up.

    Returns
    -------
    ndarray of int64, shape (K,), and Contingency
        The table that each entry is from, and all entries.
    """
    parts = list(tables)
    origin = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    return origin, Contingency(*_columns(parts), max((p.images for p in parts), default=1))


class ContingencySums:
    """A running sum of block tables whose memory follows the result, not the number of blocks."""

    def __init__(self) -> None:
        self._total = merge([])
        self._pending: list[Contingency] = []
        self._rows = 0

    def add(self, table: Contingency) -> None:
        """Count one more block.

        Parameters
        ----------
        table : Contingency
            Of the same image as those before.
        """
        self._pending.append(table)
        self._rows += len(table)
        if self._rows > max(len(self._total), 65536):
            self.total()

    def total(self) -> Contingency:
        """Give the sum of all blocks so far."""
        self._total = merge([self._total, *self._pending])
        self._pending, self._rows = [], 0
        return self._total


def _flat(labels: Array) -> Array:
    """Flatten labels in raster order, if they are labels."""
    if labels.dtype.kind not in "iub":
        raise LabelError(f"labels must be integers, got {labels.dtype}; 0 stands for background")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise LabelError(f"labels must be 0 or above, got {labels.min()}; 0 stands for background")
    return labels.ravel()


def changes(*columns: Array) -> Array:
    """Mark the entries that differ from the one before in any column; the first one does."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def _columns(parts: list[Contingency]) -> tuple[Array, Array, Array, Array]:
    """Put the columns of several tables one under the other."""
    none = np.empty(0, np.int64)
    return (
        np.concatenate([none, *(p.image for p in parts)]),
        np.concatenate([none.astype(np.uint64), *(p.true for p in parts)]),
        np.concatenate([none.astype(np.uint64), *(p.pred for p in parts)]),
        np.concatenate([none, *(p.counts for p in parts)]),
    )


def _reduce(columns: tuple[Array, Array, Array, Array], *, images: int) -> Contingency:
    """Sort the entries and add up those of one triple."""
    image, true, pred, counts = columns
    true, pred = true.astype(np.uint64), pred.astype(np.uint64)
    order = np.lexsort((pred, true, image))
    image, true, pred, counts = image[order], true[order], pred[order], counts[order]
    starts = np.flatnonzero(changes(image, true, pred))
    sums = np.add.reduceat(counts, starts) if len(starts) else counts
    return Contingency(image[starts], true[starts], pred[starts], sums.astype(np.int64), images)
