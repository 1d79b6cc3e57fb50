"""Fit the numbers that turn raw intensities into network input, and apply them; it knows no files.

Pixels of other types than uint8 and uint16 are looked at as float32, in which the network computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.errors import InputError, NonFiniteError, UsageError
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Blocks = Callable[[], Iterable[NDArray[Any]]]


BINS = 65536


@dataclass(frozen=True)
class OrderCounts:
    """How many pixels of each channel fall into each bin of the upper (or only) 16 bits."""

    values: list[NDArray[np.int64]]
    floating: bool

    @property
    def totals(self) -> list[int]:
        """How many pixels each channel has."""
        return [int(counts.sum()) for counts in self.values]

    def resolve(self, blocks: Blocks, ranks: list[list[int]]) -> list[list[float]]:
        """Find the values at the ranks of each channel (0 is the smallest pixel).

        `blocks` give the pixels that were counted; floats are read again.
        """
        bins = [_bins_of(counts, wanted) for counts, wanted in zip(self.values, ranks, strict=True)]
        if not self.floating:
            return [[float(b) for b in found] for found in bins]
        lower = [{b: np.zeros(BINS, np.int64) for b in found} for found in bins]
        for block in blocks():
            for channel, tables in zip(block, lower, strict=True):
                keys = _keys(channel)
                for upper, table in tables.items():
                    _count_low(keys, upper, table)
        channels = zip(self.values, ranks, bins, lower, strict=True)
        return [_finish(c, wanted, bins=b, lower=low) for c, wanted, b, low in channels]


def _finish(
    counts: NDArray[np.int64],
    ranks: list[int],
    *,
    bins: list[int],
    lower: dict[int, NDArray[np.int64]],
) -> list[float]:
    """Join the upper half of each wanted float with the lower half found inside its bin."""
    before = np.cumsum(counts) - counts
    halves = [
        (upper << 16) | _bins_of(lower[upper], [rank - int(before[upper])])[0]
        for rank, upper in zip(ranks, bins, strict=True)
    ]
    return _unkey(np.array(halves, np.uint32)).astype(float).tolist()  # type: ignore[no-any-return]


def count(blocks: Blocks) -> OrderCounts:
    """Count the pixels of each channel in one pass over blocks (C, Y, X).

    They are all of uint8, all of uint16, or all of finite float32; without any there is no channel.
    """
    counts: list[NDArray[np.int64]] = []
    floating = False
    for block in blocks():
        if not counts:
            floating = block.dtype == np.float32
            counts = [np.zeros(BINS, np.int64) for _ in range(block.shape[0])]
        for channel, table in zip(block, counts, strict=True):
            if floating:
                _count_high(_keys(channel), table)
            else:
                _count(np.ascontiguousarray(channel).ravel(), table)
    return OrderCounts(counts, floating)


def _bins_of(counts: NDArray[np.int64], ranks: list[int]) -> list[int]:
    edges = np.cumsum(counts)
    found = np.searchsorted(edges, ranks, side="right")
    return np.minimum(found, BINS - 1).tolist()  # type: ignore[no-any-return]


def _keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map floats to integers of the same order: IEEE 754 sorts by sign and magnitude."""
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    negative = (bits >> np.uint32(31)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint32(0x80000000))


