"""Image files to arrays, by suffix: PNG and JPEG here, TIFF next door, others by plugins."""

from __future__ import annotations

import inspect
import math
import struct
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from PIL.Image import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from unetkit.errors import InputError, UsageError
from unetkit.registry import Registry
from unetkit.storage.atomic import is_stored
from unetkit.storage.image_file import (
    AXES,
    PNG_SIGNATURE,
    ImageFile,
    Strip,
    check_axes,
    indices_remark,
    reading,
)
from unetkit.storage.images import Image as StoredImage
from unetkit.storage.images import open_image

# The entry points of an installed copy may still name it here; to go after one release.
from unetkit.storage.tiff import open_tiff  # noqa: F401
from unetkit.storage.tiff_bands import LOOKED_AT, is_damaged_jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unetkit.storage.image_file import Region

READERS = Registry("unetkit.readers", noun="reader")

# The names that the documentation of OME-TIFF gives to BigTIFF.
SAME = {".tf2": ".tif", ".tf8": ".tif", ".btf": ".tif"}
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What the readers here are told by, whatever a file's name ends with.
MAGIC: dict[str, bytes | tuple[bytes, ...]] = {
    "png": PNG_SIGNATURE,
    "jpg": JPEG,
    "jpeg": JPEG,
    "tif": TIFF,
    "tiff": TIFF,
}
# Our own choice: PNG and JPEG have to be decoded whole. 4 GiB is a square of 65,536 grey pixels;
# what is larger belongs in a tiled TIFF, and what is small and claims more is a bomb.
LARGEST = 2**32
CUT_SHORT = "fewer pixels than its header promises"
# The most that deflate packs into a byte.
DEFLATED = 1032
# Where the passes of an interlaced PNG begin, and how far apart their pixels are: y, x, dy, dx.
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
ORIENTATION = 0x0112  # the EXIF tag
# Chunks of a PNG that may hold an orientation.
TOLD = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
NAMES = {1: (), 3: ("red", "green", "blue")}
# Bytes a pixel that decoding takes at most, by Pillow's mode.
GREY, COLOUR = ("1", "L", "LA", "I;16", "I;16B", "I"), ("RGB", "RGBA")
# Pillow spreads greys of 2 and 4 bits over 8; pixels come in as they are stored.
SPREAD = {"L;2": 85, "L;4": 17}


def suffixes() -> tuple[str, ...]:
    """Return the suffixes that can be read, such as ``.png``, without importing a reader."""
    named = tuple(f".{name.rpartition('/')[2].lower()}" for name in READERS.names())
    return (*named, *(suffix for suffix, same in SAME.items() if same in named))


def is_built_in(path: str) -> bool:
    """Tell whether a file is of a format that is read here, not by an installed reader."""
    suffix = Path(path).suffix.lower()
    return SAME.get(suffix, suffix)[1:] in MAGIC


def open_file(
    path: str,
    *,
    axes: str | None = None,
    labels: bool = False,
    fill: bool = False,
    scene: str | None = None,
) -> ImageFile:
    """Look into an image file.

    Parameters
    ----------
    path : str
        Its suffix chooses the reader.
    axes : str, optional
        What the dimensions in the file stand for, where the file does not say it.
    labels : bool
        Whether the file holds labels: pixels of a coloured palette are then its indices, not
        its colours, and all pixels keep their type.
    fill : bool
        Whether parts that can't be decoded read as 0, and are told of in `ImageFile.damage`.
    scene : str, optional
        Which of the images in the file, by name or number; else the first.

    Returns
    -------
    ImageFile

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If no reader takes it, or it is damaged.
    UsageError
        If it has no such scene.
    """
    if is_stored(path):
        if scene is not None:
            raise UsageError(
                f"scene must be of an image file, got {scene!r} for the Zarr {path!r}; name the"
                f" series in the path, such as {f'{path}/0'!r}"
            )
        stored = open_stored(path, axes=None if labels else axes)
        return stored if labels else stored.stored()
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes():
        raise InputError(
            f"image file must end in one of {', '.join(suffixes())}, got {path!r};"
            " save it as TIFF or PNG"
        )
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(
            f"image file must be a file, got a folder, pipe or device at {path!r}; name a file"
        )
    reader = READERS.get(_format(path) or SAME.get(suffix, suffix)[1:])
    asked = {} if scene is None else {"scene": scene}
    if asked and "scene" not in inspect.signature(reader).parameters:
        raise UsageError(
            f"scene must be left out for {path!r}, whose reader knows of one image, got {scene!r}"
        )
    image: ImageFile = reader(path, axes=axes and check_axes(axes), labels=labels, **asked)
    for damage in image.damage:
        damage.fill = fill
    return image if labels else image.stored()


def open_stored(path: str, *, axes: str | None = None) -> ImageFile:
    """Look into an image, or the labels of one, that is stored as OME-Zarr already."""
    return stored_file(open_image(path, axes=axes), path)


