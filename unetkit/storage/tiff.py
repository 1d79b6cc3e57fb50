"""TIFF files of every layout, decoded strip by strip: only the tiles that a strip touches."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from unetkit.errors import InputError
from unetkit.storage.image_file import AXES, ImageFile, Strip, reading
from unetkit.storage.tiff_bands import LOSSY, Bands
from unetkit.storage.tiff_notes import channel_names, pixel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# tifffile tells a log of every oddity; without a handler Python would print it on stderr. What
# matters of it is checked here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

PHOTOMETRIC = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR")
ALPHA = {1, 2}  # associated and unassociated


@dataclass(frozen=True)
class Layout:
    """Where the pixels of the first series are.

    Parameters
    ----------
    letters : str
        The meaning of every dimension of the series, in its order.
    shape : tuple of int
        The series' sizes.
    channels : int
        How many channels are kept; an alpha channel after them is not.
    colours : ndarray of uint8, shape (3, N), optional
        The palette, where the pixels are indices into it.
    """

    letters: str
    shape: tuple[int, ...]
    channels: int
    colours: NDArray[np.uint8] | None = None

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
