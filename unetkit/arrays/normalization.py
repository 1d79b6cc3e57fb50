"""Fit the numbers that turn raw intensities into network input, and apply them; it knows no files.

Pixels of other types than uint8 and uint16 are looked at as float32, in which the network computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import order_statistics
from unetkit.errors import InputError, NumbersError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Blocks = Callable[[], Iterable[NDArray[Any]]]

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

    def apply(self, block: NDArray[Any], *, fill: bool = False) -> NDArray[np.float32]:
        """Normalize a block of the image that the numbers were fitted on.

        Parameters
        ----------
        block : ndarray, shape (C, Y, X)
            Raw intensities.
        fill : bool
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
        out = _float32(block, fill=fill)
        out -= np.asarray(self.offset, np.float32)[:, None, None]
        out *= np.asarray(self.scale, np.float32)[:, None, None]
        return out

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
    NumbersError
        If a pixel is NaN or Inf, or too large for float32.
    UsageError
        If `method` or `nonfinite` is not one of those listed.
    """
    _check("normalization", method, METHODS)
    _check("nonfinite", nonfinite, ("error", "fill"))
    checked = _Checked(blocks, what=where or "the image", boxes=boxes, fill=nonfinite == "fill")
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
    fill: bool

    def __call__(self) -> Iterable[NDArray[Any]]:
        for number, block in enumerate(self.blocks()):
            if block.dtype in (np.uint8, np.uint16):
                yield block
                continue
            values = _float32(block, fill=self.fill)
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
        raise NumbersError(
            f"{self.what} must hold finite numbers that fit float32, got "
            f"{int(np.count_nonzero(~finite))} NaN or Inf in {block}, the first in channel "
            f"{channel} at row {row}, column {column}; repair the file, or count them as 0 with "
            "--nonfinite fill"
        )


def _float32(block: NDArray[Any], *, fill: bool) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = block.astype(np.float32)
    if fill and block.dtype.kind == "f":
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
    counts = order_statistics.count(blocks)
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
