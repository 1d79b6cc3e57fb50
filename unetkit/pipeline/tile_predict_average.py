"""Where networks look for a tile: how often, turned which way, with how much around it.

Plain geometry; what is computed there, and how it is averaged, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from unetkit.geometry.tiles import Cover, cover

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from unetkit.geometry.sizes import SizeContract
    from unetkit.geometry.tiles import Tile

Merge = Literal["crop", "gaussian"]
Turning = Literal["none", "flips", "rotations"]
Interval = tuple[int, int]
Pixels = TypeVar("Pixels", "NDArray[Any]", "torch.Tensor")

# Windows along a side of a block that is blended, and the block's largest side in pixels: each
# block runs the windows around it again, the fewer the larger it is, but has to be held in memory.
BLEND_TILES = 4
BLEND_SIDE = 2048


@dataclass(frozen=True)
class Turn:
    """One of the eight ways in which a square lies on itself: mirror its axes, then swap them.

    Parameters
    ----------
    rows, columns : bool
        Whether rows run upwards and columns leftwards.
    swapped : bool
        Whether rows become columns, after that.
    """

    rows: bool = False
    columns: bool = False
    swapped: bool = False

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


_ALL = [Turn(r, c, s) for s in (False, True) for r in (False, True) for c in (False, True)]
TURNS: dict[str, tuple[Turn, ...]] = {
    "none": (Turn(),),
    "flips": tuple(turn for turn in _ALL if not turn.swapped),
    "rotations": tuple(_ALL),
}


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, as workers find it and as tiles suit it.

    ::

                 |<-overlap->|<-------- side -------->|<-overlap->|surplus|
        upright  [ read ................................................. ]
        |surplus|<-overlap->|<-------- side -------->|<-overlap->|
        [ read ................................................. ]  mirrored

    The surplus of the legal size lies at the far side of what the network sees. Mirrored, that is
    the near side, and the network's pooling stands to the image as if the whole image, mirrored out
    to whole steps, had been turned.

    Parameters
    ----------
    path, sha256 : str
        Its file.
    contract : SizeContract
        Its own.
    overlap : int
        Its context on each side, in pixels.
    """

    path: str
    sha256: str
    contract: SizeContract
    overlap: int

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
    def beyond(self) -> int:
        """How far its output reaches over each side of a tile."""
        return self.overlap - self.contract.margin


@dataclass(frozen=True)
class Averaging:
    """All the looks that are taken at an image, tile by tile.

    Parameters
    ----------
    members : tuple of Member
        The networks.
    tile : int
        Side and distance of the tiles, in pixels; a multiple of each network's step.
    tta : {"none", "flips", "rotations"}
        Test-time augmentation: in how many ways each tile is turned.
    merge : {"crop", "gaussian"}
        Whether a tile is what its own window says, or a weighted mean of all that reach it.
    """

    members: tuple[Member, ...]
    tile: int
    tta: Turning = "none"
    merge: Merge = "crop"

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The ways in which each tile is turned."""
        return TURNS[self.tta]

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
            for mirrored in {turn.rows for turn in self.turns}:
                starts.append(member.reads(origins[0], self.tile, mirrored=mirrored)[0])
                stops.append(member.reads(origins[-1], self.tile, mirrored=mirrored)[1])
        # What lies before the box is context of the same length for all boxes.
        return min(starts), max(stops)

    def windows(
        self, member: Member, first: int, last: int, *, length: int | None = None
    ) -> list[int]:
        """Return the origins, along an axis, of the tiles that the pixels are made from.

        Parameters
        ----------
        member : Member
            Whose windows.
        first, last : int
            The pixels that are wanted, half open.
        length : int, optional
            Of the image; left out, without end.
        """
        if self.merge == "crop":
            return [first]
        before = (first - self.tile - member.beyond) // self.tile + 1
        after = -(-(last + member.beyond) // self.tile)
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

    def _runs(self, member: Member, height: int, width: int) -> int:
        side = self.side(height, width)

        def along(length: int) -> int:
            ends = ((first, min(first + side, length)) for first in range(0, length, side))
            return sum(len(self.windows(member, *end, length=length)) for end in ends)

        return along(height) * along(width) * len(self.turns)