def stored_file(image: StoredImage, path: str) -> ImageFile:
    """See an image of a store as a file of one, which lies at a path."""
    data = image.data

    @contextmanager
    def regions() -> Iterator[Region]:
        yield data.read

    letters = "".join(axis for axis in AXES if axis in data.axes)
    names = image.channel_names
    return ImageFile.of_regions(
        path,
        regions,
        axes=letters,
        shape=[data.channel_count if axis == "c" else data.size(axis) for axis in letters],
        dtype=data.dtype,
        pixel_size=image.pixel_size,
        channel_names=() if all(map(str.isdecimal, names)) else names,
    )


def _format(path: str) -> str | None:
    """Tell PNG, JPEG and TIFF from each other by their bytes, of which a name may say otherwise."""
    suffix = Path(path).suffix.lower()
    if SAME.get(suffix, suffix)[1:] not in MAGIC or not Path(path).is_file():
        return None
    with reading(path), Path(path).open("rb") as file:
        start = file.read(len(PNG_SIGNATURE))
    return next((name for name, magic in MAGIC.items() if start.startswith(magic)), None)


def open_picture(path: str, *, axes: str | None = None, labels: bool = False) -> ImageFile:
    """Look into a PNG or JPEG, whichever of the two the bytes are.

    Grey, colours and palettes of 1 to 16 bits. A palette of greys gives its greys, as labels only
    where each is there once and 0 is black; any other gives its colours, or as labels its indices.
    Alpha is dropped, but not of labels. An EXIF orientation is not applied, because masks are drawn
    on, and other tools read, the pixels as they are stored.

    Parameters
    ----------
    path, axes, labels
        As for `open_file`; the axes can only be those that the picture has.

    Returns
    -------
    ImageFile

    Raises
    ------
    InputError
        If it is neither, is damaged, is larger than 4 GiB, or is of the colours of print.
    """
    with reading(path), _open(path) as picture:
        _check(picture, path)
        mode, deep = picture.mode, _is_deep(picture)
        greys = mode == "P" and _is_grey(picture, labels=labels)
        grey = mode in GREY or (mode == "P" and (labels or greys))
        grey = grey or (deep and str(picture.tile[0].args).startswith("LA"))
        alpha = mode in ("LA", "RGBA") or (deep and "A" in str(picture.tile[0].args))
        clear = mode == "P" and not labels and "transparency" in picture.info
        lossy = isinstance(picture, JpegImageFile)
        told = _palette_remark(picture, labels=labels) if mode == "P" else ""
        frames = _frames(picture)
        turned = _orientation(picture, path) != 1
        width, height = picture.size
        dtype = np.dtype("uint16" if deep or mode.startswith("I") else "uint8")
    channels = (1 if grey else 3) + (alpha and labels)
    shape = (height, width) if channels == 1 else (channels, height, width)
    own = "yx" if channels == 1 else "cyx"
    if axes is not None and not labels and set(axes) != set(own):
        raise InputError(
            f"axes must be those of the picture {path!r}, {own}, got {axes!r}; leave them out"
        )
    remarks = {
        "carry an EXIF orientation, which was not applied": turned,
        "hold more than one picture, of which the first came in": frames > 1,
        told: told,
    }
    return ImageFile(
        path,
        own,
        shape,
        dtype,
        partial(_strips, path, labels),
        channel_names=NAMES.get(channels, ()),
        alpha_dropped=clear or (alpha and not labels),
        alpha=alpha and labels,
        turned=turned,
        lossy=lossy,
        remarks=tuple(remark for remark, there in remarks.items() if there),
        is_damaged=partial(_is_damaged, path) if lossy and width * height <= LOOKED_AT else None,
    )


def _orientation(picture: PngImageFile | JpegImageFile, path: str) -> int:
    """Return the EXIF orientation, 1 where there is none.

    Pillow decodes all of a PNG for it, since text may follow the pixels; where none does, what was
    read at the start is all.
    """
    if isinstance(picture, PngImageFile):
        names = [name for name, _ in png_chunks(Path(path).read_bytes())]
        if TOLD.isdisjoint(names[names.index(b"IDAT") :] if b"IDAT" in names else ()):
            return int(Image.getexif(picture).get(ORIENTATION, 1))
    return int(picture.getexif().get(ORIENTATION, 1))


