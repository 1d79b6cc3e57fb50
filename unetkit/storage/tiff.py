"""TIFF files of every layout, decoded strip by strip: only the tiles that a strip touches."""

from __future__ import annotations

import json
import logging
import math
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from unetkit.errors import InputError, LabelError
from unetkit.storage.image_file import AXES, Damage, ImageFile, Strip, indices_remark, reading
from unetkit.storage.pixel_size import micrometres
from unetkit.storage.tiff_bands import (
    LOOKED_AT,
    LOSSY,
    Bands,
    cut_short,
    has_damaged_jpeg,
    in_one_piece,
)
from unetkit.storage.urls import resolved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

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
    # ImageJ takes such a resolution for one a centimetre, whatever the unit that it then names.
    factor = 1e4 if unit == "um" and int(tags.valueof("ResolutionUnit", 1)) == 3 else 1
    sizes: dict[str, float | None] = {}
    for axis in "yx":
        tag = tags.get(f"{axis.upper()}Resolution")
        # Pixels per unit, as a fraction.
        pixels, units = tag.value if tag is not None else (0, 0)
        own = str(notes.get("yunit", unit)) if axis == "y" else unit
        sizes[axis] = _number(units / pixels * factor if pixels else None, own)
    sizes["z"] = _number(notes.get("spacing"), str(notes.get("zunit", unit)))
    return sizes


def _number(value: Any, unit: str) -> float | None:
    try:
        return None if value is None else micrometres(float(value), unit)
    except (TypeError, ValueError):
        return None


class _Heard(logging.Handler):
    """What tifffile tells its log of, kept for the thread that reads.

    Without a handler Python would print it on stderr.
    """

    kept = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        getattr(self.kept, "words", []).append(record.getMessage())


logging.getLogger("tifffile").addHandler(_Heard())

PHOTOMETRIC = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR")
ALPHA = {1, 2}  # associated and unassociated


@dataclass(frozen=True)
class Layout:
    """Where the pixels of the first series are."""

    letters: str  # the meaning of every dimension of the series, in its order
    shape: tuple[int, ...]
    channels: int  # that are kept; an alpha channel after them is not
    # (1 or 3, N), where the pixels are indices into a palette
    colours: NDArray[np.uint8] | None = None
    inverted: bool = False  # of one bit, which stands for its opposite

    def size(self, letter: str) -> int:
        """Return the size along an axis, 1 where there is none."""
        return self.shape[self.letters.index(letter)] if letter in self.letters else 1


def open_tiff(path: str, *, axes: str | None = None, labels: bool = False) -> ImageFile:
    """Look into a TIFF, OME-TIFF or ImageJ TIFF; its first series and full size count.

    Strips and tiles, every compression of imagecodecs, 1 to 64 bits, BigTIFF; a set of OME-TIFFs
    from each page's own file. Pixels come as stored, also where the file says that 0 is white, but
    for yes/no labels that stand for their opposites. Alpha is dropped, but not of labels.

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
        If it is damaged or cut short, lacks planes or files that it speaks of, has pages whose
        meaning nobody says, or has colours that are neither grey nor RGB.
    """
    with _opened(path) as tif:
        _check_whole(tif, path)
        series = tif.series[0]
        absent, parts, files = _held(series, path)
        page = series.keyframe
        if page.photometric.name not in PHOTOMETRIC:
            raise InputError(
                f"TIFF must be grey, RGB or of a palette, got {page.photometric.name} in {path!r};"
                " save it as RGB"
            )
        layout, alpha = _layout(tif, _letters(series, path, axes=axes, labels=labels), labels)
        dropped = alpha and not labels
        dtype = np.dtype(np.uint8) if layout.colours is not None else series.dtype.newbyteorder("=")
        names = channel_names(tif, layout.channels if "c" in layout.letters else 0)
        sizes = pixel_size(tif)
        lossy, jpeg = int(page.compression) in LOSSY, int(page.compression) == 7
        damage = Damage(parts)
        remarks, turned = _remarks(tif, layout, labels=labels, path=path)
        layout = replace(layout, inverted=remarks[:1] == (INVERTED,))
    channels = layout.channels if layout.colours is None else len(layout.colours)
    # One channel beside a dropped alpha is a grey image.
    own = [a for a in AXES if a in layout.letters and (a != "c" or channels > 1 or not dropped)]
    if channels > 1 and "c" not in own:
        own = [a for a in AXES if a in layout.letters or a == "c"]
    shape = tuple(channels if axis == "c" else layout.size(axis) for axis in own)
    if not all(shape):
        raise InputError(f"TIFF must have pixels, got the shape {shape} in {path!r}")
    return ImageFile(
        path,
        "".join(own),
        shape,
        dtype,
        partial(_strips, path, layout, damage),
        pixel_size=sizes,
        channel_names=names if len(names) == channels else (),
        alpha_dropped=dropped,
        alpha=alpha and labels,
        turned=turned,
        lossy=lossy,
        remarks=remarks,
        files=files,
        absent=absent,
        parts=parts,
        damage=(damage,),
        is_damaged=partial(_is_damaged, path) if jpeg and math.prod(shape) <= LOOKED_AT else None,
    )


