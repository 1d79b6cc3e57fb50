"""Whatever bioio opens, where it and its reader for the format are installed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit import ImageFile, choose_scene, reading
from unetkit.errors import InputError, ResourceError
from unetkit_microscopes.asked import arranged, check_there, known_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def open_other(
    path: str, *, axes: str | None = None, labels: bool = False, scene: str | None = None
) -> ImageFile:
    """Look into one scene of a file that bioio opens; a ResourceError where it can open none such.

    The rest is as `asked` says of every reader.
    """
    check_there(path, labels=labels)
    with reading(path):
        image = _opened(path)
        names = tuple(map(str, image.scenes)) if len(image.scenes) > 1 else ()
        number = choose_scene(scene, names, path=path)
        image.set_scene(number)
        pixels, order = _pixels(image)
        sizes = dict(zip(order, pixels.shape, strict=True))
        names_of = tuple(map(str, image.channel_names or ()))
        names_of = () if all(map(str.isdecimal, names_of)) else names_of
        pixel_size, dtype = _pixel_size(image), pixels.dtype
    samples = sizes.pop("s", 1)
    depth, sizes["c"] = sizes["z"], sizes["c"] * samples
    letters = arranged(sizes, path, axes=axes)

    @contextmanager
    def regions() -> Iterator[Any]:
        with reading(path):

            def region(plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
                part = pixels[plane // depth, :, plane % depth, y0:y1, x0:x1]
                block = np.asarray(part.compute(scheduler="synchronous"))
                if samples > 1:
                    block = np.moveaxis(block, -1, 1).reshape(-1, y1 - y0, x1 - x0)
                return block

            yield region

    fit = "c" in letters and len(set(names_of)) == len(names_of) == sizes["c"]
    return ImageFile.of_regions(
        path,
        regions,
        axes=letters,
        shape=[sizes[axis] for axis in letters],
        dtype=dtype,
        pixel_size=pixel_size,
        channel_names=names_of if fit else (),
        scenes=names,
        scene=names[number] if names else "",
    )


def _opened(path: str) -> Any:
    suffix = Path(path).suffix
    try:
        from bioio import BioImage
        from bioio.plugins import get_plugins
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError as error:
        raise ResourceError(
            f"bioio must be installed to read {suffix}; run"
            " pip install 'unetkit-microscopes[bioio]'"
        ) from error
    try:
        return BioImage(path)
    except UnsupportedFileFormatError as error:
        if any(path.lower().endswith(end) for end in get_plugins(use_cache=True)):
            raise InputError(
                f"image file must be one that the reader of bioio for {suffix} takes, got {path!r};"
                " it may be damaged or cut short: copy it again, or save it as OME-TIFF"
            ) from error
        reason = " ".join(str(error).split())
        raise ResourceError(
            f"a reader of bioio for {suffix} must be installed and take {path!r}, got"
            f" {reason:.300}; install one, such as bioio-bioformats"
        ) from error


def _pixels(image: Any) -> tuple[Any, str]:
    """Return all pixels, of which none is read yet, and their axes.

    BioImage gives the name of one channel to several that a reader has no names for, and fails.
    """
    try:
        return image.dask_data, image.dims.order.lower()
    except ValueError:
        from bioio_base.transforms import reshape_data

        found = image.reader.xarray_dask_data
        order = "TCZYXS" if "S" in found.dims else "TCZYX"
        if set(found.dims) - set(order):
            raise
        return reshape_data(found.data, "".join(found.dims), order), order.lower()


def _pixel_size(image: Any) -> dict[str, float] | None:
    """Return micrometres; bioio says 0 or nothing where they are unknown."""
    told = image.physical_pixel_sizes
    found = {axis: getattr(told, axis.upper(), None) for axis in "yxz"}
    return known_sizes({a: float(size) for a, size in found.items() if size and 0 < size < np.inf})
