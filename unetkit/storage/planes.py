"""A Zarr array of any axes, seen as a row of 2-D planes; it travels to workers as a few words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.errors import InputError, UsageError
from unetkit.storage import urls
from unetkit.storage.nodes import fill_of, is_absent, opened, refuse_links
from unetkit.storage.retry import read_failure, retrying
from unetkit.storage.urls import storing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import zarr

    from unetkit.storage.nodes import ArrayNode

# Statistics of more pixels than this come from an evenly spaced choice of blocks.
SAMPLED_ABOVE = 2**28
# Blocks are no smaller than this on a side, so that tiny chunks do not mean a loop over millions.
BLOCK_SIDE = 512


# A plane, rows from y0 to y1, columns from x0 to x1: what `read` takes.
Box = tuple[int, int, int, int, int]


def whole_chunks(chunk: int, side: int) -> int:
    """Return the most pixels up to `side` that are whole chunks; one chunk where it is longer.

    >>> whole_chunks(256, 1000), whole_chunks(4096, 1000)
    (768, 4096)
    """
    return chunk * max(1, side // chunk)


@dataclass(frozen=True)
class PlaneArray:
    """A stored array as planes (Y, X) of its t and z axes.

    It holds no open file: it is cheap to make and to pickle, and each process opens the array
    once, when it first reads.
    """

    url: str
    axes: str  # one letter of t, c, z, y, x for each axis, in stored order
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of what `read` returns, in this machine's byte order; bool is uint8
    chunks: tuple[int, ...]  # what is stored whole, along each axis: the least that is written
    has_channels: bool  # images read as (C, Y, X), also without a c axis; all else as (Y, X)
    picked: tuple[int, ...] | None = None  # the chosen channels, in order
    # What is decoded whole, where it is less than what is stored whole: the chunks inside shards.
    read_chunks: tuple[int, ...] | None = None
    repeated: str = ""  # the axes along which what is stored once stands for the whole image
    item: int | None = None  # the place along a leading axis that is not among `axes`, in a stack
    zarr_format: Literal[2, 3] = 3
    version: int = 0  # checksum of the metadata that was judged

    def size(self, axis: str) -> int:
        """Return the size along an axis letter, 1 where the array has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.size("y")

    @property
    def width(self) -> int:
        """Columns of a plane."""
        return self.size("x")

    @property
    def planes(self) -> int:
        """How many planes there are: the sizes of t and z, multiplied."""
        return self.size("t") * self.size("z")

    @property
    def channels(self) -> int | None:
        """How many channels were chosen; None without a c axis."""
        if not self.has_channels or "c" not in self.axes:
            return None
        return self.size("c") if self.picked is None else len(self.picked)

    @property
    def channel_count(self) -> int:
        """The C of what `read` returns: 1 for an image without a c axis."""
        return 1 if self.channels is None else self.channels

    @property
    def chunk(self) -> tuple[int, int]:
        """Height and width of a chunk."""
        sizes = dict(zip(self.axes, self.chunks, strict=True))
        return sizes["y"], sizes["x"]

    def with_absolute_url(self) -> PlaneArray:
        """Name the array so that a worker with another working folder finds it too."""
        return replace(self, url=urls.absolute(self.url))

    def over(self, image: PlaneArray) -> PlaneArray:
        """Return labels as those of every t and z of an image where they are stored once."""
        once = [a for a in "tz" if a in self.axes and self.size(a) == 1 < image.size(a)]
        shape = [
            image.size(axis) if axis in once else size
            for axis, size in zip(self.axes, self.shape, strict=True)
        ]
        return replace(self, shape=tuple(shape), repeated="".join(once))

    def pick(self, channels: Sequence[int]) -> PlaneArray:
        """Return the same array with these channels only, in this order."""
        current = self.picked or tuple(range(self.channel_count))
        for channel in channels:
            if not 0 <= channel < len(current):
                raise UsageError(
                    f"channel must be below {len(current)} for {self.url}, got {channel}; "
                    f"there are {', '.join(map(str, range(len(current))))}"
                )
        if "c" not in self.axes or tuple(channels) == tuple(range(len(current))):
            return self
        return replace(self, picked=tuple(current[channel] for channel in channels))

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
        """Read a box of a plane, rows `y0` to `y1` and columns `x0` to `x1`, the ends excluded.

        A contiguous copy, (C, Y, X) of an image, (Y, X) otherwise. The error over a damaged chunk
        names it with the pixels that it holds.
        """
        selection = self._selection(plane, slice(y0, y1), slice(x0, x1))
        array = self._open("r")
        refuse_links(array, selection, url=self.url)
        view = array if self.picked is None else array.oindex
        try:
            block = retrying(lambda: view[selection])
        except Exception as error:  # codecs raise a zoo of types, with no chunk in their words
            raise read_failure(array, selection, error, url=self.url, axes=self.axes) from error
        return self._arranged(np.asarray(block))

    def write(self, plane: int, y0: int, x0: int, block: np.ndarray[Any, Any]) -> None:
        """Store a block of a plane, from row `y0` and column `x0` on.

        Two writers that share a chunk lose pixels without a word, so that a block must cover whole
        chunks: begin on the chunk grid, and end on it or at the end of the plane.
        """
        y1, x1 = y0 + block.shape[-2], x0 + block.shape[-1]
        self._check_writable(y0, y1, x0, x1)
        if block.shape[:-2] != ((self.channel_count,) if self.has_channels else ()):
            raise ValueError(f"block must match the axes of {self.url}, got shape {block.shape}")
        selection = self._selection(plane, slice(y0, y1), slice(x0, x1))
        values = self._fitting(block)
        if self.has_channels and "c" not in self.axes:
            values = values[0]
        letters = "cyx"[-values.ndim :]
        values = values.transpose([letters.index(axis) for axis in self.axes if axis in letters])
        array = self._open("r+")
        with storing(self.url):
            retrying(lambda: array.__setitem__(selection, values))

    def chunk_boxes(self, side: int) -> list[Box]:
        """Cut all planes into blocks of whole chunks, so that no chunk is decoded twice."""
        high, wide = (whole_chunks(chunk, side) for chunk in self.chunk)
        return [
            (plane, y, min(y + high, self.height), x, min(x + wide, self.width))
            for plane in range(self.planes)
            for y in range(0, self.height, high)
            for x in range(0, self.width, wide)
        ]

    @property
    def boxes(self) -> list[Box]:
        """What `blocks` reads: all, or an evenly spaced choice."""
        sizes = dict(zip(self.axes, self.read_chunks or self.chunks, strict=True))
        high, wide = (sizes[axis] * -(-BLOCK_SIDE // sizes[axis]) for axis in "yx")
        rows, columns = -(-self.height // high), -(-self.width // wide)
        total = self.planes * rows * columns
        kept = total
        if self.planes * self.height * self.width > SAMPLED_ABOVE:
            kept = min(total, max(1, SAMPLED_ABOVE // (high * wide)))
        boxes = []
        for number in (index * total // kept for index in range(kept)):
            plane, rest = divmod(number, rows * columns)
            y0, x0 = rest // columns * high, rest % columns * wide
            boxes.append((plane, y0, min(y0 + high, self.height), x0, min(x0 + wide, self.width)))
        return boxes

    def blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Read block after block, as `read` does, each of whole chunks; for statistics.

        Above 2^28 pixels it is an evenly spaced choice (see `boxes`), the same one every time. A
        chunk that was never written comes as the fill value, without a read.
        """
        array = self._open("r")
        for plane, y0, y1, x0, x1 in self.boxes:
            selection = self._selection(plane, slice(y0, y1), slice(x0, x1))
            if is_absent(array, selection, url=self.url):
                yield self._arranged(fill_of(array, selection))
            else:
                yield self.read(plane, y0, y1, x0, x1)

    def _open(self, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
        return opened(self.url, zarr_format=self.zarr_format, version=self.version, mode=mode)

    def _selection(self, plane: int, rows: slice, columns: slice) -> tuple[Any, ...]:
        """Index one plane: whole numbers for t and z, slices for y and x, the channels for c."""
        if not 0 <= plane < self.planes:
            raise IndexError(f"plane must be below {self.planes}, got {plane}")
        if not (0 <= rows.start < rows.stop <= self.height):
            raise IndexError(f"rows must lie within 0 to {self.height}, got {rows}")
        if not (0 <= columns.start < columns.stop <= self.width):
            raise IndexError(f"columns must lie within 0 to {self.width}, got {columns}")
        t, z = divmod(plane, self.size("z"))
        channels: Any = 0
        if self.has_channels:
            channels = slice(None) if self.picked is None else list(self.picked)
        t, z = (0 if axis in self.repeated else n for axis, n in (("t", t), ("z", z)))
        where = {"t": t, "z": z, "y": rows, "x": columns, "c": channels}
        chosen = tuple(where[axis] for axis in self.axes)
        return chosen if self.item is None else (self.item, *chosen)

    def _arranged(self, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kept = "cyx" if self.has_channels else "yx"
        order = [axis for axis in self.axes if axis in kept]
        block = block.transpose([order.index(axis) for axis in kept if axis in order])
        if self.has_channels and "c" not in order:
            block = block[np.newaxis]
        return np.ascontiguousarray(block, dtype=self.dtype)

    def _check_writable(self, y0: int, y1: int, x0: int, x1: int) -> None:
        if self.picked is not None or self.item is not None or self.repeated:
            raise ValueError(f"{self.url} must be written whole, not by chosen channels or items")
        (high, wide), ends = self.chunk, (self.height, self.width)
        for start, stop, step, end in ((y0, y1, high, ends[0]), (x0, x1, wide, ends[1])):
            if start % step or (stop % step and stop != end):
                raise ValueError(
                    f"a block of {self.url} must cover whole chunks of {high} x {wide}, "
                    f"got rows {y0}:{y1}, columns {x0}:{x1}"
                )

    def _fitting(self, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Cast without a silent loss: integers must be in range, floats may only be rounded."""
        if np.can_cast(block.dtype, self.dtype, "safe"):
            return block.astype(self.dtype, copy=False)
        if block.dtype.kind in "iu" and self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            low, high = int(block.min()), int(block.max())
            if limits.min <= low and high <= limits.max:
                return block.astype(self.dtype)
            raise InputError(f"values of {self.url} must fit {self.dtype}, got {low} to {high}")
        if self.dtype.kind == "f":
            return block.astype(self.dtype)
        raise InputError(f"values of {self.url} must fit {self.dtype}, got {block.dtype}")


def plane_array(
    node: ArrayNode, *, axes: str, has_channels: bool, item: int | None = None
) -> PlaneArray:
    """See a judged array as planes; a stack's array has a leading axis besides `axes`."""
    skip = 0 if item is None else 1
    return PlaneArray(
        url=node.url,
        axes=axes,
        shape=node.shape[skip:],
        dtype=np.dtype(np.uint8) if node.dtype.kind == "b" else node.dtype.newbyteorder("="),
        chunks=node.chunks[skip:],
        has_channels=has_channels,
        read_chunks=node.read_chunks[skip:],
        item=item,
        zarr_format=node.zarr_format,
        version=node.version,
    )
