"""The rows of an open TIFF: only the tiles or strips that they touch are read and decoded."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tifffile

from unetkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# JPEG, and the JPEG 2000 of slide scanners: their pixels are not those that were saved.
LOSSY = {6, 7, 33003, 33005, 33007, 34892}


class Bands:
    """The rows of an open series, each tile or strip of the file decoded once while in use.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
        Of a file that stays open.
    path : str
        For messages.
    """

    def __init__(self, series: Any, path: str) -> None:
        self.series = series
        self.path = path
        page = series.keyframe
        self.whole: NDArray[Any] | None = None
        self.leading = series.shape[: len(series.shape) - len(page.shape)]
        if series.dataoffset is not None:
            # Uncompressed and in one piece: the file is the array.
            self.whole = tifffile.memmap(path, series=0, mode="r").reshape(series.shape)
        elif (
            page.shaped[1] != 1
            or math.prod(self.leading) != len(series.pages)
            or self.leading + page.shape != tuple(series.shape)
        ):
            # Volumes in one page, or dimensions that pages do not follow: rare enough to load.
            self.whole = series.asarray().reshape(series.shape)
        self.segments: dict[tuple[int, int], Any] = {}
        self.last: tuple[Any, NDArray[Any]] | None = None

    def read(self, pick: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read rows of one channel of one plane.

        Parameters
        ----------
        pick : tuple of int and slice
            An index for every dimension of the series; a slice along y and x.

        Returns
        -------
        ndarray, shape (Y, X)
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
        page, key = self.series.pages[number], self.series.keyframe
        samples, _, _, width, depth = key.shaped
        shape = list(key.shape)
        shape[key.axes.index("Y")] = rows.stop - rows.start
        if page is None:
            return np.zeros(shape, dtype=self.series.dtype)
        if page.is_memmappable:
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
        key, file = self.series.keyframe, page.parent.filehandle
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if count:
            file.seek(offset)
            data = file.read(count)
            if len(data) < count:
                raise InputError(
                    f"TIFF must hold all its pixels, got {len(data)} of {count} bytes of a part of"
                    f" {self.path!r}; it was cut short: copy it again"
                )
        tables = {}
        if int(key.compression) in LOSSY:
            tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        return key.decode(data, index, **tables)


def _touched(key: Any, rows: slice) -> Iterator[int]:
    height = key.tilelength if key.is_tiled else key.rowsperstrip
    samples, _, length, width, _ = key.shaped
    down = math.ceil(length / height)
    across = math.ceil(width / key.tilewidth) if key.is_tiled else 1
    first, last = rows.start // height, (rows.stop - 1) // height
    for sample, row, column in product(range(samples), range(first, last + 1), range(across)):
        yield (sample * down + row) * across + column
