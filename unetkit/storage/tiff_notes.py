"""What OME and ImageJ wrote into a TIFF beside the pixels: pixel size and channel names."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from unetkit.storage.pixel_size import micrometres

# What ImageJ writes for a picture that was never calibrated.
PRINTING = ("inch", "pixel", "pixels", "")


def pixel_size(tif: Any) -> dict[str, float] | None:
    """Return micrometres by axis where OME or ImageJ metadata say so.

    Parameters
    ----------
    tif : tifffile.TiffFile
        An open file.

    Returns
    -------
    dict of str to float, or None
        At least y and x. The resolution of any other TIFF is a printing resolution.
    """
    sizes = _ome_sizes(tif) if tif.is_ome else _imagej_sizes(tif) if tif.is_imagej else {}
    known = {axis: size for axis, size in sizes.items() if size is not None}
    return known if {"y", "x"} <= set(known) else None


def channel_names(tif: Any, channels: int) -> tuple[str, ...]:
    """Return the names that OME metadata give the channels, or the colours of an RGB file.

    Parameters
    ----------
    tif : tifffile.TiffFile
        An open file.
    channels : int
        How many there are.
    """
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
