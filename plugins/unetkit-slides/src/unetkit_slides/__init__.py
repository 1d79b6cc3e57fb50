"""Whole slides of microscope scanners (SVS, NDPI, SCN, BIF) as image files of unetkit."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import TiffPageSeries
from tiffslide import TiffSlide

from unetkit import ImageFile
from unetkit.errors import InputError, MissingError, UnetkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# The environment variable that chooses the level of the pyramid; 0 is the full size.
LEVEL = "UNETKIT_SLIDE_LEVEL"
RGB = ("red", "green", "blue")


def open_slide(path: str, *, axes: str | None = None, labels: bool = False) -> ImageFile:
    """Look into a whole slide; the level that `UNETKIT_SLIDE_LEVEL` names counts, else level 0.

    Parameters
    ----------
    path : str
        A slide that tiffslide reads.
    axes : str, optional
        Can only be those that it has.
    labels : bool
        Must be False: slides hold no labels.

    Returns
    -------
    ImageFile
        Colours, or what channels it has, read part by part, with the size of its pixels at that
        level.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If it can't be read, or labels or other axes are wished for.
    UsageError
        If it has no such level.
    """
    with _opened(path) as slide:
        level = _level(slide, path)
        width, height = slide.level_dimensions[level]
        series = slide.ts_tifffile.series[slide.properties["tiffslide.series-index"]]
        stored = slide.properties["tiffslide.series-axes"]
        microns = {axis: slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "yx"}
        full = dict(zip("xy", slide.dimensions, strict=True))
        dtype = np.dtype(series.dtype).newbyteorder("=")
        samples = dict(zip(series.axes, series.shape, strict=True)).get(stored.strip("YX"), 1)
    # Of grey and alpha the grey, and of colours and alpha the colours.
    count = samples if "C" in stored else 3 if samples > 2 else 1
    own = "yx" if count == 1 else "cyx"
    if labels or (axes is not None and set(axes) != set(own)):
        raise InputError(
            f"a slide must be an image with the axes {own}, got {path!r} as"
            f" {'labels' if labels else axes}; give masks as PNG or TIFF"
        )
    sizes = {"c": count, "y": height, "x": width}

    @contextmanager
    def regions() -> Iterator[Any]:
        with _opened(path) as slide:
            yield partial(_region, slide, level, count)

    return ImageFile.of_regions(
        path,
        regions,
        axes=own,
        shape=[sizes[axis] for axis in own],
        dtype=dtype,
        pixel_size={axis: float(microns[axis]) * full[axis] / sizes[axis] for axis in "yx"}
        if all(microns.values())
        else None,
        channel_names=RGB if count == 3 and "S" in stored else (),
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


@contextmanager
def _opened(path: str) -> Iterator[TiffSlide]:
    """Open a slide with all its levels, and turn whatever goes wrong into one sentence."""
    if not Path(path).exists():
        raise MissingError(f"slide must exist, got {path!r}; correct the name")
    try:
        options = {"is_ndpi": False} if _is_plain(path) else {}
        with TiffSlide(path, tifffile_options=options) as slide:
            _add_levels(slide)
            with warnings.catch_warnings():
                # That it reads but part of what a vendor notes.
                warnings.filterwarnings("ignore", "(hamamatsu|no special ventana)", UserWarning)
                _ = slide.properties
            yield slide
    except (UnetkitError, MemoryError):
        raise
    # The reader raises errors of every kind over foreign bytes.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"slide must be readable, got {path!r} ({reason:.200}); it may be damaged or cut"
            " short: copy it again, or save it as OME-TIFF"
        ) from error


def _is_plain(path: str) -> bool:
    """Tell a TIFF that is only called NDPI, which has offsets of 64 bits where TIFF has 32."""
    if Path(path).suffix.lower() != ".ndpi":
        return False
    with Path(path).open("rb") as file:
        start, size = file.read(12), Path(path).stat().st_size
    long, short = (int.from_bytes(start[4:end], "little") for end in (12, 8))
    return start.startswith(b"II*\0") and short < size <= long


def _add_levels(slide: TiffSlide) -> None:
    """Add the levels that lie in SubIFDs, where tifffile looks for them among the pages alone."""
    for series in slide.ts_tifffile.series:
        known = {level.shape for level in series.levels}
        below = series.keyframe.pages if series.ndim == series.keyframe.ndim else None
        for page in below or ():
            if page.shape not in known and (page.axes, page.dtype) == (series.axes, series.dtype):
                known.add(page.shape)
                level = TiffPageSeries([page], page.shape, page.dtype, page.axes, kind=series.kind)
                series.levels.append(level)
        series.levels.sort(key=lambda level: level.size, reverse=True)


def _region(
    slide: TiffSlide, level: int, count: int, plane: int, y0: int, y1: int, x0: int, x1: int
) -> NDArray[Any]:
    del plane  # There is one.
    # Places are given in pixels of level 0, and rounded down on the way to the level.
    by = slide.level_downsamples[level]
    corner = [
        next(k for k in range(int(n * by), int(n * by) + 3) if int(k / by) == n) for n in (x0, y0)
    ]
    block = slide.read_region(tuple(corner), level, (x1 - x0, y1 - y0), as_array=True)
    return np.moveaxis(block[..., :count], -1, 0)
