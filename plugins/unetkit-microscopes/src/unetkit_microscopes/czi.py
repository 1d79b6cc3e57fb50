"""Zeiss CZI, scene by scene, by pylibCZIrw."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from pylibCZIrw import czi

from unetkit import ImageFile, choose_scene, reading
from unetkit.errors import InputError
from unetkit_microscopes.asked import arranged, check_there, known_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# By pixel type: the kind of number, and how many lie in a pixel, blue first.
KINDS = {
    "Gray8": ("uint8", 1),
    "Gray16": ("uint16", 1),
    "Gray32Float": ("float32", 1),
    "Bgr24": ("uint8", 3),
    "Bgr48": ("uint16", 3),
}
RGB = ("red", "green", "blue")


def open_czi(
    path: str, *, axes: str | None = None, labels: bool = False, scene: str | None = None
) -> ImageFile:
    """Look into a CZI at full size; what of a scene was never scanned reads as 0.

    The rest is as `asked` says of every reader.
    """
    check_there(path, labels=labels)
    with reading(path), czi.open_czi(path) as file:
        root = ElementTree.fromstring(file.raw_metadata)
        rectangles = file.scenes_bounding_rectangle_no_pyramid
        numbers = sorted(rectangles)
        names = _scene_names(root, numbers)
        chosen = choose_scene(scene, names, path=path)
        number = numbers[chosen] if numbers else None
        where = file.total_bounding_rectangle_no_pyramid if number is None else rectangles[number]
        sizes = {
            name.lower(): end - start for name, (start, end) in file.total_bounding_box.items()
        }
        types = [kind for _, kind in sorted(file.pixel_types.items())]
    kinds = [KINDS.get(kind, ("uint8", 0)) for kind in types]
    samples = kinds[0][1]
    if not samples or {count for _, count in kinds} != {samples}:
        raise InputError(
            f"CZI must have grey or colours of one kind, got {', '.join(types)} in {path!r};"
            " export it as OME-TIFF"
        )
    stops = sizes["c"]
    sizes = {**sizes, "c": stops * samples, "y": where.h, "x": where.w}
    letters = arranged(sizes, path, axes=axes)
    dtype = np.result_type(*(kind for kind, _ in kinds))
    read = partial(_read, stops=stops, depth=sizes["z"], corner=(where.y, where.x), dtype=dtype)

    @contextmanager
    def regions() -> Iterator[Any]:
        with reading(path), czi.open_czi(path) as file:
            yield partial(read, file, number)

    told = _channel_names(root, stops) if samples == 1 else RGB if stops == 1 else ()
    return ImageFile.of_regions(
        path,
        regions,
        axes=letters,
        shape=[sizes[axis] for axis in letters],
        dtype=dtype,
        pixel_size=_pixel_size(root),
        channel_names=told if "c" in letters else (),
        scenes=names,
        scene=names[chosen] if names else "",
    )


def _read(
    file: Any,
    number: int | None,
    plane: int,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    *,
    stops: int,
    depth: int,
    corner: tuple[int, int],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    roi = (corner[1] + x0, corner[0] + y0, x1 - x0, y1 - y0)
    blocks = []
    for stop in range(stops):
        at = {"T": plane // depth, "Z": plane % depth, "C": stop}
        pixels = file.read(plane=at, scene=number, roi=czi.Rectangle(*roi))
        blocks.append(np.moveaxis(pixels[..., ::-1], -1, 0).astype(dtype))
    return np.concatenate(blocks)


def _scene_names(root: ElementTree.Element, numbers: list[int]) -> tuple[str, ...]:
    """Return the names of scenes, or their numbers where not all have names of their own."""
    listed = root.iterfind(".//Information/Image/Dimensions/S/Scenes/Scene")
    named = {scene.get("Index"): scene.get("Name") for scene in listed}
    names = tuple(named.get(str(number)) or str(number) for number in numbers)
    return names if len(set(names)) == len(names) else tuple(map(str, numbers))


def _channel_names(root: ElementTree.Element, stops: int) -> tuple[str, ...]:
    listed = root.iterfind(".//Information/Image/Dimensions/Channels/Channel")
    names = tuple(channel.get("Name") or "" for channel in listed)
    return names if len(set(names)) == len(names) == stops and all(names) else ()


def _pixel_size(root: ElementTree.Element) -> dict[str, float] | None:
    """Return micrometres; the file has metres, and 0 or nothing where it does not know."""
    found = {}
    for item in root.iterfind(".//Scaling/Items/Distance"):
        metres = float(item.findtext("Value") or 0)
        if 0 < metres < np.inf:
            # Digits beyond the twelfth come of the factor.
            found[(item.get("Id") or "").lower()] = float(f"{metres * 1e6:.12g}")
    return known_sizes(found)
