"""The sums by unit that scores of thin borders are made of.

What this module does not know: thresholds, and what is drawn from the sums. A unit is an image, or
a square of one; a piece of a single image belongs to the square that has most of it, an error of
topology to that of its first pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.segment_sums import homes
from unetkit.arrays.sums import Sums, mean_share

if TYPE_CHECKING:
    from unetkit.arrays.contingency import Contingency
    from unetkit.arrays.squares import Squares
    from unetkit.arrays.warping import Topology

Array = np.ndarray[Any, Any]


def of_plane(
    plain: Contingency, thinned: Contingency, topology: Topology, *, squares: Squares | None
) -> dict[str, Array]:
    """Take the sums of one plane.

    Parameters
    ----------
    plain, thinned : Contingency
        Of its pieces as they are and thinned; squares are told apart as images.
    topology : Topology
    squares : Squares, optional
        The units; left out, the plane is one.

    Returns
    -------
    dict of str to ndarray of float64, shape (U, M)
        By score; planes of one image add up.
    """
    joined, single = _pieces(plain), _pieces(thinned)
    pixels, found = plain.foreground(), topology.splits + topology.mergers
    both, true, pred = (
        np.bincount(pixels.image[chosen], pixels.counts[chosen], minlength=pixels.images)
        for chosen in (
            (pixels.true == 1) & (pixels.pred == 1),
            pixels.true == 1,
            pixels.pred == 1,
        )
    )
    errors, area = np.array([found]), np.array([topology.pixels])
    if squares is not None:
        y, x = np.array(topology.places, int).reshape(-1, 2).T
        errors = np.bincount(squares.at(y, x), minlength=squares.count)
        area = squares.areas
    shared = single["both2"] + single["border"]
    pairs = [joined[f"{name}2"] - joined[name] for name in ("both", "true", "pred")]
    return {
        "v_rand": _stack(2 * shared, single["true2"] + single["pred2"] + single["border"]),
        "v_info": _stack(*(single[n] for n in ("count", "both_bits", "true_bits", "pred_bits"))),
        "warping_error": _stack(errors, area),
        "isbi_rand": _stack(pairs[1] + pairs[2] - 2 * pairs[0], pairs[1] + pairs[2]),
        "isbi_pixel": _stack(true + pred - 2 * both, true + pred),
    }


def sums_of(name: str, by_unit: Array) -> Sums:
    """Give what a score is made of.

    Parameters
    ----------
    name : str
    by_unit : ndarray of float64, shape (U, M)
        As `of_plane` has it, added over planes.
    """
    keys = np.arange(by_unit.shape[1])
    return Sums(keys, by_unit, _v_info if name == "v_info" else mean_share)


def _stack(*columns: Array) -> Array:
    return np.stack(columns, axis=-1).astype(float)


def _pieces(table: Contingency) -> dict[str, Array]:
    """Measure the pieces on the pixels of true objects; predicted border is single pixels."""
    whole = table.joined()
    inside = whole.true != 0
    counts = whole.counts.astype(float)
    hit = inside & (whole.pred != 0)
    true, pred = whole.segments("true"), whole.segments("pred")
    own = [homes(table, side, one_image=True) for side in ("true", "pred")]
    sizes = np.bincount(pred.row[hit], counts[hit], minlength=len(pred.ids))
    border = (table.true != 0) & (table.pred == 0)
    objects = true.ids != 0
    parts = {
        "both": (own[0][true.row[hit]], counts[hit]),
        "true": (own[0][objects], true.sizes[objects].astype(float)),
        "pred": (own[1], sizes),
    }

    def add(at: Array, values: Array) -> Array:
        return np.bincount(at, values, minlength=table.images)

    found = {"border": add(table.image[border], table.counts[border].astype(float))}
    for name, (at, values) in parts.items():
        found[name] = add(at, values)
        found[f"{name}2"] = add(at, values**2)
        found[f"{name}_bits"] = add(at, values * np.log2(np.maximum(values, 1)))
    return found | {"count": found["true"]}


def _v_info(keys: Array, sums: Array) -> Array:
    """Take 2 I / (H + H) of entropies, each the logarithm of all less the mean of the own."""
    count, both, true, pred = np.moveaxis(sums, -1, 0)
    there = count > 0
    share = np.divide(1, count, out=np.zeros(np.shape(count)), where=there)
    logarithm = np.log2(np.maximum(count, 1))
    whole = 2 * logarithm - (true + pred) * share
    joint = logarithm - both * share
    nothing = np.where(there, 1.0, np.nan)
    known = there & (whole > 0)
    return np.asarray(np.divide(2 * (whole - joint), whole, out=nothing, where=known))
