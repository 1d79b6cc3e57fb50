"""OME-Zarr documents, of 0.5 and 0.4; and this library's own attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import InputError, UsageError
from unetkit.storage.image_file import are_axes
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.pixel_size import OME_UNITS
from unetkit.storage.urls import inside, stem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = 1
OmeVersion = Literal["0.5", "0.4"]
# The format of Zarr below each version of OME-Zarr.
FORMATS: dict[OmeVersion, Literal[2, 3]] = {"0.5": 3, "0.4": 2}
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
COLORS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")


@dataclass(frozen=True)
class Multiscale:
    """What an image group says about its levels."""

    axes: str
    name: str
    paths: tuple[str, ...]  # full URLs, the largest level first
    pixel_size: dict[str, float] | None  # in micrometres
    version: str


def check_axes(axes: str, ndim: int, *, url: str) -> str:
    """Return axis letters in lower case, if they fit an array of `ndim` dimensions."""
    low = axes.lower()
    if not are_axes(low, ndim):
        raise UsageError(
            f"axes must be {ndim} different letters of 'tczyx' with y and x for {url}, "
            f"got {axes!r}; name one letter for each dimension in stored order"
        )
    return low


def provenance_marks(node: GroupNode | ArrayNode) -> dict[str, Any]:
    """Return the attributes that this library wrote, without those that only it needs."""
    own = node.attributes.get("unetkit")
    return dict(own) if isinstance(own, dict) else {}


def ome(node: GroupNode) -> dict[str, Any]:
    """Return the OME part of the attributes: under `ome` in 0.5, at the top in 0.4."""
    inner = node.attributes.get("ome")
    return inner if isinstance(inner, dict) else node.attributes


def read_multiscale(node: GroupNode) -> Multiscale | None:
    """Read the first multiscale image of a group; None where it has none.

    What makes no sense, or leads out of the store, is refused.
    """
    listed = ome(node).get("multiscales")
    if not isinstance(listed, list) or not listed:
        return None
    try:
        document = listed[0]
        axes = [axis if isinstance(axis, str) else axis["name"] for axis in document["axes"]]
        letters = "".join(axes).lower()
        if not are_axes(letters, len(axes)):
            raise ValueError(f"axes {axes}")
        paths = [dataset["path"] for dataset in document["datasets"]]
        pixel_size = _pixel_size(document, letters)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"multiscales of {node.url} must follow OME-Zarr 0.4 or 0.5, got: {error!r:.100}; "
            "name the array inside it, with --axes"
        ) from error
    if not paths:
        raise InputError(f"multiscales of {node.url} must list a level, got none")
    return Multiscale(
        axes=letters,
        name=str(document.get("name") or stem(node.url)),
        paths=tuple(inside(node.url, path, what="a level's path") for path in paths),
        pixel_size=pixel_size,
        version=str(ome(node).get("version") or document.get("version") or "0.4"),
    )


def _pixel_size(document: dict[str, Any], axes: str) -> dict[str, float] | None:
    """Pixel size where y and x have a unit of length: without one a scale says nothing."""
    scale = [1.0] * len(axes)
    for holder in (document, document["datasets"][0]):
        for transformation in holder.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                factors = [float(factor) for factor in transformation["scale"]]
                if len(factors) != len(axes):
                    raise ValueError(f"scale {factors} for axes {axes!r}")
                scale = [a * b for a, b in zip(scale, factors, strict=True)]
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in document["axes"]]
    sizes = {
        axis: factor * OME_UNITS[unit]
        for axis, factor, unit in zip(axes, scale, units, strict=True)
        if axis in "zyx" and unit in OME_UNITS
    }
    return sizes if {"y", "x"} <= set(sizes) else None


def label_names(node: GroupNode | ArrayNode | None) -> list[Any]:
    """Return the names that the group `labels` of an image lists."""
    if not isinstance(node, GroupNode):
        return []
    names = ome(node).get("labels", [])
    if not isinstance(names, list):
        above = node.url.removesuffix("/labels")
        raise InputError(f"labels of {above} must be a list of names, got {names!r:.100}")
    return names


def channel_names(node: GroupNode, count: int) -> tuple[str, ...]:
    """Return the names of the channels; their numbers where they have none."""
    names = provenance_marks(node).get("channel_names")
    if not isinstance(names, list) or len(names) != count:
        omero = ome(node).get("omero")
        channels = omero.get("channels", []) if isinstance(omero, dict) else []
        names = [channel.get("label") for channel in channels if isinstance(channel, dict)]
    if len(names) != count:
        names = [None] * count
    return tuple(str(name or number) for number, name in enumerate(names))


@dataclass(frozen=True)
class NewGroup:
    """What is said of a new image group with one level."""

    kind: str  # image, labels or weights: what it is to this library
    name: str
    axes: str
    pixel_size: Mapping[str, float] | None
    own: Mapping[str, Any]  # what goes under `unetkit` besides schema and kind
    extra: Mapping[str, Any]  # what goes into the OME part besides the levels
    zarr_format: Literal[2, 3] = 3

    def attributes(self) -> dict[str, Any]:
        """Write the attributes of the group."""
        levels = multiscales(
            name=self.name, axes=self.axes, pixel_size=self.pixel_size, factors=[(1, 1)]
        )
        document = {"multiscales": levels, **self.extra}
        return {
            **ome_part(document, zarr_format=self.zarr_format),
            "unetkit": {**self.own, "schema": SCHEMA, "kind": self.kind},
        }


def ome_part(document: Mapping[str, Any], *, zarr_format: Literal[2, 3]) -> dict[str, Any]:
    """Place OME metadata in a group's attributes: under `ome` in 0.5, at the top in 0.4.

    >>> ome_part({"labels": ["cells"]}, zarr_format=3)
    {'ome': {'version': '0.5', 'labels': ['cells']}}
    >>> ome_part({"labels": ["cells"]}, zarr_format=2)
    {'labels': ['cells']}
    """
    if zarr_format == 3:
        return {"ome": {"version": "0.5", **document}}
    placed = dict(document)
    if "multiscales" in placed:
        placed["multiscales"] = [{**entry, "version": "0.4"} for entry in placed["multiscales"]]
    for key in ("omero", "image-label"):
        if key in placed:
            placed[key] = {**placed[key], "version": "0.4"}
    return placed


def multiscales(
    *,
    name: str,
    axes: str,
    pixel_size: Mapping[str, float] | None,
    factors: Sequence[tuple[int, int]],
    nearest: bool = True,
) -> list[dict[str, Any]]:
    """Describe levels; `factors` says how many pixels of level 0 one pixel covers in y and x.

    A pixel that is the mean of a block lies at the block's centre, half a block further on than the
    first pixel; a pixel that was merely kept lies where it was.
    """
    sizes = dict(pixel_size or {})
    described: list[dict[str, Any]] = [{"name": axis, "type": TYPES[axis]} for axis in axes]
    for axis in described:
        if axis["name"] in sizes:
            axis["unit"] = "micrometer"
    datasets = []
    for level, (fy, fx) in enumerate(factors):
        factor = {"y": fy, "x": fx}
        scale = [float(sizes.get(a, 1.0) * factor.get(a, 1)) for a in axes]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if not nearest and (fy, fx) != (1, 1):
            shift = [float(sizes.get(a, 1.0) * (factor.get(a, 1) - 1) / 2) for a in axes]
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    method = "nearest" if nearest else "mean"
    return [{"name": name, "axes": described, "datasets": datasets, "type": method}]


def omero(names: Sequence[str]) -> dict[str, Any]:
    """Describe channels of 8 bits for viewers; the display range of others is not known here."""
    colors = ("FFFFFF",) if len(names) == 1 else COLORS
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {
        "channels": [
            {"label": name, "color": colors[i % len(colors)], "active": True, "window": window}
            for i, name in enumerate(names)
        ]
    }


def array_below(url: str) -> ArrayNode:
    """Read the metadata of an array that other metadata names."""
    node = read_node(url)
    if not isinstance(node, ArrayNode):
        raise InputError(f"{url} must be an array, got none there; restore it from the original")
    return node


def listed_samples(node: GroupNode) -> list[tuple[str, str, str]]:
    """Return (name, source, URL) of the samples that a dataset's metadata lists."""
    listed = provenance_marks(node).get("samples")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"samples of {node.url} must be a list, got {listed!r:.100}")
    found = []
    for entry in listed:
        name = entry.get("name")
        place = inside(node.url, name, what="a sample's name")
        found.append((str(name), str(entry.get("source") or name), place))
    return found
