"""TIFF files of every layout, decoded strip by strip: only the tiles that a strip touches."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

import numpy as np
import tifffile

from unetkit.errors import InputError
from unetkit.storage.image_file import AXES, ImageFile, Strip, reading
from unetkit.storage.pixel_size import micrometres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# JPEG, and the JPEG 2000 of slide scanners: their pixels are not those that were saved.
LOSSY = {6, 7, 33003, 33005, 33007, 34892}


class Bands:
    """The rows of an open series, each tile or strip of the file decoded once while in use."""

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


# What ImageJ writes for a picture that was never calibrated.
PRINTING = ("inch", "pixel", "pixels", "")


def pixel_size(tif: Any) -> dict[str, float] | None:
    """Return micrometres by axis, at least y and x, where OME or ImageJ metadata say so.

    The resolution of any other TIFF is a printing resolution.
    """
    sizes = _ome_sizes(tif) if tif.is_ome else _imagej_sizes(tif) if tif.is_imagej else {}
    known = {axis: size for axis, size in sizes.items() if size is not None}
    return known if {"y", "x"} <= set(known) else None


def channel_names(tif: Any, channels: int) -> tuple[str, ...]:
    """Return the names that OME metadata give the channels, or the colours of an RGB file."""
    pixels = _pixels(tif)
    if pixels is not None:
        names = tuple(c.get("Name", "") for c in pixels.iterfind("{*}Channel"))
        if len(names) == channels and all(names) and len(set(names)) == channels:
            return names
    if channels == 3 and tif.series[0].keyframe.photometric.name in ("RGB", "YCBCR"):
        return ("red", "green", "blue")
    return ()


def _pixels(tif: Any) -> ElementTree.Element | None:
    if not tif.is_ome:
        return None
    try:
        return ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
    except (ElementTree.ParseError, ValueError):
        return None


def _ome_sizes(tif: Any) -> dict[str, float | None]:
    pixels = _pixels(tif)
    if pixels is None:
        return {}
    sizes: dict[str, float | None] = {}
    for axis in "zyx":
        value = pixels.get(f"PhysicalSize{axis.upper()}")
        unit = pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm")
        sizes[axis] = _number(value, unit)
    return sizes


def _imagej_sizes(tif: Any) -> dict[str, float | None]:
    notes = tif.imagej_metadata or {}
    unit = str(notes.get("unit", ""))
    if unit in PRINTING:
        return {}
    tags = tif.series[0].keyframe.tags
    sizes: dict[str, float | None] = {}
    for axis in "yx":
        tag = tags.get(f"{axis.upper()}Resolution")
        # Pixels per unit, as a fraction.
        pixels, units = tag.value if tag is not None else (0, 0)
        sizes[axis] = _number(units / pixels if pixels else None, unit)
    sizes["z"] = _number(notes.get("spacing"), unit)
    return sizes


def _number(value: Any, unit: str) -> float | None:
    try:
        return None if value is None else micrometres(float(value), unit)
    except (TypeError, ValueError):
        return None


# tifffile tells a log of every oddity; without a handler Python would print it on stderr. What
# matters of it is checked here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

PHOTOMETRIC = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR")
ALPHA = {1, 2}  # associated and unassociated


@dataclass(frozen=True)
class Layout:
    """Where the pixels of the first series are."""

    letters: str  # the meaning of every dimension of the series, in its order
    shape: tuple[int, ...]
    channels: int  # that are kept; an alpha channel after them is not
    colours: NDArray[np.uint8] | None = None  # (3, N), where the pixels are indices into a palette

    def size(self, letter: str) -> int:
        """Return the size along an axis, 1 where there is none."""
        return self.shape[self.letters.index(letter)] if letter in self.letters else 1


def open_tiff(path: str, *, axes: str | None = None, labels: bool = False) -> ImageFile:
    """Look into a TIFF, OME-TIFF or ImageJ TIFF; its first series and full size count.

    Strips and tiles, every compression of imagecodecs, 1 to 64 bits, BigTIFF. Pixels come as
    stored, also where the file says that 0 is white. Alpha is dropped.

    Parameters
    ----------
    path, axes, labels
        As for `open_file`.

    Returns
    -------
    ImageFile

    Raises
    ------
    InputError
        If it is damaged or cut short, has pages whose meaning nobody says, or has colours that
        are neither grey nor RGB.
    """
    with reading(path), tifffile.TiffFile(path) as tif:
        _check_whole(tif, path)
        series = tif.series[0]
        page = series.keyframe
        if page.photometric.name not in PHOTOMETRIC:
            raise InputError(
                f"TIFF must be grey, RGB or of a palette, got {page.photometric.name} in {path!r};"
                " save it as RGB"
            )
        layout = _layout(series, _letters(series, path, axes=axes, labels=labels), labels)
        alpha = layout.channels < layout.size("c")
        dtype = np.dtype(np.uint8) if layout.colours is not None else series.dtype.newbyteorder("=")
        names = channel_names(tif, layout.channels if "c" in layout.letters else 0)
        sizes = pixel_size(tif)
        lossy = int(page.compression) in LOSSY
        remarks = _remarks(tif, page)
    channels = 3 if layout.colours is not None else layout.channels
    # One channel beside a dropped alpha is a grey image.
    own = [a for a in AXES if a in layout.letters and (a != "c" or channels > 1 or not alpha)]
    if layout.colours is not None:
        own = [a for a in AXES if a in layout.letters or a == "c"]
    shape = tuple(channels if axis == "c" else layout.size(axis) for axis in own)
    if not all(shape):
        raise InputError(f"TIFF must have pixels, got the shape {shape} in {path!r}")
    return ImageFile(
        path,
        "".join(own),
        shape,
        dtype,
        partial(_strips, path, layout),
        pixel_size=sizes,
        channel_names=names if len(names) == channels else (),
        alpha_dropped=alpha,
        lossy=lossy,
        remarks=remarks,
    )


def _check_whole(tif: tifffile.TiffFile, path: str) -> None:
    # A file that was cut short between two pages reads as one with fewer pages; the last page
    # then points at a next one that is not there.
    form, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, 1)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    promised = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    if following or (promised > 1 and tif.series[0].kind != "imagej"):
        raise InputError(
            f"TIFF must hold all the pages it speaks of, got {len(tif.pages)} in {path!r};"
            " it was cut short: copy it again"
        )


def _letters(series: Any, path: str, *, axes: str | None, labels: bool) -> str:
    own = series.axes.lower()
    if axes is not None and (len(axes) == len(own) or not labels):
        plane = [own.index("y"), own.index("x")]
        if len(axes) != len(own) or [axes.index("y"), axes.index("x")] != plane:
            raise InputError(
                f"axes must fit the dimensions {series.shape} of {path!r}, where y and x have the"
                f" places {plane[0]} and {plane[1]}, got {axes!r}"
            )
        return axes
    letters: str = own if "c" in own else own.replace("s", "c")
    if set(letters) - set(AXES) or len(set(letters)) < len(letters):
        raise InputError(
            f"TIFF with dimensions {series.shape} must say what they mean, got {series.axes} in"
            f" {path!r}; name them with --axes, for example --axes"
            f" {'zyxc' if own.endswith('s') else 'zyx' if len(own) == 3 else 'zcyx'}"
        )
    return letters


def _layout(series: Any, letters: str, labels: bool) -> Layout:
    page = series.keyframe
    at = series.axes.find("S")
    channels = series.shape[letters.index("c")] if "c" in letters else 1
    extra = [int(kind) for kind in page.extrasamples]
    if at >= 0 and letters[at] == "c" and extra and extra[-1] in ALPHA:
        channels -= 1
    colours = None
    if page.photometric.name == "PALETTE" and page.colormap is not None and not labels:
        colours = (page.colormap >> 8).astype(np.uint8)
    return Layout(letters, tuple(series.shape), channels, colours)


def _remarks(tif: tifffile.TiffFile, page: Any) -> tuple[str, ...]:
    remarks = []
    if len(tif.series) > 1:
        remarks.append("hold more than one series, of which the first came in")
    if page.photometric.name == "MINISWHITE":
        remarks.append("say that 0 is white; their pixels came in as stored")
    orientation = page.tags.get("Orientation")
    if orientation is not None and orientation.value != 1:
        remarks.append("carry an orientation, which was not applied")
    return tuple(remarks)


def _strips(path: str, layout: Layout, height: int) -> Iterator[Strip]:
    rows = layout.size("y")
    with reading(path), tifffile.TiffFile(path) as tif:
        bands = Bands(tif.series[0], path)
        for t, z in product(range(layout.size("t")), range(layout.size("z"))):
            plane = t * layout.size("z") + z
            for y0 in range(0, rows, height):
                band = slice(y0, min(y0 + height, rows))
                where: dict[str, int | slice] = {"t": t, "z": z, "y": band, "x": slice(None)}
                picks = [
                    tuple({**where, "c": c}[letter] for letter in layout.letters)
                    for c in range(layout.channels)
                ]
                block = np.stack([bands.read(pick) for pick in picks])
                yield plane, y0, block if layout.colours is None else layout.colours[:, block[0]]