def _is_damaged(path: str) -> bool:
    with _opened(path) as tif:
        return has_damaged_jpeg(tif.series[0])


@contextmanager
def _opened(path: str) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF so that its first series is the first that it has pixels of."""
    with reading(path):
        xml = None
        with tifffile.TiffFile(path) as tif:
            if tif.is_ome:
                xml = _own_metadata(tif, path)
            if xml is None:
                yield tif
                return
        with tifffile.TiffFile(path, omexml=xml) as tif:
            yield tif


def _own_metadata(tif: tifffile.TiffFile, path: str) -> str | None:
    """Return OME-XML of the first image that a file has pixels of; None where its own does.

    A file of a set speaks of images that lie in other files, or only of the file that does. What
    the metadata promise is looked for here, before tifffile makes room for it.
    """
    try:
        root = ElementTree.fromstring(tif.ome_metadata or "")
    except (ElementTree.ParseError, ValueError):
        return None
    told = root.find("{*}BinaryOnly")
    if told is not None:
        own = root.get("UUID")
        root = ElementTree.fromstring(_text_beside(path, told.get("MetadataFile", "")))
        root.attrib.pop("UUID", None)
        if own is not None:
            root.set("UUID", own)
    images = root.findall("{*}Image")
    kept = next((image for image in images if _has_pixels(image, root, path)), None)
    if kept is None and images:
        kept = images[0]
    if kept is None:
        return None
    _check_promised(kept, root, tif, path=path)
    if told is None and len(images) == 1:
        return None
    for image in images:
        if image is not kept:
            root.remove(image)
    return ElementTree.tostring(root, encoding="unicode")


def _text_beside(path: str, name: str) -> str:
    place = _beside(path, name)
    if place is None:
        raise InputError(
            f"TIFF must lie beside {name!r}, which describes it, got no such file beside {path!r};"
            " copy the whole set into one folder"
        )
    if place.suffix.lower() in (".ome", ".xml"):
        return place.read_text(encoding="utf-8")
    with tifffile.TiffFile(place) as tif:
        return tif.ome_metadata or ""


def _beside(path: str, name: str) -> Path | None:
    """Return the file of this name in the folder of another, None where there is none."""
    place = Path(path).parent / name
    # What a file says never leads out of its folder, nor into a pipe.
    return place if name == place.name and place.is_file() else None


def _file_named(data: ElementTree.Element) -> tuple[str | None, str]:
    """Return the UUID and the name of the file that holds the planes of a TiffData."""
    uuid = data.find("{*}UUID")
    return (None, "") if uuid is None else (uuid.text, uuid.get("FileName", ""))


def _is_own(data: ElementTree.Element, root: ElementTree.Element, path: str) -> bool:
    uuid, name = _file_named(data)
    return uuid is None or uuid == root.get("UUID") or name.lower() == Path(path).name.lower()


def _has_pixels(image: ElementTree.Element, root: ElementTree.Element, path: str) -> bool:
    return any(_is_own(data, root, path) for data in image.iterfind("{*}Pixels/{*}TiffData"))


def _check_promised(
    image: ElementTree.Element, root: ElementTree.Element, tif: tifffile.TiffFile, *, path: str
) -> None:
    pixels = image.find("{*}Pixels")
    listed = [] if pixels is None else pixels.findall("{*}TiffData")
    if pixels is None:
        return
    others = {_file_named(data)[1] for data in listed if not _is_own(data, root, path)}
    lost = sorted(name for name in others if _beside(path, name) is None)
    if lost:
        raise InputError(
            f"TIFF must lie beside the other files of its set, got {len(lost)} of {len(others)}"
            f" absent beside {path!r}, such as {lost[0]!r}; copy the whole set into one folder"
        )
    pages: set[tuple[str, int]] = set()  # a page that stands for several planes holds one
    for data in listed:
        name = "" if _is_own(data, root, path) else _file_named(data)[1]
        place = _beside(path, name) if name else None
        given = data.get("PlaneCount", data.get("NumPlanes", "1" if "IFD" in data.attrib else None))
        # A page takes more than 64 bytes.
        most = len(tif.pages) if place is None else place.stat().st_size // 64
        if place is not None and given is None:
            most = _pages_of(place)
        first = int(data.get("IFD", 0))
        pages.update((name, n) for n in range(first, min(first + int(given or most), most)))
    held = len(pages) if listed else len(tif.pages)
    page = tif.pages.first
    held *= page.samplesperpixel * page.imagedepth
    promised = math.prod(int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT")
    if held < promised:
        raise cut_short(f"{held} of {promised} planes", path)


def _pages_of(path: Path) -> int:
    with tifffile.TiffFile(path) as tif:
        return len(tif.pages)


def _check_whole(tif: tifffile.TiffFile, path: str) -> None:
    # A file that was cut short between two pages reads as one with fewer pages; the last page
    # then points at a next one that is not there.
    form, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, 1)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    promised = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    heard: list[str] = []
    _Heard.kept.words = heard
    kind = tif.series[0].kind
    _Heard.kept.words = []
    if following or (promised > 1 and kind != "imagej") or _are_fewer(tif):
        raise cut_short(f"{len(tif.pages)} pages", path)
    # Sets of other kinds than OME are known to tifffile alone.
    if any("Stack series is missing" in word or "NDTiff.index not" in word for word in heard):
        raise cut_short("some of its files", path)


def _are_fewer(tif: tifffile.TiffFile) -> bool:
    """Tell whether tifffile wrote a longer series of such pages; other programs keep its words."""
    page = tif.pages.first
    try:
        shape = json.loads(page.shaped_description or "{}").get("shape", ())
    except ValueError:
        return False
    before = len(shape) - len(page.shape)
    alike = tuple(shape[max(before, 0) :]) == page.shape
    return bool(alike and math.prod(shape) > math.prod(tif.series[0].shape))


# Our own choice: what claims to be this much larger than its file, and needs more than
# this much memory, is no image. Blank pages of a fax come near the first.
BLOWN_UP, WORTH_A_LOOK = 2**16, 2**28


def _held(series: Any, path: str) -> tuple[int, int, tuple[str, ...]]:
    """Count the tiles and strips that were never written, and all; name the other files.

    Planes that are absent, and what lies beyond the end of its file, are refused.
    """
    page = series.keyframe
    if series.dataoffset:
        end = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        if end > page.parent.filehandle.size:
            raise cut_short(f"{page.parent.filehandle.size} of {end} bytes", path)
        return 0, math.prod(page.chunked), ()
    pages = [series.pages[number] for number in range(len(series.pages))]
    there = [page for page in pages if page is not None]
    planes = math.prod(series.shape) // max(page.size, 1)
    if len(there) < max(planes, 1):
        raise cut_short(f"{len(there)} of {planes} planes", path)
    absent = parts = claimed = 0
    for page in there:
        none, count = _parts_of(page, series, path=path)
        absent, parts = absent + none, parts + count
        key = page.keyframe
        claimed += (count - none) * math.prod(key.chunks) * series.dtype.itemsize
    files = {page.parent.filehandle.path: page.parent.filehandle.size for page in there}
    if claimed > max(WORTH_A_LOOK, BLOWN_UP * sum(files.values())):
        raise InputError(
            f"TIFF must hold the pixels that it claims, got {claimed} bytes of them in {path!r};"
            " it may be damaged: save or copy it again"
        )
    if absent == parts:
        raise cut_short(f"none of {parts} tiles or strips", path)
    own = resolved(path)
    return absent, parts, tuple(sorted(file for file in files if resolved(file) != own))


def _parts_of(page: Any, series: Any, *, path: str) -> tuple[int, int]:
    key, size = page.keyframe, page.parent.filehandle.size
    if key.shaped != series.keyframe.shaped or key.dtype != series.keyframe.dtype:
        raise InputError(
            "TIFF must have planes of one size and type, got"
            f" {key.shape} of {key.dtype} and {series.keyframe.shape} of {series.keyframe.dtype} in"
            f" {path!r}; import them apart"
        )
    offsets = np.asarray(page.dataoffsets, dtype=np.uint64)
    counts = np.asarray(page.databytecounts, dtype=np.uint64)
    parts = math.prod(key.chunked)
    if key.is_memmappable and in_one_piece(page):
        if int(offsets[0]) + key.nbytes > size:
            raise cut_short(f"{size} of {int(offsets[0]) + key.nbytes} bytes", path)
        return 0, parts
    if min(offsets.size, counts.size) < parts:
        raise cut_short(f"{min(offsets.size, counts.size)} of {parts} tiles or strips", path)
    offsets, counts = offsets[:parts], counts[:parts]
    written = (offsets > 0) & (counts > 0)
    if (offsets + counts)[written].max(initial=0) > size:
        raise cut_short(f"{size} of {(offsets + counts)[written].max()} bytes", path)
    return parts - int(np.count_nonzero(written)), parts


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
    if labels and letters[:-2] in ("q", "i"):
        # Pages of objects, or of planes: that is judged where the image is known.
        letters = f"z{letters[1:]}"
    if set(letters) - set(AXES) or len(set(letters)) < len(letters):
        raise InputError(
            f"TIFF with dimensions {series.shape} must say what they mean, got {series.axes} in"
            f" {path!r}; name them with --axes, for example --axes"
            f" {'zyxc' if own.endswith('s') else 'zyx' if len(own) == 3 else 'zcyx'}"
        )
    return letters


def _layout(tif: tifffile.TiffFile, letters: str, labels: bool) -> tuple[Layout, bool]:
    """Say where the pixels are, and whether the last channel is alpha, which labels keep."""
    series = tif.series[0]
    page = series.keyframe
    at = series.axes.find("S")
    channels = series.shape[letters.index("c")] if "c" in letters else 1
    extra = [int(kind) for kind in page.extrasamples]
    alpha = bool(at >= 0 and letters[at] == "c" and extra and extra[-1] in ALPHA)
    colours = None
    # A lookup table of ImageJ colours greys for the eye only.
    if page.colormap is not None and page.photometric.name == "PALETTE":
        colours = (page.colormap >> 8).astype(np.uint8)
        if labels or tif.is_imagej:
            colours = None
        elif (colours == colours[:1]).all():
            colours = colours[:1]
    return Layout(letters, tuple(series.shape), channels - (alpha and not labels), colours), alpha


INVERTED = "say that 0 is white, and came in as viewers show them"


def _remarks(
    tif: tifffile.TiffFile, layout: Layout, *, labels: bool, path: str
) -> tuple[tuple[str, ...], bool]:
    """Say what a user should know, and whether the pixels are to be shown turned."""
    page = tif.series[0].keyframe
    remarks = []
    if page.photometric.name == "MINISWHITE":
        # The tag alone does not tell what an object is: these two write it over pixels in which
        # objects are not 0, Pillow and libtiff over their opposites.
        kept = not labels or tif.is_imagej or tif.is_shaped or "tifffile" in page.software
        if not kept and page.bitspersample != 1:
            raise LabelError(
                "mask must say that 0 is black, got the tag PhotometricInterpretation 0 (0 is"
                f" white) in {path!r}; save it as PNG"
            )
        stored = "say that 0 is white; their pixels came in as stored"
        remarks.append(stored if kept else INVERTED)
    if tif.is_ome and tif.series[0].kind not in ("ome", "mmstack"):
        remarks.append("carry OME metadata that could not be used")
    elif len(tif.series) > 1 or _images(tif) > 1:
        remarks.append("hold more than one series, of which the first came in")
    if page.photometric.name == "PALETTE" and layout.colours is None:
        table = "carry a lookup table, without which the pixels came in"
        remarks.append(indices_remark(page.colormap[:, 0] >> 8) if labels else table)
    elif layout.colours is not None and not np.array_equal(layout.colours[0], np.arange(256)):
        what = "greys" if len(layout.colours) == 1 else "colours"
        remarks.append(f"carry a palette, whose {what} came in")
    orientation = page.tags.get("Orientation")
    turned = orientation is not None and orientation.value != 1
    if turned:
        remarks.append("carry an orientation, which was not applied")
    return tuple(remarks), turned


def _images(tif: tifffile.TiffFile) -> int:
    """Count the images of which a file's own metadata say that it has pixels."""
    description = tif.pages.first.description
    if not tif.is_ome or description.count("<Image") + description.count(":Image") < 2:
        return 1
    root = ElementTree.fromstring(description)
    path = tif.filehandle.path
    return sum(_has_pixels(image, root, path) for image in root.iterfind("{*}Image"))


def _strips(path: str, layout: Layout, damage: Damage, height: int) -> Iterator[Strip]:
    rows = layout.size("y")
    with _opened(path) as tif:
        bands = Bands(tif.series[0], path, layout.letters, damage=damage)
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
                if layout.inverted:
                    block = ~block
                yield plane, y0, block if layout.colours is None else layout.colours[:, block[0]]