def png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and the data of each chunk of a PNG, as far as they are there."""
    view, at = memoryview(content), len(PNG_SIGNATURE)
    while at + 8 <= len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        yield name, view[at + 8 : at + 8 + size]
        at += size + 12


def _frames(picture: Image) -> int:
    """Count the pictures in a file: those of an animated PNG, or of a JPEG of a phone (MPO)."""
    several = picture.info.get("mp") and picture._getmp()  # type: ignore[attr-defined]
    # The number of images, CIPA DC-007, 5.2.3.2.
    return int(several[0xB001] if several else getattr(picture, "n_frames", 1))


def decode_png(content: bytes, *, largest: int) -> NDArray[np.bool_]:
    """Tell which pixels (Y, X) of a small grey PNG in memory are not 0."""
    with PngImageFile(BytesIO(content)) as picture:
        if math.prod(picture.size) > largest or picture.mode not in (*GREY, "P"):
            raise ValueError(f"a mask must be a small grey PNG, got {picture.size}, {picture.mode}")
        if is_cut_short(content):
            raise ValueError(CUT_SHORT)
        return np.asarray(picture) > 0


def _is_damaged(path: str) -> bool:
    return is_damaged_jpeg(Path(path).read_bytes())


def _open(path: str) -> PngImageFile | JpegImageFile:
    # The bytes choose the format: a JPEG named .png must not pass for lossless. The classes are
    # made directly because Image.open holds a limit on pixels for the whole process.
    with Path(path).open("rb") as file:
        start = file.read(len(PNG_SIGNATURE))
    if start == PNG_SIGNATURE:
        return PngImageFile(path)
    if start.startswith(JPEG):
        return JpegImageFile(path)
    raise InputError(f"image file must be a PNG or a JPEG, got other bytes in {path!r}")


def _check(picture: PngImageFile | JpegImageFile, path: str) -> None:
    if picture.mode not in (*GREY, *COLOUR, "P"):
        raise InputError(
            f"picture {path!r} must be grey, RGB or of a palette, got {picture.mode};"
            " save it as RGB"
        )
    size = picture.width * picture.height * (len(picture.mode) if picture.mode in COLOUR else 2)
    if size > LARGEST:
        raise InputError(
            f"picture must need at most 4 GiB, got {picture.height} x {picture.width} pixels in"
            f" {path!r}; save it as a tiled TIFF"
        )
    # Nothing is decoded where no data of this length can hold so many pixels.
    if isinstance(picture, PngImageFile) and size // 16 > DEFLATED * Path(path).stat().st_size:
        raise ValueError(CUT_SHORT)


def is_cut_short(content: bytes) -> bool:
    """Say whether the data of a PNG end before its last pixel, which decoders take for black."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(-((y - height) // dy), -((x - width) // dx)) for y, x, dy, dx in passes]
    # A row begins with a byte that names its filter.
    needed = (rows * (1 + -(-columns * bits // 8)) for rows, columns in sides if columns > 0)
    missing: int = sum(needed)
    inflate = zlib.decompressobj()
    rest = b"".join(data for name, data in png_chunks(content) if name == b"IDAT")
    with suppress(zlib.error):
        while missing > 0 and rest and not inflate.eof:
            missing -= len(inflate.decompress(rest, 2**20))
            rest = inflate.unconsumed_tail
    return missing > 0


def _is_deep(picture: PngImageFile | JpegImageFile) -> bool:
    # Pillow would cut 16-bit colours and grey + alpha down to 8 bits.
    return bool(picture.tile) and picture.tile[0].args in ("RGB;16B", "RGBA;16B", "LA;16B")


def _is_grey(picture: Image, *, labels: bool) -> bool:
    colours = np.asarray(picture.getpalette(), dtype=np.uint8).reshape(-1, 3)
    grey = bool((colours == colours[:, :1]).all())
    # Labels that a palette shows alike stay apart, and 0 is background however it is shown: ImageJ
    # shows objects black on white, by a palette whose greys would swap the two.
    alike = np.unique(colours[:, 0]).size < len(colours)
    return grey and not (labels and (alike or colours[0].any()))


def _palette_remark(picture: Image, *, labels: bool) -> str:
    """Name what of a palette comes in; nothing where its greys are its indices."""
    palette = picture.getpalette() or []
    greys = palette[::3]
    if not _is_grey(picture, labels=labels):
        return indices_remark(palette[:3]) if labels else "carry a palette, whose colours came in"
    if greys == list(range(len(greys))):
        return ""
    return "carry a palette, whose greys came in" + (", black as background" if labels else "")


def _strips(path: str, labels: bool, height: int) -> Iterator[Strip]:
    with reading(path):
        pixels = _pixels(path, labels)
    for y0 in range(0, pixels.shape[1], height):
        yield 0, y0, pixels[:, y0 : y0 + height]


def _pixels(path: str, labels: bool) -> NDArray[Any]:
    with _open(path) as picture:
        deep = _is_deep(picture)
        spread = SPREAD.get(str(picture.tile[0].args), 1) if picture.tile else 1
        stored = imagecodecs.png_decode(Path(path).read_bytes()) if deep else np.asarray(picture)
        # Pixels that the data lack are black: the last, unless they come in passes.
        ends_black = picture.info.get("interlace") or not stored[-1, -1].any()
        if (
            isinstance(picture, PngImageFile)
            and ends_black
            and is_cut_short(Path(path).read_bytes())
        ):
            raise ValueError(CUT_SHORT)
        pixels = stored if spread == 1 else stored // spread
        if picture.mode == "P":
            colours = np.asarray(picture.convert("RGB"))
            greys = _is_grey(picture, labels=labels)
            pixels = colours[..., :1] if greys else stored if labels else colours
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    kept = pixels.shape[2] if labels else 1 if pixels.shape[2] < 3 else 3
    dtype = np.uint16 if pixels.dtype.itemsize > 1 else np.uint8
    return np.moveaxis(pixels[..., :kept], -1, 0).astype(dtype, copy=False)
