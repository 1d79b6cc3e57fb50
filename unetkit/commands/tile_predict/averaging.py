"""Where networks look for a tile: how often, turned which way, with how much around it.

Plain geometry; what is computed there, and how it is averaged, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from unetkit.geometry.tiles import Cover, Tile, cover
from unetkit.models.inference import (
    batch_logits,
    check_finite,
    to_probabilities,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import torch
    from numpy.typing import NDArray

    from unetkit.geometry.sizes import SizeContract

Merge = Literal["crop", "gaussian"]
Tta = Literal["none", "flips", "rotations"]
Interval = tuple[int, int]
Pixels = TypeVar("Pixels", "NDArray[Any]", "torch.Tensor")

# Windows along a side of a block that is blended, and the block's largest side in pixels: each
# block runs the windows around it again, the fewer the larger it is, but has to be held in memory.
BLEND_TILES = 4
BLEND_SIDE = 2048


@dataclass(frozen=True)
class Symmetry:
    """One of the eight ways in which a square lies on itself: mirror its axes, then swap them."""

    rows: bool = False  # whether rows run upwards and columns leftwards
    columns: bool = False
    swapped: bool = False  # whether rows become columns, after that

    def apply(self, block: NDArray[Any]) -> NDArray[Any]:
        """Turn an array (C, Y, X); the result is a view."""
        block = block[:, :: -1 if self.rows else 1, :: -1 if self.columns else 1]
        return block.swapaxes(1, 2) if self.swapped else block

    def undo(self, block: NDArray[Any]) -> NDArray[Any]:
        """Turn an array (C, Y, X) back; the result is a view."""
        block = block.swapaxes(1, 2) if self.swapped else block
        return block[:, :: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def place(self, rows: Interval, columns: Interval, *, size: int) -> tuple[Interval, Interval]:
        """Say where a box of a square of `size` pixels lies once the square is turned."""
        rows = (size - rows[1], size - rows[0]) if self.rows else rows
        columns = (size - columns[1], size - columns[0]) if self.columns else columns
        return (columns, rows) if self.swapped else (rows, columns)


_ALL = [Symmetry(r, c, s) for s in (False, True) for r in (False, True) for c in (False, True)]
SYMMETRIES: dict[str, tuple[Symmetry, ...]] = {
    "none": (Symmetry(),),
    "flips": tuple(symmetry for symmetry in _ALL if not symmetry.swapped),
    "rotations": tuple(_ALL),
}


@dataclass(frozen=True)
class EnsembleMember:
    """One network of an ensemble, as workers find it and as tiles suit it.

    ::

                 |<-overlap->|<-------- side -------->|<-overlap->|surplus|
        upright  [ read ................................................. ]
        |surplus|<-overlap->|<-------- side -------->|<-overlap->|
        [ read ................................................. ]  mirrored

    The surplus of the legal size lies at the far side of what the network sees. Mirrored, that is
    the near side, and the network's pooling stands to the image as if the whole image, mirrored out
    to whole steps, had been turned.
    """

    path: str
    sha256: str
    contract: SizeContract
    overlap: int  # its context on each side, in pixels

    def size(self, side: int) -> int:
        """Return what it reads along an axis for a tile of `side` pixels."""
        return self.contract.legal(side + 2 * self.overlap)

    def reads(self, origin: int, side: int, *, mirrored: bool) -> Interval:
        """Return what it reads along an axis for the tile at `origin`."""
        size = self.size(side)
        if mirrored:
            stop = origin + side + self.overlap
            return stop - size, stop
        return origin - self.overlap, origin - self.overlap + size

    @property
    def blend_margin(self) -> int:
        """How far its output reaches over each side of a tile."""
        return self.overlap - self.contract.margin


@dataclass(frozen=True)
class Averaging:
    """All the looks that are taken at an image, tile by tile."""

    members: tuple[EnsembleMember, ...]
    tile: int  # side and distance of the tiles, in pixels; a multiple of each network's step
    tta: Tta = "none"  # test-time augmentation: in how many ways each tile is turned
    merge: Merge = "crop"  # what a tile's own window says, or a mean of all that reach it

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The ways in which each tile is turned."""
        return SYMMETRIES[self.tta]

    @property
    def size(self) -> int:
        """The most that a network reads along an axis for a tile."""
        return max(member.size(self.tile) for member in self.members)

    @property
    def overlap(self) -> int:
        """The largest context on each side."""
        return max(member.overlap for member in self.members)

    def side(self, height: int, width: int) -> int:
        """Return the side of what a task writes: a tile, or a block of tiles that are blended."""
        if self.merge == "crop":
            return self.tile
        across = -(-max(height, width) // self.tile)
        return self.tile * max(1, min(BLEND_TILES, BLEND_SIDE // self.tile, across))

    def tiles(self, height: int, width: int) -> Cover:
        """Cover an image with the boxes that tasks write; their read boxes serve all looks."""
        side = self.side(height, width)
        start, stop = self.reads(0, side)
        return cover(height, width, tile=side, overlap=-start, size=stop - start)

    def reads(self, first: int, last: int) -> Interval:
        """Return all that is read along an axis to write the pixels from `first` to `last`."""
        starts, stops = [], []
        for member in self.members:
            origins = self.windows(member, first, last)
            for mirrored in {symmetry.rows for symmetry in self.symmetries}:
                starts.append(member.reads(origins[0], self.tile, mirrored=mirrored)[0])
                stops.append(member.reads(origins[-1], self.tile, mirrored=mirrored)[1])
        # What lies before the box is context of the same length for all boxes.
        return min(starts), max(stops)

    def windows(
        self, member: EnsembleMember, first: int, last: int, *, length: int | None = None
    ) -> list[int]:
        """Return the origins, along an axis, of the tiles that some pixels are made from.

        The pixels are half open; without the `length` of the image it has no end.
        """
        if self.merge == "crop":
            return [first]
        before = (first - self.tile - member.blend_margin) // self.tile + 1
        after = -(-(last + member.blend_margin) // self.tile)
        if length is not None:
            before, after = max(0, before), min(after, -(-length // self.tile))
        return [number * self.tile for number in range(before, after)]

    def layout(self, tile: Tile, *, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Say which windows a box is made from, as distances from its corner, and its size.

        Boxes of one layout and one input have one result.
        """
        found: list[tuple[int, ...]] = [(tile.y1 - tile.y0, tile.x1 - tile.x0)]
        for member in self.members:
            rows = self.windows(member, tile.y0, tile.y1, length=shape[0])
            columns = self.windows(member, tile.x0, tile.x1, length=shape[1])
            found += [tuple(y - tile.y0 for y in rows), tuple(x - tile.x0 for x in columns)]
        return tuple(found)

    def passes(self, height: int, width: int) -> int:
        """Count how often networks are run to predict one plane."""
        return sum(self._runs(member, height, width) for member in self.members)

    def computed(self, height: int, width: int) -> int:
        """Count the pixels that networks read to predict one plane."""
        return sum(
            self._runs(member, height, width) * member.size(self.tile) ** 2
            for member in self.members
        )

    def _runs(self, member: EnsembleMember, height: int, width: int) -> int:
        side = self.side(height, width)

        def along(length: int) -> int:
            ends = ((first, min(first + side, length)) for first in range(0, length, side))
            return sum(len(self.windows(member, *end, length=length)) for end in ends)

        return along(height) * along(width) * len(self.symmetries)


# The least weight of a pixel in a blend, as a share of its window's centre; the corners of a
# window would otherwise count for so little that rounding shows where they are alone. The value
# is that of MONAI's sliding window, so that results can be compared.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class ReadBox:
    """A box of an image, as networks are to see it."""

    blocks: Sequence[NDArray[np.float32]]  # (C, Y, X), normalized for each of the networks
    tile: Tile  # its write box is wanted, with an origin on the step grid
    shape: tuple[int, int]  # height and width of the image


@dataclass(frozen=True)
class Predictor:
    """The networks of an ensemble, ready to look at an image."""

    averaging: Averaging
    modules: Sequence[torch.nn.Module]  # in the order of the members
    classes: int
    precision: str  # as for `hardware.forward`
    compute_slot: AbstractContextManager[Any]  # held while a network computes
    windows: int = 1  # how many windows of a box that is blended a network sees at once
    # Called with the logits of each look, and the tile that they are for.
    on_logits: Callable[[torch.Tensor, Tile], None] = check_finite

    def probabilities(self, seen: Sequence[ReadBox]) -> list[NDArray[np.float32]]:
        """Return the mean probabilities (K, Y, X) of each write box; read boxes have one size.

        Each network sees all boxes at once, unless they are blended, which each is for itself.
        """
        if self.averaging.merge == "gaussian":
            return [self._blended(one) for one in seen]
        return _means(lambda number: self._network(number).cropped(seen), range(len(self.modules)))

    def _blended(self, one: ReadBox) -> NDArray[np.float32]:
        members = range(len(self.modules))
        return _means(lambda number: [self._network(number).blended(one)], members)[0]

    def _network(self, number: int) -> _ModelPass:
        return _ModelPass(self, self.averaging.members[number], self.modules[number], number)


@dataclass(frozen=True)
class _Window:
    """What one network sees at once, and what is wanted of it."""

    block: NDArray[np.float32]  # the read box (C, Y, X) that it lies in
    tile: Tile  # what that was read for
    origin: tuple[int, int]  # row and column of the tile that the window is for
    rows: Interval  # which of its pixels are wanted, in the image
    columns: Interval


@dataclass(frozen=True)
class _ModelPass:
    """One of the networks, which is the `number`th."""

    predictor: Predictor
    member: EnsembleMember
    module: torch.nn.Module
    number: int

    def cropped(self, seen: Sequence[ReadBox]) -> list[NDArray[np.float32]]:
        """Return what the network says of each box: the middle of its own window."""
        return self._windows(
            [
                _Window(
                    one.blocks[self.number],
                    one.tile,
                    (one.tile.y0, one.tile.x0),
                    rows=(one.tile.y0, one.tile.y1),
                    columns=(one.tile.x0, one.tile.x1),
                )
                for one in seen
            ]
        )

    def blended(self, one: ReadBox) -> NDArray[np.float32]:
        """Return the mean of all windows that touch the write box, each weighted by its bell."""
        tile, averaging, margin = one.tile, self.predictor.averaging, self.member.blend_margin
        bell = _bell(averaging.tile + 2 * margin)
        weights = np.zeros((tile.y1 - tile.y0, tile.x1 - tile.x0), np.float32)
        total = np.zeros((self.predictor.classes, *weights.shape), np.float32)
        windows = self._touching(one)
        while some := list(islice(windows, self.predictor.windows)):
            for window, found in zip(some, self._windows(some), strict=True):
                y, x = window.origin
                weight = bell[_part(window.rows, y - margin), _part(window.columns, x - margin)]
                place = _part(window.rows, tile.y0), _part(window.columns, tile.x0)
                total[:, *place] += found * weight
                weights[place] += weight
        return np.asarray(total / weights)

    def _touching(self, one: ReadBox) -> Iterator[_Window]:
        """Yield the windows that touch a write box, row by row."""
        averaging, tile, margin = self.predictor.averaging, one.tile, self.member.blend_margin
        block = one.blocks[self.number]
        for y in averaging.windows(self.member, tile.y0, tile.y1, length=one.shape[0]):
            rows = max(tile.y0, y - margin), min(tile.y1, y + averaging.tile + margin)
            for x in averaging.windows(self.member, tile.x0, tile.x1, length=one.shape[1]):
                columns = max(tile.x0, x - margin), min(tile.x1, x + averaging.tile + margin)
                yield _Window(block, tile, (y, x), rows=rows, columns=columns)

    def _windows(self, windows: Sequence[_Window]) -> list[NDArray[np.float32]]:
        """Return the mean over all turns of what is wanted of each window."""
        symmetries = self.predictor.averaging.symmetries
        return _means(lambda symmetry: self._turned(symmetry, windows), symmetries)

    def _turned(self, symmetry: Symmetry, windows: Sequence[_Window]) -> list[NDArray[np.float32]]:
        blocks, boxes = zip(*(self._placed(symmetry, one) for one in windows), strict=True)
        batch = _stacked(blocks)
        with self.predictor.compute_slot:
            logits = batch_logits(
                self.module,
                batch,
                boxes,
                margin=self.member.contract.margin,
                precision=self.predictor.precision,
            )
        for each, window in zip(logits, windows, strict=True):
            self.predictor.on_logits(each, window.tile)
        return [symmetry.undo(to_probabilities(each)) for each in logits]

    def _placed(self, symmetry: Symmetry, window: _Window) -> tuple[NDArray[np.float32], Tile]:
        """Return what the network is to see of a window, turned, and the box that is wanted."""
        tile, side = window.tile, self.predictor.averaging.tile
        y0, y1 = self.member.reads(window.origin[0], side, mirrored=symmetry.rows)
        x0, x1 = self.member.reads(window.origin[1], side, mirrored=symmetry.columns)
        block = window.block[:, _part((y0, y1), tile.read_y0), _part((x0, x1), tile.read_x0)]
        size = y1 - y0
        wanted = symmetry.place(_moved(window.rows, y0), _moved(window.columns, x0), size=size)
        (top, bottom), (left, right) = wanted
        return symmetry.apply(block), Tile(tile.index, top, left, bottom, right, 0, 0, size, size)


def _means(
    look: Callable[[Any], list[NDArray[np.float32]]], at: Sequence[Any]
) -> list[NDArray[np.float32]]:
    """Return the mean of what is seen of each box; a single look is returned as it is."""
    totals = look(at[0])
    if len(at) == 1:
        return totals
    totals = [np.ascontiguousarray(total) for total in totals]
    for one in at[1:]:
        for total, found in zip(totals, look(one), strict=True):
            total += found
    for total in totals:
        total /= np.float32(len(at))
    return totals


def _stacked(blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return arrays (C, Y, X) as one (N, C, Y, X); a single one that is laid out so is no copy."""
    return np.ascontiguousarray(blocks[0])[None] if len(blocks) == 1 else np.stack(blocks)


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