def _unkey(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    positive = (keys >> np.uint32(31)).astype(bool)
    bits = np.where(positive, keys & np.uint32(0x7FFFFFFF), ~keys)
    return bits.astype(np.uint32).view(np.float32)


@numba.njit(nogil=True, cache=is_kept())
def _count(values, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for value in values:
        counts[value] += 1


@numba.njit(nogil=True, cache=is_kept())
def _count_high(keys, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for key in keys:
        counts[key >> 16] += 1


@numba.njit(nogil=True, cache=is_kept())
def _count_low(keys, upper, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for key in keys:
        if key >> 16 == upper:
            counts[key & 0xFFFF] += 1


METHODS = ("percentile", "zscore", "range", "none")
LOW, HIGH = 1.0, 99.8
"""The percentiles that become 0 and 1: our own choice; robust against dead and hot pixels."""


@dataclass(frozen=True)
class Normalization:
    """An affine map of intensities for each channel: (value - offset) * scale.

    Parameters
    ----------
    method : str
        One of `METHODS`; how the numbers were found.
    offset, scale : tuple of float
        One number for each channel; a scale of 0 makes a constant channel 0.
    """

    method: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, block: NDArray[Any], *, replace_nonfinite: bool = False) -> NDArray[np.float32]:
        """Normalize a block of the image that the numbers were fitted on.

        Parameters
        ----------
        block : ndarray, shape (C, Y, X)
            Raw intensities.
        replace_nonfinite : bool
            Count NaN and Inf as 0, as `fit` with ``nonfinite="fill"`` does.

        Returns
        -------
        ndarray of float32, shape (C, Y, X)

        Raises
        ------
        InputError
            If the block has another number of channels.

        Examples
        --------
        >>> Normalization("range", (10.0,), (0.1,)).apply(np.array([[[10, 15, 20]]]))
        array([[[0. , 0.5, 1. ]]], dtype=float32)
        """
        if block.ndim != 3 or block.shape[0] != len(self.offset):
            raise InputError(
                f"a block must be (C, Y, X) with {len(self.offset)} channels as the normalization "
                f"has, got shape {block.shape}; choose the channels it was fitted on"
            )
        out = _float32(block, replace_nonfinite=replace_nonfinite)
        out -= np.asarray(self.offset, np.float32)[:, None, None]
        out *= np.asarray(self.scale, np.float32)[:, None, None]
        return out

    def damped(self, shares: Sequence[float], toward: Sequence[float]) -> Normalization:
        """Return one of less contrast: what was v becomes share * v + (1 - share) * toward.

        Parameters
        ----------
        shares : sequence of float
            Above 0, at most 1; one number for each channel.
        toward : sequence of float
            The normalized value that stays as it is; one for each channel.

        Examples
        --------
        >>> Normalization("range", (10.0,), (0.1,)).damped([0.5], [1.0])
        Normalization(method='range', offset=(0.0,), scale=(0.05,))
        """
        scale = tuple(own * share for own, share in zip(self.scale, shares, strict=True))
        offset = tuple(
            begin - (1 - share) * value / new if share < 1 else begin
            for begin, share, value, new in zip(self.offset, shares, toward, scale, strict=True)
        )
        return Normalization(self.method, offset, scale)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"method": self.method, "offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """Make it again from what `to_dict` returned."""
        return cls(values["method"], tuple(values["offset"]), tuple(values["scale"]))


def fit(
    blocks: Blocks,
    *,
    method: str = "percentile",
    where: str | None = None,
    boxes: Sequence[tuple[int, int, int, int, int]] | None = None,
    nonfinite: str = "error",
) -> Normalization:
    """Find the normalization of one image from its blocks.

    Parameters
    ----------
    blocks : callable returning an iterable of ndarray, shape (C, Y, X)
        Called once or twice; each time it must yield the same pixels.
    method : str
        ``percentile``: 1st percentile to 0, 99.8th to 1, no clipping (where the two are equal,
        minimum and maximum instead); ``range``: minimum to 0, maximum to 1; ``zscore``: mean 0,
        standard deviation 1; ``none``: the numbers as they are. A constant channel becomes 0,
        except by ``none``.
    where : str, optional
        What the pixels belong to, for the error message.
    boxes : sequence of tuple of int, optional
        The (plane, y0, y1, x0, x1) of each block, likewise.
    nonfinite : str
        ``error`` refuses NaN and Inf; ``fill`` counts them as 0.

    Returns
    -------
    Normalization

    Raises
    ------
    NonFiniteError
        If a pixel is NaN or Inf, or too large for float32.
    UsageError
        If `method` or `nonfinite` is not one of those listed.
    """
    _check("normalization", method, METHODS)
    _check("nonfinite", nonfinite, ("error", "fill"))
    checked = _Checked(
        blocks, what=where or "the image", boxes=boxes, replace_nonfinite=nonfinite == "fill"
    )
    if method == "none":
        channels = checked.channels()
        return Normalization(method, (0.0,) * channels, (1.0,) * channels)
    if method == "zscore":
        offset, spread = _moments(checked)
    else:
        offset, spread = _span(checked, percentiles=method == "percentile")
    scale = tuple(1.0 / s if s > 0 else 0.0 for s in spread)
    return Normalization(method, tuple(offset), scale)


def _check(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")


@dataclass(frozen=True)
class _Checked:
    """Blocks as 8- or 16-bit unsigned integers or finite float32."""

    blocks: Blocks
    what: str
    boxes: Sequence[tuple[int, int, int, int, int]] | None
    replace_nonfinite: bool

    def __call__(self) -> Iterable[NDArray[Any]]:
        for number, block in enumerate(self.blocks()):
            if block.dtype in (np.uint8, np.uint16):
                yield block
                continue
            values = _float32(block, replace_nonfinite=self.replace_nonfinite)
            self._refuse_nonfinite(values, number)
            yield values

    def channels(self) -> int:
        """Look at every block that could hold NaN or Inf, and count the channels."""
        channels = 0
        for block in self():
            channels = block.shape[0]
            if block.dtype != np.float32:
                break
        return channels

    def _refuse_nonfinite(self, values: NDArray[np.float32], number: int) -> None:
        finite = np.isfinite(values)
        if finite.all():
            return
        channel, row, column = np.argwhere(~finite)[0].tolist()
        block = "one block"
        if self.boxes is not None:
            plane, y0, y1, x0, x1 = self.boxes[number]
            row, column = row + y0, column + x0
            block = f"rows {y0}:{y1}, columns {x0}:{x1} of plane {plane}"
        raise NonFiniteError(
            f"{self.what} must hold finite numbers that fit float32, got "
            f"{int(np.count_nonzero(~finite))} NaN or Inf in {block}, the first in channel "
            f"{channel} at row {row}, column {column}; repair the file, or count them as 0 with "
            "--nonfinite fill"
        )


def _float32(block: NDArray[Any], *, replace_nonfinite: bool) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = block.astype(np.float32)
    if replace_nonfinite and block.dtype.kind == "f":
        values[~np.isfinite(values)] = 0
    return values


def _moments(blocks: _Checked) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel; blocks are merged as Chan et al. (1979) do."""
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks():
        values = block.reshape(block.shape[0], -1).astype(np.float64)
        n = values.shape[1]
        if not n:
            continue
        here = values.mean(axis=1)
        delta = here - mean
        within = ((values - here[:, None]) ** 2).sum(axis=1)
        squares = squares + within + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
    spread = np.sqrt(squares / max(count, 1))
    return mean.tolist(), spread.tolist()


def _span(blocks: _Checked, *, percentiles: bool) -> tuple[list[float], list[float]]:
    """Offset and width of each channel, from order statistics."""
    counts = count(blocks)
    offsets: list[float] = []
    spreads: list[float] = []
    statistics = counts.resolve(blocks, [_ranks(n) for n in counts.totals])
    for n, values in zip(counts.totals, statistics, strict=True):
        low, high = values[0], values[-1]
        if percentiles:
            lower = _between(values[1], values[2], _position(n, LOW))
            upper = _between(values[3], values[4], _position(n, HIGH))
            if upper > lower:
                low, high = lower, upper
        offsets.append(low)
        spreads.append(high - low)
    return offsets, spreads


def _position(n: int, percentile: float) -> float:
    return max(n - 1, 0) * percentile / 100


def _ranks(n: int) -> list[int]:
    """Ranks of minimum, the two neighbours of each percentile, and maximum, in rising order."""
    last = max(n - 1, 0)
    ranks = [0]
    for percentile in (LOW, HIGH):
        position = _position(n, percentile)
        ranks += [math.floor(position), min(math.ceil(position), last)]
    return [*ranks, last]


def _between(low: float, high: float, position: float) -> float:
    """Interpolate linearly, as ``numpy.percentile`` does by default."""
    return low + (high - low) * (position - math.floor(position))
