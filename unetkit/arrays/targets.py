"""Turn labels into what the network learns, as the meaning of a target says.

A tile that is read with the `context` of its target gives what the whole image gives: two pixels,
since gaps and boundaries are about a pixel and its eight neighbours, and the reach of a distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.arrays.distance_bands import distance_bands
from unetkit.arrays.meanings import MEANINGS, check_target
from unetkit.errors import LabelError
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Where an object's class stands in its label, for the target that asks for both.
CLASS_SHIFT = 32
MOST_CLASSES = 253  # of objects, beside background and boundary


def cut_gaps(labels: NDArray[Any]) -> NDArray[Any]:
    """Separate touching instances by a one-pixel gap of background.

    A pixel becomes background where its left, upper-left, upper or upper-right neighbour belongs
    to another instance. The upper-right one counts only where the pixel above is background: else
    that pixel's own rule separates the two, and the gap would be two pixels wide. No two instances
    touch afterwards, not even by a corner, so cutting again changes nothing::

        1 1 2 2      1 1 . 2
        1 1 2 2  ->  1 1 . 2
        3 3 3 3      . . . .
        3 3 3 3      3 3 3 3

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is background.

    Returns
    -------
    ndarray, shape (Y, X)
        A new array of the same dtype.

    Raises
    ------
    LabelError
        If `labels` is not two-dimensional or not of an integer dtype.

    References
    ----------
    The rule of Freiburg's own release of 2019, Unet-Segmentation, ``TrainingSample.java``; the
    paper of 2015 says "morphological operations" only.

    Examples
    --------
    >>> cut_gaps(np.array([[1, 1, 2, 2]]))
    array([[1, 1, 0, 2]])
    """
    labels = integer_labels(labels)
    out = np.empty(labels.shape, labels.dtype)
    _cut(labels, out)
    return out


def make_target(
    labels: NDArray[Any],
    target: str,
    *,
    unjudged: NDArray[np.bool_] | None = None,
    measured: bool = False,
) -> NDArray[np.uint8]:
    """Give each pixel the class that the network should answer there.

    Gaps are cut first (see `cut_gaps`; labels that are cut already stay as they are), except for
    ``classes``.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids, or classes 0 to 255 for the target ``classes``.
    target : str
        ``foreground``: 1 in a cell. ``boundary``: 0 in a cell, 1 elsewhere.
        ``foreground+boundary``: 1 in a cell, 2 on its outermost pixels (those with an edge on
        another label) and on background with two cells among its eight neighbours.
        ``foreground+distance``: in a cell 1, 2 or 3, the more the deeper, see `distance_bands`.
        ``classes``: the labels. ``classes+boundary``: as ``foreground+boundary``, but 1 is the
        boundary, and within a cell it is 1 more than the class of the cell, which the label says
        from its bit 32 on.
    unjudged : ndarray of bool, shape (Y, X), optional
        Pixels that nobody annotated, which are no rim for ``foreground+distance``.
    measured : bool
        Whether labels say from bit 32 on how deep each cell is, as `ObjectDepths` does, since
        there may be more of it than this part of an image; else it is measured here.

    Returns
    -------
    ndarray of uint8, shape (Y, X)

    Raises
    ------
    LabelError
        If the labels are not two-dimensional integers, or a class is not within 0 to 255.
    UsageError
        If there is no such target.

    Examples
    --------
    >>> make_target(np.array([[0, 1, 1, 2, 2]]), "foreground")
    array([[0, 1, 1, 0, 1]], dtype=uint8)
    """
    check_target(target)
    if target == "classes":
        return _classes(integer_labels(labels))
    cut = cut_gaps(labels)
    meaning = MEANINGS[target]
    if meaning.bands:
        largest = cut.astype(np.int64) >> CLASS_SHIFT if measured else None
        return distance_bands(cut, meaning.bands, unjudged=unjudged, largest=largest)
    out = np.empty(cut.shape, np.uint8)
    if target.endswith("+boundary"):
        _interior_and_boundary(cut, out)
        if meaning.classed:
            _add_classes(cut, out)
    else:
        out[:] = cut > 0 if target == "foreground" else cut == 0
    return out


def integer_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as a (Y, X) array of integers that kernels take, or raise `LabelError`."""
    if labels.dtype.kind not in "iu" or labels.ndim != 2:
        raise LabelError(
            f"labels must be integers of shape (Y, X), got {labels.dtype} of shape {labels.shape}; "
            "interpolated or colour masks are no labels"
        )
    native = labels.astype(labels.dtype.newbyteorder("="), copy=False)
    return np.require(native, requirements=["C", "W"])


def _add_classes(labels: NDArray[Any], out: NDArray[np.uint8]) -> None:
    """Turn 2, the boundary, into 1, and what is inside of a cell into 1 more than its class."""
    boundary, inside = out == 2, out == 1
    classes = labels[inside].astype(np.int64) >> CLASS_SHIFT
    if (classes < 1).any() or (classes > MOST_CLASSES).any():
        wrong = labels[inside][(classes < 1) | (classes > MOST_CLASSES)][0]
        raise LabelError(
            f"objects must be of one of at most {MOST_CLASSES} classes, got object"
            f" {int(wrong) % 2**CLASS_SHIFT} of {int(wrong) >> CLASS_SHIFT or 'none'};"
            " import the outlines with --kind instances+classes"
        )
    out[boundary] = 1
    out[inside] = classes + 1


def _classes(labels: NDArray[Any]) -> NDArray[np.uint8]:
    if labels.dtype != np.uint8 and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > 255:
            raise LabelError(
                f"classes must be within 0 to 255, got {low} to {high}; these look like instances"
            )
    return labels.astype(np.uint8)


@numba.njit(nogil=True, cache=is_kept())
def _cut(labels, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            out[y, x] = own
            if own == 0:
                continue
            for dy, dx in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or u >= width:
                    continue
                if dx == 1 and labels[v, x] != 0:
                    continue
                if labels[v, u] != 0 and labels[v, u] != own:
                    out[y, x] = 0


@numba.njit(nogil=True, cache=is_kept())
def _interior_and_boundary(labels, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            first = own
            boundary = False
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    v, u = y + dy, x + dx
                    if not (0 <= v < height and 0 <= u < width):
                        continue
                    other = labels[v, u]
                    if own != 0:
                        boundary |= other != own and dy * dx == 0
                    elif other != 0:
                        boundary |= first != 0 and other != first
                        first = other
            out[y, x] = 2 if boundary else (1 if own != 0 else 0)
