"""What networks say about a box of an image: all looks that are taken at it, averaged.

Looks are added up one after another in an order that nothing changes, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.geometry.tiles import Tile
from unetkit.pipeline.tile_predict_network import check_finite, tile_logits, to_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import torch
    from numpy.typing import NDArray

    from unetkit.pipeline.tile_predict_average import Averaging, Interval, Member, Turn

# The least weight of a pixel in a blend, as a share of its window's centre; the corners of a
# window would otherwise count for so little that rounding shows where they are alone. The value
# is that of MONAI's sliding window, so that results can be compared.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Looks:
    """How to look at an image.

    Parameters
    ----------
    averaging : Averaging
        Where the networks look.
    modules : sequence of nn.Module
        The networks, in the order of its members, ready to predict.
    classes : int
        How many they tell apart.
    precision : str
        As for `hardware.forward`.
    turn : context manager
        Held while a network computes.
    watch : callable
        Called with the logits of each look, and the tile that they are for.
    """

    averaging: Averaging
    modules: Sequence[torch.nn.Module]
    classes: int
    precision: str
    turn: AbstractContextManager[Any]
    watch: Callable[[torch.Tensor, Tile], None] = check_finite

    def probabilities(
        self, blocks: Sequence[NDArray[np.float32]], tile: Tile, *, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return the mean probabilities of a tile's write box.

        Parameters
        ----------
        blocks : sequence of ndarray of float32, shape (C, Y, X)
            The read box, normalized for each of the networks.
        tile : Tile
            Its write box is wanted, with an origin on the step grid.
        shape : (int, int)
            Height and width of the image.

        Returns
        -------
        ndarray of float32, shape (K, Y, X)
        """
        looked = [
            _Look(self, member, module, block, tile)
            for member, module, block in zip(
                self.averaging.members, self.modules, blocks, strict=True
            )
        ]
        if self.averaging.merge == "gaussian":
            return _mean(lambda look: look.blended(shape), looked)
        box = (tile.y0, tile.y1), (tile.x0, tile.x1)
        return _mean(lambda look: look.window((tile.y0, tile.x0), *box), looked)


@dataclass(frozen=True)
class _Look:
    """One network over one read box."""

    looks: Looks
    member: Member
    module: torch.nn.Module
    block: NDArray[np.float32]
    tile: Tile

    def blended(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the mean of all windows that touch the write box, each weighted by its bell."""
        averaging, tile, beyond = self.looks.averaging, self.tile, self.member.beyond
        side = averaging.tile
        bell = _bell(side + 2 * beyond)
        weights = np.zeros((tile.y1 - tile.y0, tile.x1 - tile.x0), np.float32)
        total = np.zeros((self.looks.classes, *weights.shape), np.float32)
        for y in averaging.windows(self.member, tile.y0, tile.y1, length=shape[0]):
            rows = max(tile.y0, y - beyond), min(tile.y1, y + side + beyond)
            for x in averaging.windows(self.member, tile.x0, tile.x1, length=shape[1]):
                columns = max(tile.x0, x - beyond), min(tile.x1, x + side + beyond)
                found = self.window((y, x), rows, columns)
                weight = bell[_part(rows, y - beyond), _part(columns, x - beyond)]
                place = _part(rows, tile.y0), _part(columns, tile.x0)
                total[:, *place] += found * weight
                weights[place] += weight
        return np.asarray(total / weights)

    def window(
        self, origin: tuple[int, int], rows: Interval, columns: Interval
    ) -> NDArray[np.float32]:
        """Return the mean over all turns of the tile at `origin`; `rows`, `columns` are wanted."""
        return _mean(
            lambda turn: self._turned(turn, origin, rows=rows, columns=columns),
            self.looks.averaging.turns,
        )

    def _turned(
        self, turn: Turn, origin: tuple[int, int], *, rows: Interval, columns: Interval
    ) -> NDArray[np.float32]:
        member, tile, side = self.member, self.tile, self.looks.averaging.tile
        y0, y1 = member.reads(origin[0], side, mirrored=turn.rows)
        x0, x1 = member.reads(origin[1], side, mirrored=turn.columns)
        seen = self.block[:, _part((y0, y1), tile.read_y0), _part((x0, x1), tile.read_x0)]
        size = y1 - y0
        wanted = turn.place(_moved(rows, y0), _moved(columns, x0), size=size)
        (top, bottom), (left, right) = wanted
        box = Tile(tile.index, top, left, bottom, right, 0, 0, size, size)
        turned = np.ascontiguousarray(turn.apply(seen))
        with self.looks.turn:
            logits = tile_logits(
                self.module,
                turned,
                box,
                margin=member.contract.margin,
                precision=self.looks.precision,
            )
        self.looks.watch(logits, tile)
        return turn.undo(to_probabilities(logits))


def _mean(look: Callable[[Any], NDArray[np.float32]], at: Sequence[Any]) -> NDArray[np.float32]:
    """Return the mean of what is seen; a single look is returned as it is."""
    total = look(at[0])
    if len(at) == 1:
        return total
    total = np.ascontiguousarray(total)
    for one in at[1:]:
        total += look(one)
    total /= np.float32(len(at))
    return total


@lru_cache(maxsize=8)
def _bell(length: int) -> NDArray[np.float32]:
    """Return the weights of a window (Y, X): a Gaussian, its deviation an eighth of the side."""
    steps = np.arange(length) - (length - 1) / 2
    line = np.exp(-0.5 * (steps / (length / 8)) ** 2)
    bell = np.maximum(np.outer(line, line), LEAST_WEIGHT).astype(np.float32)
    bell.flags.writeable = False
    return bell


def _moved(interval: Interval, start: int) -> Interval:
    return interval[0] - start, interval[1] - start


def _part(interval: Interval, start: int) -> slice:
    return slice(interval[0] - start, interval[1] - start)
