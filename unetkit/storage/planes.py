"""A Zarr array of any axes, seen as a row of 2-D planes; it travels to workers as a few words."""

from __future__ import annotations

import itertools
import math
import mmap
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.errors import InputError, UsageError
from unetkit.storage import urls
from unetkit.storage.chunk_files import decoder_of, encoder_of, write_chunks
from unetkit.storage.nodes import fill_of, is_absent, opened, refuse_links
from unetkit.storage.retry import read_failure, retrying
from unetkit.storage.urls import is_remote, join, storing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
        try:
            block = retrying(lambda: self._load(array, selection))
        except MemoryError:
            raise  # no fault of the chunk
        except Exception as error:  # codecs raise a zoo of types, with no chunk in their words
            raise read_failure(array, selection, error, url=self.url, axes=self.axes) from error
        return self._arranged(np.asarray(block))

    def is_blank(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> bool:
        """Tell whether nothing is stored of a box, which then reads as 0; False if unsure."""
        selection = self._selection(plane, slice(y0, y1), slice(x0, x1))
        array = self._open("r")
        return not array.fill_value and is_absent(array, selection, url=self.url)

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
        is_whole = self.is_stored and self._is_whole(selection)
        encode = encoder_of(array) if is_whole else None
        with storing(self.url):
            if encode is None:
                retrying(lambda: array.__setitem__(selection, values))
            else:
                retrying(lambda: write_chunks(array, encode, selection, values))

    def _is_whole(self, selection: tuple[Any, ...]) -> bool:
        """Tell whether a selection covers whole chunks along t and z too."""
        return all(
            1 in (chunk, size)
            for where, chunk, size in zip(selection, self.chunks, self.shape, strict=True)
            if isinstance(where, int)
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Read everything, with the axes as they are stored; NumPy asks so."""
        if copy is False:
            raise ValueError(f"{self.url} must be read to be an array, so copy=False is impossible")
        view = IndexedPlanes(self)
        found = view[(slice(None),) * view.ndim]
        return found if dtype is None else found.astype(dtype, copy=False)

    def to_dask(self, chunks: Any = None) -> Any:
        """Return a lazy Dask array with the axes as they are stored; nothing is read before it is.

        Parameters
        ----------
        chunks : optional
            As `dask.array.from_array` takes them; left out, what is decoded whole.

        Returns
        -------
        dask.array.Array
        """
        # It takes longer to load than all the rest of this room.
        import dask.array as da
        from dask.base import tokenize

        view = IndexedPlanes(self.with_absolute_url())
        return da.from_array(
            view,
            chunks=view.chunks if chunks is None else chunks,
            name=f"unetkit-{tokenize(view)}",
            asarray=False,
            inline_array=True,
            meta=np.empty((0,) * view.ndim, view.dtype),
        )

    @property
    def is_stored(self) -> bool:
        """Whether files or objects hold it, which can be looked at again later."""
        return True

    def reading_bytes(self) -> int:
        """Return what a process takes to read parts: chunks that it keeps and decodes."""
        array = self._open("r")
        chunk = _chunk_bytes(array)
        if chunk < SHARED_FROM:
            whole = math.prod(array.shape) * array.dtype.itemsize
            by_tiles = self.has_channels and decoder_of(array) is not None
            return int(min(whole, KEPT_SMALL_BYTES)) if by_tiles else 0
        kept = min(math.prod(array.shape) * array.dtype.itemsize, max(KEPT_BYTES, chunk))
        # As it is stored, as it is decoded, and as it is laid out.
        return int(kept + 2 * chunk)

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

    def _load(self, array: zarr.Array[Any], selection: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Read a selection by slices alone: zarr gathers lists through tables of all pixels."""
        if self.picked is None or "c" not in self.axes:
            return _read_shared(array, selection, url=self.url, by_tiles=self.has_channels)
        at = self.axes.index("c") + len(array.shape) - len(self.axes)
        # Channels that are decoded together are read together.
        groups: dict[int, list[int]] = {}
        for place, channel in enumerate(self.picked):
            groups.setdefault(channel // array.chunks[at], []).append(place)
        found: list[Any] = [None] * len(self.picked)
        kept = sum(not isinstance(where, int) for where in selection[:at])
        for places in groups.values():
            chosen = [self.picked[place] for place in places]
            low, high = min(chosen), max(chosen) + 1
            part = (*selection[:at], slice(low, high), *selection[at + 1 :])
            block = np.moveaxis(_read_shared(array, part, url=self.url, by_tiles=True), kept, 0)
            for place in places:
                found[place] = block[self.picked[place] - low]
        return (
            found[0][(slice(None),) * kept + (None,)] if len(found) == 1 else np.stack(found, kept)
        )

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
        if not self.is_whole(y0, y1, x0, x1):
            high, wide = self.chunk
            raise ValueError(
                f"a block of {self.url} must cover whole chunks of {high} x {wide}, "
                f"got rows {y0}:{y1}, columns {x0}:{x1}"
            )

    def is_whole(self, y0: int, y1: int, x0: int, x1: int) -> bool:
        """Tell whether a block covers whole chunks, those at the ends as far as the plane goes."""
        (high, wide), ends = self.chunk, (self.height, self.width)
        spans = ((y0, y1, high, ends[0]), (x0, x1, wide, ends[1]))
        return all(
            start % step == 0 and (stop % step == 0 or stop == end)
            for start, stop, step, end in spans
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


@dataclass(frozen=True)
class IndexedPlanes:
    """Planes as the array of their stored axes and chosen channels, for whoever cuts out parts."""

    planes: PlaneArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the stored axes, along c the number of chosen channels."""
        planes = self.planes
        sizes = zip(planes.axes, planes.shape, strict=True)
        return tuple(planes.channel_count if axis == "c" else size for axis, size in sizes)

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is decoded whole."""
        return tuple(map(min, self.planes.read_chunks or self.planes.chunks, self.shape))

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.planes.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels."""
        return self.planes.dtype

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray[Any, Any]:
        """Read a part, one place or a slice along each axis, as Dask makes them of its own."""
        # A whole number is a span of one place, whose axis goes in the end.
        spans = {
            axis: range(size)[
                where if isinstance(where, slice) else slice(where, where + 1 or None)
            ]
            for axis, size, where in zip(self.planes.axes, self.shape, index, strict=True)
        }
        t, z, c, y, x = (spans.get(axis, range(1)) for axis in "tzcyx")
        found = np.empty([len(span) for span in (t, z, c, y, x)], self.dtype)
        if found.size:
            few = self.planes.channels is not None and len(c) < self.planes.channel_count
            source = self.planes.pick(c) if few else self.planes
            for place in itertools.product(range(len(t)), range(len(z))):
                plane = t[place[0]] * self.planes.size("z") + z[place[1]]
                block = source.read(plane, min(y), max(y) + 1, min(x), max(x) + 1)
                found[place] = block[..., :: y.step, :: x.step]
        kept = found[tuple(slice(None) if axis in spans else 0 for axis in "tzcyx")]
        letters = [axis for axis in "tzcyx" if axis in spans]
        turned = kept.transpose([letters.index(axis) for axis in self.planes.axes])
        return turned[tuple(slice(None) if isinstance(where, slice) else 0 for where in index)]


# Chunks from this size on, in bytes, are decoded once for all tiles that lie in them: our choice,
# above what this library writes. Of them so much is kept, and the last one in any case.
SHARED_FROM, KEPT_BYTES = 2**22, 2**28
# Of smaller ones of an image in a folder so much is kept: what a tile of usual size sees at its
# left and right its neighbours have decoded.
KEPT_SMALL_BYTES = 2**23
# A system maps a limited number of pieces of memory for a process.
KEPT_CHUNKS = 2**12


class _DecodedChunks:
    """The large chunks that were asked for last, as long as they are stored as they were."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[Any, np.ndarray[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Any, decode: Callable[[], np.ndarray[Any, Any]], *, size: int
    ) -> np.ndarray[Any, Any]:
        """Return a chunk of `size` bytes; one is decoded at a time. Nobody may write into it."""
        with self._lock:
            if key not in self._kept:
                room = self._limit - size
                while self._kept and (self._size > room or len(self._kept) >= KEPT_CHUNKS):
                    self._size -= self._kept.popitem(last=False)[1].nbytes
                self._kept[key] = decode()
                self._size += self._kept[key].nbytes
            self._kept.move_to_end(key)
            return self._kept[key]


# Those of this process.
_DECODED, _DECODED_SMALL = _DecodedChunks(KEPT_BYTES), _DecodedChunks(KEPT_SMALL_BYTES)


def _read_shared(
    array: zarr.Array[Any], selection: tuple[Any, ...], *, url: str, by_tiles: bool
) -> np.ndarray[Any, Any]:
    """Read a selection of slices and whole numbers; a chunk that it has a part of may be kept.

    Small ones are where it is read `by_tiles`, which is to say that others will overlap with it.
    """
    spans = [
        range(where, where + 1) if isinstance(where, int) else range(size)[where]
        for where, size in zip(selection, array.shape, strict=True)
    ]
    places = [
        range(span[0] // unit, span[-1] // unit + 1)
        for span, unit in zip(spans, array.chunks, strict=True)
    ]
    count, decode = math.prod(map(len, places)), None
    if _chunk_bytes(array) < SHARED_FROM:
        whole = _is_of_whole_chunks(spans, array)
        decode = decoder_of(array) if count == 1 or (by_tiles and not whole) else None
        if decode is None:
            return np.asarray(array[selection])
        if count == 1 and (whole or not by_tiles):
            path = _path_of(array, tuple(span[0] for span in places), url)
            return _of_chunk(array, selection, spans, path=path, decode=decode)
    elif 2 * math.prod(map(len, spans)) > count * math.prod(array.chunks):
        return np.asarray(array[selection])
    result = np.empty([len(span) for span in spans], array.dtype)
    for place in itertools.product(*places):
        _put_chunk(result, spans, array, place, url=url, decode=decode)
    return result[tuple(0 if isinstance(where, int) else slice(None) for where in selection)]


def _path_of(array: zarr.Array[Any], place: tuple[int, ...], url: str) -> str:
    return join(url, array.metadata.encode_chunk_key(place))


def _of_chunk(
    array: zarr.Array[Any],
    selection: tuple[Any, ...],
    spans: Sequence[range],
    *,
    path: str,
    decode: Callable[[bytes], np.ndarray[Any, Any]],
) -> np.ndarray[Any, Any]:
    """Read what one chunk in a folder has of a box; zarr would send it through its event loop."""
    try:
        chunk = decode(Path(path).read_bytes())
    except FileNotFoundError:
        return fill_of(array, selection)
    inside = (
        slice(span[0] % unit, span[-1] % unit + 1)
        for span, unit in zip(spans, array.chunks, strict=True)
    )
    found = chunk[tuple(inside)].copy()
    return found[tuple(0 if isinstance(where, int) else slice(None) for where in selection)]


def _put_chunk(
    result: np.ndarray[Any, Any],
    spans: Sequence[range],
    array: zarr.Array[Any],
    place: tuple[int, ...],
    *,
    url: str,
    decode: Callable[[bytes], np.ndarray[Any, Any]] | None,
) -> None:
    """Copy what a chunk has of the box of `spans` to its place in `result`.

    Without a way to `decode` its file, zarr reads it.
    """
    whole = tuple(
        slice(p * unit, min((p + 1) * unit, size))
        for p, unit, size in zip(place, array.chunks, array.shape, strict=True)
    )
    parts = tuple(
        slice(max(span[0], box.start), min(span[-1] + 1, box.stop))
        for span, box in zip(spans, whole, strict=True)
    )
    state, path = _state_of(array, place, url=url), _path_of(array, place, url)
    block: np.ndarray[Any, Any]
    if state is None and decode is not None and not Path(path).exists():
        block = fill_of(array, parts)
    elif state is None:
        block = np.asarray(array[parts])
    else:
        cache = _DECODED
        read: Callable[[], np.ndarray[Any, Any]] = lambda: np.asarray(array[whole])  # noqa: E731
        if decode is not None:
            cache, read = _DECODED_SMALL, lambda: _apart(decode(Path(path).read_bytes()))
        kept = cache.get((url, place, state), read, size=_chunk_bytes(array))
        block = kept[_moved(parts, [box.start for box in whole])]
    result[_moved(parts, [span[0] for span in spans])] = block


def _apart(chunk: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy a chunk to pages of its own: in the heap it would lie in the way of larger arrays."""
    try:
        pages = mmap.mmap(-1, chunk.nbytes)
    except OSError:  # there are none left
        return chunk
    copy = np.frombuffer(pages, chunk.dtype).reshape(chunk.shape)
    copy[...] = chunk
    return copy


def _is_of_whole_chunks(spans: Sequence[range], array: zarr.Array[Any]) -> bool:
    """Tell whether no chunk of a box lies partly outside of it, but for the ends of the axes."""
    return all(
        not span[0] % unit and (not (span[-1] + 1) % unit or span[-1] + 1 == size)
        for span, unit, size in zip(spans, array.chunks, array.shape, strict=True)
    )


def _moved(parts: Sequence[slice], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(part.start - first, part.stop - first)
        for part, first in zip(parts, origin, strict=True)
    )


def _chunk_bytes(array: zarr.Array[Any]) -> int:
    return math.prod(map(min, array.chunks, array.shape)) * int(array.dtype.itemsize)


def _state_of(array: zarr.Array[Any], place: tuple[int, ...], *, url: str) -> Any:
    """Return what tells a stored chunk from a later one at its place; None where nothing does."""
    units = array.shards or array.chunks
    shard = tuple(p * c // u for p, c, u in zip(place, array.chunks, units, strict=True))
    key = join(url, array.metadata.encode_chunk_key(shard))
    try:
        if is_remote(url):
            filesystem, path = urls.file_system(key)
            entry = filesystem.info(path)
            marks = [entry.get(name) for name in ("ETag", "LastModified", "mtime", "created")]
            return (entry.get("size"), *map(str, marks)) if any(marks) else None
        found = Path(key).stat()
    except Exception:  # reading it says what is wrong
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


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
