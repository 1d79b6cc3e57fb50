"""How the intensities that a network sees are spread, and whether others are spread alike."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

# Bins of the histogram, each of the same share of the pixels, given by the values in their middles.
BINS = 32
# The grain is told from differences over so many pixels.
NEAR, FAR = 1, 8
# Own choices, by looking at seven kinds of microscopy: siblings of the training images lie within
# them, with few exceptions; inverted ones and those magnified four times do not, save that DIC,
# whose shadows are as strong as its lights, looks the same inverted.
LEAST_SHIFT, SHIFT_FACTOR = 0.08, 2.0
GRAIN_FACTOR = 1.3
# So much narrower is no other exposure, but other numbers, such as 0 to 1 in place of 0 to 255.
# What is wider than any by that much differs in its spread too.
NARROW_FACTOR = 10.0
# Neighbours may differ by so many times the most that was usual before contrast is taken back. Own
# choice: beside five images of a set hardly any other of it differs as much, but for SEM of several
# microscopes, by 2.3 times; two empty fields differ by 7, and a network that took their noise for
# 57 nuclei finds none in them then (docs/figures.md).
ROUGH_FACTOR = 2.0


@dataclass(frozen=True)
class Intensities:
    """What one image looks like to a network, whatever is on it; one number or row a channel."""

    quantiles: tuple[tuple[float, ...], ...]  # in the middles of `BINS` bins of equal shares
    # The mean difference of pixels that touch, as a share of that of pixels 8 apart; it falls as an
    # image is magnified, and does not change with its contrast. 1 where nothing differs.
    grain: tuple[float, ...]
    # The mean difference of pixels that touch, along y and x together, as the network sees it.
    roughness: tuple[float, ...]


@dataclass(frozen=True)
class Typical:
    """What the images of a training look like together; one number or row a channel."""

    quantiles: tuple[tuple[float, ...], ...]  # the mean of the images'
    spread: tuple[float, ...]  # how far the most unusual of them lies from it, as `_shift` measures
    finest: tuple[float, ...]  # the highest grain
    coarsest: tuple[float, ...]  # the lowest
    # The least that the quantiles of one of them reach from the first to the last; 0 in models of
    # before it was noted.
    narrowest: tuple[float, ...]
    # The highest roughness; infinite in models of before it was noted.
    roughest: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Typical:
        """Make it again from what `to_dict` returned.

        Raises
        ------
        InputError
            If it is none.
        """
        try:
            rows = tuple(tuple(float(value) for value in row) for row in values["quantiles"])
            unknown = {"narrowest": [0.0] * len(rows), "roughest": [math.inf] * len(rows)}
            known = {**unknown, **values}
            rest = {
                name: tuple(float(value) for value in known[name])
                for name in ("spread", "finest", "coarsest", "narrowest", "roughest")
            }
            whole = all(len(row) == BINS for row in rows)
            if not whole or {len(row) for row in rest.values()} != {len(rows)}:
                raise ValueError("lists of other lengths")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"intensities of a model file must be those of its training, got {error!s:.100};"
                " train it again"
            ) from error
        return cls(rows, **rest)


def describe(blocks: Iterable[NDArray[np.float32]]) -> Intensities:
    """Look at parts of an image.

    Parameters
    ----------
    blocks : iterable of ndarray of float32, shape (C, Y, X)
        Normalized; at least one.

    Returns
    -------
    Intensities
    """
    parts = list(blocks)
    flat = np.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)
    middles = (np.arange(BINS) + 0.5) / BINS
    quantiles = np.quantile(flat, middles, axis=1).T
    near, far = (
        np.mean([_difference(part, distance) for part in parts], axis=0) for distance in (NEAR, FAR)
    )
    grain = np.divide(near, far, out=np.ones_like(near), where=far > 0)
    rows = tuple(map(tuple, quantiles.tolist()))
    return Intensities(rows, tuple(grain.tolist()), tuple(near.tolist()))


def typical(images: Sequence[Intensities]) -> Typical:
    """Say what is common to images of equal numbers of channels."""
    mean = np.mean([one.quantiles for one in images], axis=0)
    rows = tuple(map(tuple, mean.tolist()))
    shifts = [
        [_shift(own, row) for own, row in zip(one.quantiles, rows, strict=True)] for one in images
    ]
    grains = np.array([one.grain for one in images])
    # An image of one value has no details.
    seen = np.array([_widths(one) for one in images]) > 0
    none = ~seen.any(axis=0)
    return Typical(
        quantiles=rows,
        spread=tuple(np.max(shifts, axis=0).tolist()),
        finest=tuple(grains.max(axis=0, where=seen | none, initial=0).tolist()),
        coarsest=tuple(grains.min(axis=0, where=seen | none, initial=np.inf).tolist()),
        narrowest=tuple(np.min([_widths(one) for one in images], axis=0).tolist()),
        roughest=tuple(np.max([one.roughness for one in images], axis=0).tolist()),
    )


def contrast_share(known: Typical, one: Intensities) -> tuple[float, ...]:
    """Return how much of each channel's contrast leaves its noise within what is known.

    A field without anything on it is stretched until its noise fills the range of objects, in which
    a network sees hundreds of them. 1 where neighbours differ by less than `ROUGH_FACTOR` times the
    most that was usual, else what brings them there.
    """
    return tuple(
        min(1.0, ROUGH_FACTOR * most / own) if own > 0 and most > 0 else 1.0
        for own, most in zip(one.roughness, known.roughest, strict=True)
    )


def middles(known: Typical) -> tuple[float, ...]:
    """Return the usual median of each channel."""
    return tuple((row[BINS // 2 - 1] + row[BINS // 2]) / 2 for row in known.quantiles)


def deviations(known: Typical, one: Intensities) -> list[str]:
    """Say in words in what an image differs from all that are known.

    Returns
    -------
    list of str
        Nothing where it looks as usual.
    """
    found = []
    for channel, row in enumerate(known.quantiles):
        where = f" of channel {channel}" if len(known.quantiles) > 1 else ""
        shift = _shift(one.quantiles[channel], row)
        width, least = _widths(one)[channel], known.narrowest[channel]
        if least > 0 and not width:
            found.append(
                f"intensities{where} are nearly all the same, as of a plane without anything on it"
            )
            continue
        # Contrast that was taken back leaves it just there, but for rounding.
        limit = ROUGH_FACTOR * known.roughest[channel]
        if width and math.isclose(one.roughness[channel], limit, rel_tol=1e-3):
            found.append(
                f"noise{where} stands out as in a field without anything on it, so that its"
                " contrast is raised less than usual"
            )
            continue
        if NARROW_FACTOR * width < least:
            found.append(
                f"intensities{where} reach over {width:.3g}, as if in another unit, where "
                f"{least:.3g} was the least"
            )
        elif shift > max(LEAST_SHIFT, SHIFT_FACTOR * known.spread[channel]):
            found.append(
                f"intensities{where} are spread otherwise, by {shift:.0%} of their range where "
                f"{known.spread[channel]:.0%} was the most"
            )
        grain, usual = one.grain[channel], (known.coarsest[channel], known.finest[channel])
        if not usual[0] / GRAIN_FACTOR <= grain <= usual[1] * GRAIN_FACTOR:
            word = "coarser" if grain < usual[0] else "finer"
            found.append(
                f"details{where} are {word}, as if of another magnification: {grain:.2f} where "
                f"{usual[0]:.2f} to {usual[1]:.2f} was usual"
            )
    return found


def _widths(one: Intensities) -> list[float]:
    """Return how far the quantiles of each channel reach from the first to the last."""
    return [row[-1] - row[0] for row in one.quantiles]


def _shift(own: Sequence[float], usual: Sequence[float]) -> float:
    """Return the earth mover's distance of two spreads, as a share of the range of the usual."""
    width = max(usual[-1] - usual[0], 1e-9)
    return float(np.mean(np.abs(np.subtract(own, usual))) / width)


def _difference(block: NDArray[np.float32], distance: int) -> NDArray[np.float64]:
    """Return the mean difference of pixels that far apart along y and x, for each channel."""
    total = np.zeros(block.shape[0])
    for axis in (1, 2):
        if block.shape[axis] > distance:
            ahead = np.take(block, range(distance, block.shape[axis]), axis=axis)
            behind = np.take(block, range(block.shape[axis] - distance), axis=axis)
            total += np.abs(ahead - behind).mean(axis=(1, 2))
    return total
