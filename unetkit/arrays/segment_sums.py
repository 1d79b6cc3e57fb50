"""The sums by unit that scores of segments are made of: pairs of pixels, and information.

What this module does not know: what is drawn from them. A unit is an image, or a square of one.

Of a single image each object belongs to the square that has most of it, with all its pixels.
Background is one segment of the whole image: squares say how many of its pixels they have, and the
scores are worked out from their sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.arrays.contingency import Contingency, Segments

Array = np.ndarray[Any, Any]


def homes(table: Contingency, side: str, *, one_image: bool) -> Array:
    """Find the unit of each segment: its image, or the part of the image that has most of it.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    side : {"true", "pred"}
    one_image : bool
        The units are parts of one image.

    Returns
    -------
    ndarray of int64, shape (S,)
        By segment of the table, or for one image of the joined table; the first part where two
        have as much.
    """
    parts = table.segments(side)
    image = np.empty(len(parts.ids), np.int64)
    image[parts.row] = table.image
    if not one_image:
        return image
    order = np.lexsort((-image, parts.sizes, parts.ids))  # the last of an id is its home
    last = np.append(np.diff(parts.ids[order].astype(np.int64)) != 0, [True] * (len(order) > 0))
    own: Array = image[order][last]
    return own


def of_segments(table: Contingency, *, one_image: bool) -> dict[str, Sums]:
    """Take the sums of every score of segments.

    Parameters
    ----------
    table : Contingency
        Its images are the units.
    one_image : bool
        The units are parts of one image.

    Returns
    -------
    dict of str to Sums
    """
    whole = table.joined() if one_image else table
    true, pred = whole.segments("true"), whole.segments("pred")
    home_true, home_pred = (homes(table, side, one_image=one_image) for side in ("true", "pred"))
    # Only of a single image is background a segment that no unit has for itself.
    ground_true, ground_pred = ((ids == 0) & one_image for ids in (whole.true, whole.pred))
    void = ground_true & ground_pred
    at_true = np.where(ground_true, home_pred[pred.row], home_true[true.row])
    at_pred = np.where(ground_pred, home_true[true.row], home_pred[pred.row])
    counts = whole.counts.astype(float)

    def add(at: Array, values: Array, chosen: Array) -> Array:
        return np.bincount(at[chosen], values[chosen], minlength=table.images)

    both = (table.true == 0) & (table.pred == 0) & one_image
    empty = add(table.image, table.counts, both)
    sides = []
    for at, ground, segments, home in (
        (at_true, ground_true, true, home_true),
        (at_pred, ground_pred, pred, home_pred),
    ):
        kept = (segments.ids != 0) | (not one_image)
        sides.append(
            {
                "pixels": add(at, counts, ~void) + empty,
                "ground": add(at, counts, ground & ~void) + empty,
                "squares": add(home, segments.sizes.astype(float) ** 2, kept),
                "surprise": add(home, _surprise(segments.sizes), kept),
                "shared": add(at, _surprise(counts), ~void),
            }
        )
    joint = add(at_true, counts**2, ~void)
    names = ("pixels", "surprise", "shared", "ground")
    split, merged = ([*(side[name] for name in names), empty] for side in sides)
    squares, grounds = ([side[name] for side in sides] for name in ("squares", "ground"))
    return {
        "rand": _sums(_rand, sides[0]["pixels"], *squares, joint, *grounds, empty),
        "adapted_rand_error": _adapted_sums(
            table, (true, pred), (home_true, home_pred), one_image=one_image
        ),
        "voi": _sums(_information, *split, *merged),
        "voi_split": _sums(_information, *split),
        "voi_merge": _sums(_information, *merged),
    }


def _adapted_sums(
    table: Contingency,
    sides: tuple[Segments, Segments],
    own: tuple[Array, Array],
    *,
    one_image: bool,
) -> Sums:
    """Take the sums of the pairs of pixels inside true objects."""
    whole = table.joined() if one_image else table
    (true, pred), (home_true, home_pred) = sides, own
    counts = whole.counts.astype(float)
    inside = whole.true != 0
    missed = inside & (whole.pred == 0) & one_image
    sizes = np.bincount(pred.row[inside], counts[inside], minlength=len(pred.ids))
    kept = (pred.ids != 0) | (not one_image)
    objects = true.ids != 0

    def at_home(chosen: Array, values: Array) -> Array:
        return np.bincount(home_true[true.row[chosen]], values[chosen], minlength=table.images)

    return _sums(
        _adapted,
        at_home(inside, counts**2),
        np.bincount(
            home_true[objects], true.sizes[objects].astype(float) ** 2, minlength=table.images
        ),
        np.bincount(home_pred[kept], sizes[kept] ** 2, minlength=table.images),
        at_home(missed, counts),
        at_home(inside, counts),
    )


def _sums(score: Callable[[Array, Array], Array], *columns: Array) -> Sums:
    return Sums(np.arange(len(columns)), np.stack(columns, axis=-1).astype(float), score)


def _columns(sums: Array) -> Array:
    """Put the columns first."""
    return np.moveaxis(sums, -1, 0)


def _rand(keys: Array, sums: Array) -> Array:
    pixels, true, pred, joint, ground_true, ground_pred, empty = _columns(sums)
    pairs = pixels * (pixels - 1)
    differing = true + ground_true**2 + pred + ground_pred**2 - 2 * (joint + empty**2)
    return 1 - _divide(differing, pairs)


def _adapted(keys: Array, sums: Array) -> Array:
    both, true, pred, missed, pixels = _columns(sums)
    # Pairs of two pixels, so that none is paired with itself.
    whole = true + pred + missed**2 - 2 * pixels
    return np.clip(_divide(whole - 2 * (both - pixels), whole), 0, None)


def _information(keys: Array, sums: Array) -> Array:
    """Add up the conditional entropies of one direction or of both."""
    terms = sums.reshape(*sums.shape[:-1], -1, 5)
    pixels, sizes, shared, ground, empty = _columns(terms)
    bits = _divide(sizes + _surprise(ground) - shared - _surprise(empty), pixels)
    return np.asarray(np.clip(bits, 0, None).sum(axis=-1))


def _surprise(counts: Array) -> Array:
    return np.asarray(counts * np.log2(np.maximum(counts, 1)))


def _divide(part: Array, whole: Array) -> Array:
    nothing = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))
