"""The tiles and strips of a TIFF, decoded as its rows are asked for; damaged ones filled in."""

from __future__ import annotations

import math
import re
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import imagecodecs
import numpy as np

from unetkit.errors import InputError, UnetkitError
from unetkit.storage.image_file import Damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Our own choice: whether the data of a larger JPEG are damaged is not looked at, which takes some
# 20 bytes and 100 ns a pixel.
LOOKED_AT = 2**25
# JPEG, and the JPEG 2000 of slide scanners: their pixels are not those that were saved.
LOSSY = {6, 7, 33003, 33005, 33007, 34892}


class Bands:
    """The rows of an open series, each tile or strip of its files decoded once while in use."""

    def __init__(
        self, series: Any, path: str, letters: str = "", *, damage: Damage | None = None
    ) -> None:
        self.series = series
        self.path = path
        self.letters = letters  # what its dimensions mean
        self.damage = Damage() if damage is None else damage
        page = series.keyframe
        self.whole: NDArray[Any] | None = None
        self.leading = series.shape[: len(series.shape) - len(page.shape)]
        if series.dataoffset and page.is_memmappable:
            # Uncompressed and in one piece: the file is the array.
            dtype = series.dtype.newbyteorder(page.parent.byteorder)
            self.whole = np.memmap(
                path, dtype, mode="r", offset=series.dataoffset, shape=tuple(series.shape)
            )
        elif (
            page.shaped[1] != 1
            or math.prod(self.leading) != len(series.pages)
            or self.leading + page.shape != tuple(series.shape)
        ):
            # Volumes in one page, or dimensions that pages do not follow: rare enough to load.
            self.whole = series.asarray().reshape(series.shape)
        self.segments: dict[tuple[int, int], Any] = {}
        self.last: tuple[Any, NDArray[Any]] | None = None
        self.other: Any = None  # the one further file of a set that is open

    def read(self, pick: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read rows (Y, X) of one channel of one plane.

        `pick` has an index for every dimension of the series; a slice along y and x.
        """
        if self.whole is not None:
            return np.asarray(self.whole[pick])
        number = 0
        for index, size in zip(pick, self.leading, strict=False):
            number = number * size + cast("int", index)
        inside = list(pick[len(self.leading) :])
        at = self.series.keyframe.axes.index("Y")
        rows = cast("slice", inside[at])
        inside[at] = slice(None)
        # The channels of one page come one after the other out of the same rows.
        if self.last is None or self.last[0] != (number, rows):
            self.last = (number, rows), self._rows(number, rows)
        return np.asarray(self.last[1][tuple(inside)])

    def _rows(self, number: int, rows: slice) -> NDArray[Any]:
        page = self.series.pages[number]
        # Each file of a set has its own compression and byte order.
        key = page.keyframe
        samples, _, _, width, depth = key.shaped
        shape = list(key.shape)
        shape[key.axes.index("Y")] = rows.stop - rows.start
        self._open(page)
        if key.is_memmappable and in_one_piece(page):
            whole = page.asarray(out="memmap").reshape(key.shaped)
            return np.asarray(whole[:, 0, rows]).reshape(shape)
        band = np.zeros((samples, rows.stop - rows.start, width, depth), dtype=self.series.dtype)
        kept = {}
        for index in _touched(key, rows):
            data, at, _ = kept[number, index] = self._segment(page, number, index)
            if data is not None:
                y = at[2] - rows.start
                top, bottom = max(y, 0), min(y + data.shape[1], band.shape[1])
                # Tiles at the right edge may come with their padding.
                part = data[0, top - y : bottom - y, : width - at[3]]
                band[at[0], top:bottom, at[3] : at[3] + part.shape[1]] = part
        self.segments = kept
        return band.reshape(shape)

    def _segment(self, page: Any, number: int, index: int) -> Any:
        if (number, index) in self.segments:
            return self.segments[number, index]
        try:
            return self._decoded(page, index)
        except UnetkitError:
            raise
        # The libraries that decode raise errors of every kind.
        except Exception as error:
            self.damage.found[number, index] = self._place(page, number, index)
            if not self.damage.fill:
                raise self._refusal() from error
            return page.keyframe.decode(None, index)

    def _decoded(self, page: Any, index: int) -> Any:
        key, file = page.keyframe, page.parent.filehandle
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if offset and count:
            file.seek(offset)
            data = file.read(count)
            if len(data) < count:
                raise cut_short(f"{len(data)} of {count} bytes of a part", self.path)
        tables = {}
        if int(key.compression) in LOSSY:
            tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        return key.decode(data, index, **tables)

    def _place(self, page: Any, number: int, index: int) -> tuple[int, int, int, int, int]:
        """Return the plane along t and z, and the box, of a part."""
        _, at, (_, height, width, _) = page.keyframe.decode(None, index)
        _, _, length, across, _ = page.keyframe.shaped
        where = dict(
            zip(self.letters, np.unravel_index(number, self.leading or (1,)), strict=False)
        )
        sizes = dict(zip(self.letters, self.leading, strict=False))
        plane = int(where.get("t", 0)) * sizes.get("z", 1) + int(where.get("z", 0))
        return plane, at[2], min(at[2] + height, length), at[3], min(at[3] + width, across)

    def _refusal(self) -> InputError:
        """Say how many parts can't be decoded, once all others were tried, and where one lies."""
        first = next(iter(self.damage.found.values()))
        for number, page in enumerate(self.series.pages):
            self._open(page)
            for index in range(math.prod(page.keyframe.chunked)):
                try:
                    self._decoded(page, index)
                except Exception:
                    self.damage.found[number, index] = self._place(page, number, index)
        return InputError(
            f"tiles and strips of a TIFF must be what can be decoded, got {len(self.damage.found)}"
            f" of {self.damage.parts} damaged in {self.path!r}, such as {place_of(first)}; copy it"
            " again, or bring the others in with --damaged fill"
        )

    def _open(self, page: Any) -> None:
        """Open the file of a page; of the further files of a set, one at a time."""
        file = page.parent.filehandle
        if file.closed:
            if self.other is not None:
                self.other.close()
            file.open()
            self.other = file


def in_one_piece(page: Any) -> bool:
    """Tell whether the parts of a page follow each other without a gap."""
    # tifffile judges a page by the first one that is like it.
    offsets, counts = page.dataoffsets, page.databytecounts
    ends = zip(offsets, counts, offsets[1:], strict=False)
    return bool(offsets[0]) and all(offset + n == following for offset, n, following in ends)


def _touched(key: Any, rows: slice) -> Iterator[int]:
    height = key.tilelength if key.is_tiled else key.rowsperstrip
    samples, _, length, width, _ = key.shaped
    down = math.ceil(length / height)
    across = math.ceil(width / key.tilewidth) if key.is_tiled else 1
    first, last = rows.start // height, (rows.stop - 1) // height
    for sample, row, column in product(range(samples), range(first, last + 1), range(across)):
        yield (sample * down + row) * across + column


def cut_short(what: str, path: str) -> InputError:
    """Refuse a file that lacks something; `what` is what it has."""
    return InputError(
        f"TIFF must hold all that it speaks of, got {what} in {path!r}; it was cut short, or is"
        " one file of a set: copy it again, with all its files"
    )


def place_of(box: tuple[int, int, int, int, int]) -> str:
    """Say where a part lies.

    >>> place_of((0, 16, 32, 0, 64))
    'rows 16 to 31, columns 0 to 63 of plane 0'
    """
    plane, y0, y1, x0, x1 = box
    return f"rows {y0} to {y1 - 1}, columns {x0} to {x1 - 1} of plane {plane}"


def has_damaged_jpeg(series: Any) -> bool:
    """Tell whether a tile or strip is a JPEG that no encoder writes."""
    for page in series.pages:
        page.parent.filehandle.open()
        tables = page.jpegtables or b""
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset and count:
                page.parent.filehandle.seek(offset)
                data = page.parent.filehandle.read(count)
                # The tables that all parts share stand between a start and an end of their own.
                if is_damaged_jpeg(data[:2] + tables[2:-2] + data[2:]):
                    return True
    return False


# Frames of 8 bits that libjxl packs anew: sequential and progressive, of one or three components.
_FRAME = re.compile(rb"\xff[\xc0-\xc2]..\x08....[\x01\x03]", re.DOTALL)
_SEGMENT = re.compile(rb"\xff[^\x00\xff](?P<length>..)", re.DOTALL)


def is_damaged_jpeg(content: bytes) -> bool:
    """Tell whether the data of a JPEG are not what an encoder writes.

    libjpeg fills in what it can't decode and says so to nobody; libjxl packs a JPEG anew only if
    it understands every bit of it. Of frames that it does not know nothing is said.
    """
    at = 2
    while (segment := _SEGMENT.match(content, at)) and content[at + 1] not in range(0xC0, 0xC4):
        at += 2 + int.from_bytes(segment["length"], "big")
    if segment and not _FRAME.match(content, at):
        return False
    try:
        imagecodecs.jpegxl_encode_jpeg(content)
    except imagecodecs.JpegxlError:
        return True
    return False
