"""Whole slides of microscope scanners (SVS, NDPI, SCN, BIF) as image files of unetkit."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tiffslide import TiffSlide

from unetkit import ImageFile
from unetkit.errors import InputError, MissingError, UnetkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# The environment variable that chooses the level of the pyramid; 0 is the full size.
LEVEL = "UNETKIT_SLIDE_LEVEL"


def open_slide(path: str, *, axes: str | None = None, labels: bool = False) -> ImageFile:
    """Look into a whole slide; the level that `UNETKIT_SLIDE_LEVEL` names counts, else level 0.

    Parameters
    ----------
    path : str
        A slide that tiffslide reads.
    axes : str, optional
        Can only be ``cyx``.
    labels : bool
        Must be False: slides hold no labels.

    Returns
    -------
    ImageFile
        Red, green and blue, read strip by strip, with the size of its pixels at that level.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If it can't be read, or labels or other axes are wished for.
    UsageError
        If it has no such level.
    """
    if labels or (axes is not None and set(axes) != set("cyx")):
        raise InputError(
            f"a slide must be an image with the axes cyx, got {path!r} as"
            f" {'labels' if labels else axes}; give masks as PNG or TIFF"
        )
    with _Opened(path) as slide:
        level = _level(slide, path)
        width, height = slide.level_dimensions[level]
        scale = slide.level_downsamples[level]
        microns = {axis: slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "yx"}
    known = all(microns.values())
    return ImageFile(
        path,
        "cyx",
        (3, height, width),
        np.dtype("uint8"),
        partial(_strips, path, level),
        pixel_size={axis: float(microns[axis]) * scale for axis in "yx"} if known else None,
        channel_names=("red", "green", "blue"),
        lossy=True,
    )


def _level(slide: TiffSlide, path: str) -> int:
    word = os.environ.get(LEVEL, "0")
    if word.isdecimal() and int(word) < slide.level_count:
        return int(word)
    levels = ", ".join(
        f"{k} ({height} x {width})" for k, (width, height) in enumerate(slide.level_dimensions)
    )
    raise UsageError(f"{LEVEL} must be a level of {path!r}, got {word!r}; it has {levels}")


class _Opened:
    """Open a slide, and turn whatever goes wrong with it into one sentence."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> TiffSlide:
        if not Path(self.path).exists():
            raise MissingError(f"slide must exist, got {self.path!r}; correct the name")
        try:
            self.slide = TiffSlide(self.path)
        # The reader raises errors of every kind over foreign bytes.
        except Exception as error:
            raise self._damaged(error) from error
        return self.slide

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.slide.close()
        if isinstance(error, Exception) and not isinstance(error, (UnetkitError, MemoryError)):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return InputError(
            f"slide must be readable, got {self.path!r} ({reason:.200}); it may be damaged or cut"
            " short: copy it again, or save it as OME-TIFF"
        )


def _strips(path: str, level: int, height: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    with _Opened(path) as slide:
        width, rows = slide.level_dimensions[level]
        full = slide.dimensions[1]
        for y0 in range(0, rows, height):
            # Places are given in pixels of level 0, and rounded down on the way to the level.
            top = -(-y0 * full // rows)
            size = (width, min(height, rows - y0))
            block = slide.read_region((0, top), level, size, as_array=True)
            yield 0, y0, np.moveaxis(block[..., :3], -1, 0)
