"""Leica LIF, image by image, by liffile."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from liffile import LifFile

from unetkit import ImageFile, choose_scene, reading
from unetkit.errors import InputError
from unetkit_microscopes.asked import arranged, check_there, known_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Emission and excitation wavelengths, which are the channels where there are no others.
SPECTRA = ("λ", "Λ")
BLUE = 3  # as ChannelTag
ONE = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "nm": 1e-3, "inch": 25400.0}


def open_lif(
    path: str, *, axes: str | None = None, labels: bool = False, scene: str | None = None
) -> ImageFile:
    """Look into one image of a LIF; its scenes are called by their paths in the project.

    The rest is as `asked` says of every reader.
    """
    check_there(path, labels=labels)
    with reading(path), LifFile(path) as file:
        names = _names([image.path for image in file.images])
        if not names:
            raise InputError(f"LIF must hold an image, got none in {path!r}; save it again")
        ends = [image.memory_block.offset + image.memory_block.size for image in file.images]
        there = Path(path).stat().st_size
        if max(ends) > there:
            raise InputError(
                f"LIF must be whole, got {there} of {max(ends)} bytes of {path!r}; it was cut"
                " short: copy it again"
            )
        number = choose_scene(scene, names, path=path)
        image = file.images[number]
        stored = tuple(getattr(image, "_shape_stored", None) or image.shape)
        dtype, offset, order = image.dtype, image.memory_block.offset, _letters(image.sizes)
        lengths = dict(zip(order, image.shape, strict=True))
        tags = [
            (int(channel.get("BytesInc")), int(channel.get("ChannelTag")), channel.get("LUTName"))
            for channel in image.xml_element.findall(".//Channels/ChannelDescription")
        ]
        pixel_size = _pixel_size(image, order)
    colours = "s" in order
    if colours and "c" not in order:
        order, lengths["c"] = order.replace("s", "c"), lengths.pop("s")
    letters = arranged(lengths, path, axes=axes)
    tags.sort(key=lambda tag: tag[0])
    blue_first = colours and bool(tags) and tags[0][1] == BLUE
    view = tuple(map(slice, image.shape))

    @contextmanager
    def regions() -> Iterator[Any]:
        with reading(path):

            def region(plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
                # A map of the file for each part, so that what was read does not stay in memory.
                pixels = np.memmap(path, dtype, "r", offset, stored)[view]
                depth = lengths.get("z", 1)
                at = {"t": plane // depth, "z": plane % depth, "c": slice(None)}
                at.update({"y": slice(y0, y1), "x": slice(x0, x1)})
                block = pixels[tuple(at.get(letter, 0) for letter in order)]
                left = "".join(letter for letter in order if letter in "cyx")
                if "c" not in left:
                    return np.array(block.transpose([left.index(a) for a in "yx"])[None])
                block = block.transpose([left.index(axis) for axis in "cyx"])
                return np.array(block[::-1] if blue_first else block)

            yield region

    names_of = ("red", "green", "blue") if colours else tuple(tag[2] or "" for tag in tags)
    count = lengths.get("c", 1)
    fit = len(names_of) == len(set(names_of)) == count and all(names_of) and "c" in letters
    return ImageFile.of_regions(
        path,
        regions,
        axes=letters,
        shape=[lengths.get(axis, 1) for axis in letters],
        dtype=dtype.newbyteorder("="),
        pixel_size=pixel_size,
        channel_names=names_of if fit else (),
        scenes=names,
        scene=names[number],
    )


def _names(paths: list[str]) -> tuple[str, ...]:
    """Tell images of one name apart by their numbers."""
    return tuple(
        name if paths.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(paths)
    )


def _letters(sizes: Mapping[str, int]) -> str:
    """Return what the axes of the array stand for; a spectrum for channels, z for a lacking y."""
    order = list(sizes)
    spectra = [axis for axis in order if axis in SPECTRA]
    if len(spectra) == 1 and "C" not in order:
        order[order.index(spectra[0])] = "C"
    if "Y" not in order and "Z" in order:
        order[order.index("Z")] = "Y"
    return "".join(order).lower()


def _pixel_size(image: Any, order: str) -> dict[str, float] | None:
    """Return micrometres: the length of an axis reaches from the first centre to the last."""
    found = {}
    steps = dict(zip(order, image.sizes, strict=True))
    for item in image.xml_element.findall(".//Dimensions/DimensionDescription"):
        count, length = int(item.get("NumberOfElements")), abs(float(item.get("Length")))
        unit = ONE.get(item.get("Unit") or "")
        label = {1: "X", 2: "Y", 3: "Z"}.get(int(item.get("DimID")))
        axis = next((letter for letter, name in steps.items() if name == label), None)
        if axis is not None and unit and count > 1 and 0 < length < np.inf:
            found[axis] = float(f"{length * unit / (count - 1):.12g}")
    return known_sizes(found)
