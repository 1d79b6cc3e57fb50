"""How far a network really looks, measured; it reads no layer and believes no claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from unetkit.models.inference import logits_of

if TYPE_CHECKING:
    from unetkit.geometry.sizes import SizeContract

# Lengths of the probed strips: a network that looks farther than half the last one counts as
# looking at the whole tile.
LENGTHS = (256, 640, 1280, 2560)

# Pixels that are computed at once, so that a deep network fits into a small memory.
_BATCH_PIXELS = 1 << 18


@dataclass(frozen=True)
class ReceptiveField:
    """Which input pixels an output pixel depends on.

    ::

        input    |<----- before ----->|p|<-------- after -------->|
        output                        |p|

    Parameters
    ----------
    before, after : tuple of int
        For each phase of the step (position in the input modulo `step`), how many pixels above or
        left, and below or right, of itself an output pixel depends on; the farther one of the two
        axes. Empty where it depends on the whole input.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def is_bounded(self) -> bool:
        """Whether an output pixel depends on its surroundings only."""
        return bool(self.before)

    @property
    def reach(self) -> tuple[int, int] | None:
        """The largest `before` and `after` of any phase; None where there is no bound."""
        return (max(self.before), max(self.after)) if self.is_bounded else None

    def context(self, contract: SizeContract, *, need: int) -> int:
        """Return the context on each side that tiles which read `need` of it really depend on.

        Tiles start on the step grid and are multiples of the step, so a pixel near a tile's edge
        always has the same phase: only its own reach counts there. What a tile reads beyond the
        need to come to a legal size lies at its far side.
        """
        step = contract.step
        surplus = (contract.minimum - 2 * need) % step
        above = max(self.before[(need + k) % step] - k for k in range(step))
        below = max(self.after[(need - 1 - k) % step] - k for k in range(step))
        return max(above, below - surplus)

    def least_need(self, contract: SizeContract) -> int | None:
        """Return the least ``margin + k * step`` that makes tiles exact; None without a bound."""
        if self.reach is None:
            return None
        stop = contract.margin + max(self.reach) + 2 * contract.step
        return next(
            need
            for need in range(contract.margin, stop, contract.step)
            if self.context(contract, need=need) <= need
        )


def receptive_field(module: Any, *, in_channels: int) -> ReceptiveField:
    """Measure how far a network looks, at all phases of its step.

    A strip of the least legal width gets one row of NaN. Whatever is computed from that row turns
    to NaN, be the weights 0, so the NaN rows of the output are those that depend on it.
    One such row for each phase, along y and along x, gives the whole table.

    Parameters
    ----------
    module : nn.Module
        A network in evaluation mode with a `contract` that tells its sizes truly.
    in_channels : int
        Channels of the images that it takes.

    Returns
    -------
    ReceptiveField

    Examples
    --------
    >>> from unetkit.models.unet import build
    >>> network = build(in_channels=1, classes=2, depth=1, width=2).eval()
    >>> receptive_field(network, in_channels=1).least_need(network.contract)
    8
    """
    contract: SizeContract = module.contract
    tables = []
    for axis in (2, 3):
        length = _long_enough(module, contract, in_channels=in_channels, axis=axis)
        if length is None:
            return ReceptiveField((), ())
        tables.append(_table(module, length, in_channels=in_channels, axis=axis))
    before, after = (
        tuple(max(by_axis) for by_axis in zip(*(table[side] for table in tables), strict=True))
        for side in (0, 1)
    )
    return ReceptiveField(before, after)


def _long_enough(module: Any, contract: SizeContract, *, in_channels: int, axis: int) -> int | None:
    """Return a length of which either half is longer than the network looks, if there is one."""
    for least in LENGTHS:
        length = contract.legal(least + 2 * contract.margin + contract.step)
        # Halves, since a single row could slip through the holes of a dilated kernel.
        halves = [slice(0, length // 2), slice(length // 2, length)]
        first, second = _reached(module, length, rows=halves, in_channels=in_channels, axis=axis)
        if not first[-1] and not second[0]:
            # Other phases look up to a step farther.
            return length + 2 * contract.step
    return None


def _table(module: Any, length: int, *, in_channels: int, axis: int) -> tuple[list[int], list[int]]:
    """Return `before` and `after` for each phase along one axis."""
    contract: SizeContract = module.contract
    step, middle = contract.step, length // 2
    rows = [slice(row, row + 1) for row in range(middle, middle + step)]
    reached = _reached(module, length, rows=rows, in_channels=in_channels, axis=axis)
    before, after = [0] * step, [0] * step
    for row, outputs in enumerate(reached, start=middle):
        for output in (i + contract.margin for i, nan in enumerate(outputs) if nan):
            phase = output % step
            before[phase] = max(before[phase], output - row)
            after[phase] = max(after[phase], row - output)
    return before, after


def _reached(
    module: Any, length: int, *, rows: list[slice], in_channels: int, axis: int
) -> list[list[bool]]:
    """Say for each choice of NaN rows which output rows turn to NaN."""
    width = module.contract.minimum
    batch_size = max(1, _BATCH_PIXELS // (length * width))
    found: list[list[bool]] = []
    for first in range(0, len(rows), batch_size):
        chosen = rows[first : first + batch_size]
        strips = torch.zeros(len(chosen), in_channels, length, width)
        for strip, nans in zip(strips, chosen, strict=True):
            strip[:, nans] = torch.nan
        # Exact kernels multiply each pixel by itself; some fast ones mix neighbours on the way.
        logits = logits_of(module, strips if axis == 2 else strips.transpose(2, 3))
        found += logits.isnan().any(dim=1).any(dim=4 - axis).tolist()
    return found
