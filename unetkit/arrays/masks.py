"""Pixels of a mask file to labels: one whole number a pixel, ignored ones apart, classes in order.

What this module does not know: files, and what all masks together mean (`mask_survey`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import LabelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

LARGEST_ID = 2**32 - 1


def one_channel(mask: NDArray[Any], *, name: str, alpha: bool = False) -> NDArray[Any]:
    """Take the single channel of a mask, one of several that are all equal, or the only one drawn.

    Parameters
    ----------
    mask : ndarray, shape (C, ...)
        Pixels of a mask file, channels first.
    name : str
        Of the mask, for messages.
    alpha : bool
        Whether the last channel is alpha. It is left out where it says nothing that the others do
        not, and is the mask itself where all that can be seen is of one colour.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    LabelError
        If the channels differ, or colours and alpha say different things.
    """
    if alpha:
        mask, seen = mask[:-1], mask[-1]
        if seen.size and seen.min() < seen.max():
            return _beside_alpha(mask, seen, name=name)
    drawn = [channel for channel in mask if channel.any()]
    if len(drawn) == 1:
        mask = np.stack(drawn)
    if any(not np.array_equal(mask[0], other) for other in mask[1:]):
        raise LabelError(
            f"mask must hold one number a pixel, got different colours in {name!r};"
            " save it as greys, one number for each object or class"
        )
    first: NDArray[Any] = mask[0]
    return first


def _beside_alpha(mask: NDArray[Any], alpha: NDArray[Any], *, name: str) -> NDArray[Any]:
    clear = alpha == 0
    if (
        mask.min() < mask.max()
        and not mask[:, clear].any()
        and (clear | (alpha == alpha.max())).all()
    ):
        return one_channel(mask, name=name)
    seen = mask[:, ~clear]
    if (seen == seen[:, :1]).all():
        return alpha
    raise LabelError(
        f"mask must be drawn in greys or in alpha, got both in {name!r}; save it without"
        " transparency"
    )


def join_pages(pages: NDArray[Any], *, name: str) -> NDArray[Any]:
    """Give objects that are drawn on a page each their numbers.

    Parameters
    ----------
    pages : ndarray of int, shape (N, Y, X)
        Each with one number besides 0, or none.
    name : str
        Of the mask, for messages.

    Returns
    -------
    ndarray of int, shape (Y, X)
        The place of the page that each pixel is drawn on, from 1; 0 where it is on none.

    Raises
    ------
    LabelError
        If a page holds several numbers, or a pixel is drawn on several pages.

    Examples
    --------
    >>> join_pages(np.array([[[255, 0, 0]], [[0, 0, 255]]]), name="a")
    array([[1, 0, 2]], dtype=uint8)
    """
    joined = np.zeros(pages.shape[1:], dtype=smallest_dtype(len(pages)))
    for number, page in enumerate(pages, start=1):
        drawn = page != 0
        if np.unique(page[drawn]).size > 1 or joined[drawn].any():
            raise LabelError(
                "mask of several pages or channels must have an object on each, apart from all"
                f" others, got other ones in {name!r}; save one page with a number for each object"
            )
        joined[drawn] = number
    return joined


def whole_numbers(mask: NDArray[Any], *, name: str, ignore: int | None = None) -> NDArray[Any]:
    """Return a mask as integers, with its numbers kept.

    Parameters
    ----------
    mask : ndarray of any real dtype
        As it was read.
    name : str
        Of the mask, for messages.
    ignore : int, optional
        A number that stands for nothing, so that it may be a negative one or above 2^32 - 1.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, same shape
        Of int64 where the mask holds such a number.

    Raises
    ------
    LabelError
        If any other number is negative, a fraction, NaN, or above 2^32 - 1.

    Examples
    --------
    >>> whole_numbers(np.array([[0.0, 70000.0]]), name="a").dtype
    dtype('uint32')
    """
    if mask.dtype.kind == "b":
        return mask.astype(np.uint8)
    if mask.dtype.kind not in "uif":
        raise LabelError(f"mask must hold whole numbers, got {mask.dtype} in {name!r}")
    if ignore is not None and not 0 <= ignore <= LARGEST_ID and (apart := mask == ignore).any():
        drawn = whole_numbers(np.where(apart, mask.dtype.type(0), mask), name=name)
        return np.where(apart, np.int64(ignore), drawn.astype(np.int64))
    low, high = (mask.min(), mask.max()) if mask.size else (0, 0)
    if mask.dtype.kind == "f" and not (np.isfinite(mask).all() and (mask == np.floor(mask)).all()):
        odd = mask[~(np.isfinite(mask) & (mask == np.floor(mask)))]
        raise LabelError(
            f"mask must hold whole numbers, got {odd.size} other values in {name!r}, such as"
            f" {odd[0]:g}; save it as integers"
        )
    if low < 0 or high > LARGEST_ID:
        advice = (
            f"; if {low:g} marks what nobody judged, say --ignore={int(low)}" if low < 0 else ""
        )
        raise LabelError(
            f"mask must hold numbers from 0 to {LARGEST_ID}, got {low:g} to {high:g} in"
            f" {name!r}{advice}"
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
        From value to class, of which there are at most 256.

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
    count = len(set(mapping.values()))
    if count > 256:
        raise LabelError(f"class maps must have at most 256 classes, got {count}")
    values = np.array(sorted(mapping), dtype=np.int64)
    classes = np.array([mapping[int(value)] for value in values], dtype=np.uint8)
    return classes[np.searchsorted(values, labels)]


# Our own choice: drawn objects come in at most 1.3 pieces each over every set looked at (thin cells
# cut by the border), the values of class maps and of blurred masks in 3.7 to hundreds.
PIECES = 3
# Our own choice: up to here, whole numbers are taken for the numbers of classes.
CLASS_NUMBERS = 32
# Our own choice: grey levels may be off an even spacing by this much (127 and 128 for half of 255).
SPACING = 1.5
GREY_LEVELS = 16
LISTED = 12
# The white of 8 and of 16 bits. Our own choice: where it covers more than half of what is drawn,
# it stands for "yes" or "nobody looked here", and other values are its faded edge or the objects.
WHITES = (255, 65535)


@dataclass
class MaskSurvey:
    """What all the masks of a dataset hold together, which decides what they can mean.

    Parameters
    ----------
    ignore : int, optional
        A value that is neither object nor class.
    """

    ignore: int | None = None
    values: dict[str, frozenset[int]] = field(default_factory=dict)
    objects: int = 0
    pieces: int = 0
    ignored: int = 0
    drawn: int = 0
    white: int = 0

    def add(self, name: str, labels: NDArray[Any], *, pieces: bool = False) -> None:
        """Take in a mask.

        Parameters
        ----------
        name : str
            Of the mask, for messages.
        labels : ndarray of int, shape (..., Y, X)
            As drawn, from `whole_numbers`.
        pieces : bool
            Whether to count the connected pieces of each number, as instances need it.
        """
        values, counts = _counted(labels)
        found = dict(zip(values, counts, strict=True))
        self.ignored += found.pop(self.ignore, 0) if self.ignore is not None else 0
        self.values[name] = frozenset(found)
        self.drawn += sum(count for value, count in found.items() if value)
        self.white += sum(found.get(value, 0) for value in WHITES)
        if pieces:
            # Loaded where it is used: images without masks need none of it.
            from skimage.measure import label

            drawn, _ = split_ignore(labels, self.ignore)
            for plane in drawn.reshape(-1, *drawn.shape[-2:]):
                own = found if drawn.size == plane.size else _counted(plane)[0]
                self.objects += sum(value != 0 for value in own)
                # Diagonal contact counts, so that only what is really apart is a piece.
                self.pieces += int(label(plane, background=0, connectivity=2, return_num=True)[1])

    def join(self, other: MaskSurvey) -> None:
        """Take in what was found in other masks."""
        self.values |= other.values
        for name in ("objects", "pieces", "ignored", "drawn", "white"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def found(self) -> list[int]:
        """Every value of any mask, without the one to ignore, in order."""
        return sorted(frozenset().union(*self.values.values()))

    def check_instances(self) -> None:
        """Judge whether the numbers can be those of objects.

        Raises
        ------
        LabelError
            If one number stands for many objects: a binary mask, a class map, or a mask whose
            edges were blurred into in-between values.
        """
        drawn = [value for value in self.found if value]
        if len(drawn) == 1 and self.pieces > self.objects:
            raise LabelError(
                "masks of instances must give every object its own number, got the one number"
                f" {drawn[0]} for {self.pieces} separate pieces, counted over"
                f" {_count(self.values)};"
                " say --connected-components to number the pieces (cells that touch would merge"
                " into one), or --kind classes for a class map"
            )
        faded = len(drawn) > 1 and drawn[-1] in WHITES and self.white * 2 > self.drawn
        if faded or self.pieces > PIECES * max(self.objects, 1):
            name = max(self.values, key=lambda n: (len(self.values[n]), n))
            raise LabelError(
                "masks of instances must give every object its own number, got"
                f" {self.pieces} separate pieces for {self.objects} numbers, such as the values"
                f" {_listed(self.values[name])} in {name!r}; say --kind classes for a class map,"
                " --ignore for a value that is no object, and save masks without JPEG, smoothing or"
                " resizing"
            )

    def check_binary(self) -> None:
        """Judge whether connected components can be the objects.

        Raises
        ------
        LabelError
            If there is more than one number besides 0.
        """
        for name, values in self.values.items():
            if len(values - {0}) > 1:
                raise LabelError(
                    "masks for --connected-components must hold 0 and one other number, got the"
                    f" values {_listed(values)} in {name!r}; leave the option out if the numbers"
                    " are those of objects"
                )
        drawn = [value for value in self.found if value]
        if len(drawn) > 1:
            raise LabelError(
                "masks for --connected-components must hold 0 and one other number, the same in"
                f" all, got {_listed(drawn)}; leave the option out if the numbers are those of"
                " objects"
            )

    def classes(self, names: Sequence[str] | None = None) -> dict[int, int]:
        """Give the values of the masks consecutive class numbers.

        Parameters
        ----------
        names : sequence of str, optional
            What the user calls them, in the order of their values.

        Returns
        -------
        dict of int to int
            From the value in the masks to the class, over all masks.

        Raises
        ------
        UsageError
            If there are more or fewer names than values.
        LabelError
            If nothing is named and the values look like greys rather than classes: neither small
            whole numbers nor evenly spaced levels.
        """
        found = self.found
        if names is not None:
            if len(names) != len(found):
                raise UsageError(
                    f"classes must be one name for each of the {len(found)} values"
                    f" {_listed(found)}, got {len(names)}: {', '.join(names)}"
                )
        elif not _are_classes(found):
            odd = [n for n, values in self.values.items() if not _are_classes(sorted(values))]
            name = odd[0] if odd else max(self.values, key=lambda n: (len(self.values[n]), n))
            values = self.values[name]
            raise LabelError(
                "masks of classes must hold small whole numbers or evenly spaced grey levels, got"
                f" the {len(values)} values {_listed(values)} in {name!r} (in all masks:"
                f" {_listed(found)}); save them without JPEG, smoothing or resizing, mark one with"
                f" --ignore, name all {len(found)} with --classes, or join values to classes:"
                f" --classes {found[0]}=background,{found[1]}-{found[-1]}=cell"
            )
        return {value: number for number, value in enumerate(found)}


def _counted(labels: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Return the values of labels in order, and how many pixels each has."""
    if labels.dtype in (np.uint8, np.uint16):
        # Counting takes a quarter of the time of sorting.
        counts = np.bincount(labels.ravel())
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    values, counts = np.unique(labels, return_counts=True)
    return values.tolist(), counts.tolist()


def _are_classes(values: Sequence[int]) -> bool:
    if not values or values[-1] < CLASS_NUMBERS:
        return True
    if len(values) > GREY_LEVELS:
        return False
    even = np.linspace(values[0], values[-1], len(values))
    return bool(np.abs(np.asarray(values) - even).max() <= SPACING)


def _listed(values: Sequence[int] | frozenset[int]) -> str:
    ordered = sorted(values)
    if len(ordered) <= LISTED:
        return ", ".join(map(str, ordered))
    first = ", ".join(map(str, ordered[: LISTED - 2]))
    return f"{first}, … {ordered[-1]} ({len(ordered)} in all)"


def _count(masks: Mapping[str, object]) -> str:
    return f"all {len(masks)} masks" if len(masks) > 1 else repr(next(iter(masks)))
