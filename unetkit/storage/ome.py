"""OME-Zarr documents, of 0.5 and 0.4, to be read also of 0.6; and this library's own attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree  # only to write: nothing foreign is parsed

from unetkit.errors import InputError, UsageError
from unetkit.storage.image_file import are_axes
from unetkit.storage.nodes import ArrayNode, GroupNode, judging, read_node
from unetkit.storage.pixel_size import OME_UNITS
from unetkit.storage.urls import inside, is_segment, stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCHEMA = 1
OmeVersion = Literal["0.5", "0.4"]
# The format of Zarr below each version of OME-Zarr.
FORMATS: dict[OmeVersion, Literal[2, 3]] = {"0.5": 3, "0.4": 2}
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
# Our own choice: an image has a handful of label images; what lists more is damaged or hostile.
LABELS_LIMIT = 10_000
COLORS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")


# Names that others give to axes, besides their letters.
AXIS_WORDS = {
    **{"time": "t", "channel": "c", "channels": "c", "depth": "z", "height": "y", "width": "x"},
    **{"plane": "z", "slice": "z", "row": "y", "rows": "y", "column": "x", "columns": "x"},
}


@dataclass(frozen=True)
class Steps:
    """A scale, then a translation, along each axis that has any."""

    scale: Mapping[str, float] = field(default_factory=dict)
    shift: Mapping[str, float] = field(default_factory=dict)

    def then(self, other: Steps) -> Steps:
        """Return one that does this and then another."""
        axes = {*self.scale, *self.shift, *other.scale, *other.shift}
        scale = {axis: self.scale.get(axis, 1.0) * other.scale.get(axis, 1.0) for axis in axes}
        shift = {
            axis: self.shift.get(axis, 0.0) * other.scale.get(axis, 1.0)
            + other.shift.get(axis, 0.0)
            for axis in axes
        }
        return Steps(scale, shift)

    def document(self, axes: str) -> list[dict[str, Any]]:
        """Write it down as OME-Zarr does."""
        scale = [float(self.scale.get(axis, 1.0)) for axis in axes]
        shift = [float(self.shift.get(axis, 0.0)) for axis in axes]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        return [*steps, {"type": "translation", "translation": shift}] if any(shift) else steps


@dataclass(frozen=True)
class Placement:
    """Where an image lies: what its largest level and the whole say, and the unit of each axis.

    Whatever is made of the image bears the same, so that a viewer draws it in the same place.
    """

    level: Steps = Steps()
    whole: Steps = Steps()
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def scale(self) -> dict[str, float]:
        """The size of a pixel along each axis, in the axis's own unit, perhaps in none."""
        return dict(self.level.then(self.whole).scale)

    @property
    def pixel_size(self) -> dict[str, float] | None:
        """Micrometres, where y and x have a unit of length: without one a scale says nothing."""
        sizes = {
            axis: abs(size) * OME_UNITS[self.units[axis]]
            for axis, size in self.scale.items()
            if axis in "zyx" and self.units.get(axis) in OME_UNITS
        }
        return sizes if {"y", "x"} <= set(sizes) else None


def placement_of(pixel_size: Mapping[str, float] | None) -> Placement:
    """Place an image of which no more than the size of its pixels is known, in micrometres."""
    sizes = dict(pixel_size or {})
    return Placement(Steps(sizes), units=dict.fromkeys(sizes, "micrometer"))


@dataclass(frozen=True)
class Multiscale:
    """What an image group says about its levels."""

    axes: str
    name: str
    paths: tuple[str, ...]  # full URLs, the largest level first
    placement: Placement
    version: str
    # How many pixels of the largest level one of each level is long, along the axes that say it.
    factors: tuple[Mapping[str, float], ...] = ()

    @property
    def pixel_size(self) -> dict[str, float] | None:
        """The size of a pixel in micrometres, where it is known."""
        return self.placement.pixel_size


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
    rule = f"multiscales of {node.url} must follow OME-Zarr 0.1 to 0.6"
    with judging(rule, "name the array inside it, with --axes"):
        document = listed[0]
        version = str(ome(node).get("version") or document.get("version") or "0.4")
        if "coordinateSystems" in document:
            document = _without_systems(document, url=node.url)
        if version in ("0.1", "0.2"):
            document = {"axes": list("tczyx"), **document}  # which there were no others
        if "axes" not in document:
            raise InputError(
                f"{rule}, got version {version:.20}, whose axes are described otherwise; "
                "name the array inside it, with --axes"
            )
        letters = "".join(map(_letter, document["axes"]))
        if not are_axes(letters, len(document["axes"])):
            raise ValueError(f"axes {document['axes']!r:.200}")
        paths = [dataset["path"] for dataset in document["datasets"]]
        if not paths:
            raise ValueError("no level")
        return Multiscale(
            axes=letters,
            name=str(document.get("name") or stem(node.url)),
            paths=tuple(inside(node.url, path, what="a level's path") for path in paths),
            placement=_placement(document, letters),
            version=version,
            factors=_factors(document, letters),
        )


def _without_systems(document: dict[str, Any], *, url: str) -> dict[str, Any]:
    """Say as 0.5 does what 0.6 says in coordinate systems.

    The intrinsic system is the one to which all levels lead. Whatever leads on from there says
    where else the image may be shown, and nothing of the size of its pixels.
    """
    levels, names = [], set()
    for dataset in document["datasets"]:
        steps = dataset["coordinateTransformations"]
        levels.append({"path": dataset["path"], "coordinateTransformations": _flat(steps, url=url)})
        ends = [step.get("output") for step in steps]
        names |= {end.get("name") if isinstance(end, dict) else end for end in ends}
    found = [one for one in document["coordinateSystems"] if one["name"] in names]
    if len(names) != 1 or len(found) != 1:
        raise InputError(
            f"levels of {url} must lead to one of its coordinate systems, got"
            f" {', '.join(sorted(map(str, names)))!r:.100}; name the array inside it, with --axes"
        )
    return {"name": document.get("name"), "axes": found[0]["axes"], "datasets": levels}


def _flat(steps: Iterable[dict[str, Any]], *, url: str) -> list[dict[str, Any]]:
    """List the scales and translations of transformations that are made of these alone."""
    found: list[dict[str, Any]] = []
    for step in steps:
        if step["type"] == "sequence":
            found += _flat(step["transformations"], url=url)
        elif step["type"] in ("scale", "translation"):
            found.append(step)
        elif step["type"] != "identity":
            raise InputError(
                f"levels of {url} must be placed by scales and translations, got a transformation"
                f" of the type {step['type']!r:.40}; write it with these, or name the array inside"
                " it, with --axes"
            )
    return found


def _letter(axis: Any) -> str:
    """Return the letter of an axis by its type, or by its name."""
    name, kind = (axis, None) if isinstance(axis, str) else (axis["name"], axis.get("type"))
    return {"channel": "c", "time": "t"}.get(str(kind)) or axis_letter(name)


def axis_letter(name: str) -> str:
    """Return the letter that the name of an axis stands for, or else the name in lower case.

    >>> axis_letter("Channel"), axis_letter("X")
    ('c', 'x')
    """
    return AXIS_WORDS.get(name.lower(), name.lower())


def _placement(document: dict[str, Any], axes: str) -> Placement:
    units = {
        letter: axis["unit"]
        for letter, axis in zip(axes, document["axes"], strict=True)
        if isinstance(axis, dict) and isinstance(axis.get("unit"), str)
    }
    level, whole = (
        _steps(holder.get("coordinateTransformations", ()), axes)
        for holder in (document["datasets"][0], document)
    )
    # A pixel of no size, or of one that is no number, says nothing about where things lie.
    both = level.then(whole)
    lost = {axis for axis, size in both.scale.items() if not (size and math.isfinite(size))}
    lost |= {axis for axis, shift in both.shift.items() if not math.isfinite(shift)}
    level, whole = (
        Steps(*({a: n for a, n in found.items() if a not in lost} for found in (s.scale, s.shift)))
        for s in (level, whole)
    )
    return Placement(level, whole, {axis: unit for axis, unit in units.items() if axis not in lost})


def _factors(document: dict[str, Any], axes: str) -> tuple[dict[str, float], ...]:
    levels = [
        _steps(dataset.get("coordinateTransformations", ()), axes).scale
        for dataset in document["datasets"]
    ]
    return tuple(
        {
            axis: level[axis] / first
            for axis, first in levels[0].items()
            if first and level.get(axis) and math.isfinite(level[axis] / first)
        }
        for level in levels
    )


def _steps(transformations: Iterable[dict[str, Any]], axes: str) -> Steps:
    """Read the scales and translations that are to be applied one after the other."""
    found = Steps()
    for transformation in transformations:
        kind = transformation.get("type")
        if kind not in ("scale", "translation"):
            continue
        numbers = transformation[kind]
        if len(numbers) != len(axes) or any(type(n) not in (int, float) for n in numbers):
            raise ValueError(f"{kind} {numbers} for axes {axes!r}")
        values = dict(zip(axes, map(float, numbers), strict=True))
        found = found.then(Steps(values) if kind == "scale" else Steps(shift=values))
    return found


def told_pixel_size(node: GroupNode) -> dict[str, float] | None:
    """Return the size of a pixel that a user told when an image did not say it."""
    sizes = provenance_marks(node).get("pixel_size")
    if not isinstance(sizes, dict) or not {"y", "x"} <= set(sizes):
        return None
    known = all(type(n) in (int, float) and 0 < n < math.inf for n in sizes.values())
    return {axis: float(size) for axis, size in sizes.items()} if known else None


def label_names(node: GroupNode | ArrayNode | None) -> list[Any]:
    """Return the names that the group `labels` of an image lists."""
    if not isinstance(node, GroupNode):
        return []
    names = ome(node).get("labels", [])
    if not isinstance(names, list):
        above = node.url.removesuffix("/labels")
        raise InputError(f"labels of {above} must be a list of names, got {names!r:.100}")
    if len(names) > LABELS_LIMIT:
        raise InputError(
            f"labels of {node.url.removesuffix('/labels')} must be at most {LABELS_LIMIT:,} names, "
            f"got {len(names):,}; write the store again with the tool that made it"
        )
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


# Where the layer lies, below a prediction, that says how unsure those were who looked.
UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class NewGroup:
    """What is said of a new image group with one level."""

    kind: str  # image, labels, weights or uncertainty: what it is to this library
    name: str
    axes: str
    placement: Placement
    own: Mapping[str, Any]  # what goes under `unetkit` besides schema and kind
    extra: Mapping[str, Any]  # what goes into the OME part besides the levels
    zarr_format: Literal[2, 3] = 3

    def attributes(self) -> dict[str, Any]:
        """Write the attributes of the group."""
        levels = multiscales(
            name=self.name, axes=self.axes, placement=self.placement, factors=[(1, 1)]
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
    for key in ("omero", "image-label", "plate", "well"):
        if key in placed:
            placed[key] = {**placed[key], "version": "0.4"}
    return placed


def multiscales(
    *,
    name: str,
    axes: str,
    placement: Placement,
    factors: Sequence[tuple[int, int]],
    nearest: bool = True,
) -> list[dict[str, Any]]:
    """Describe levels; `factors` says how many pixels of level 0 one pixel covers in y and x.

    A pixel that is the mean of a block lies at the block's centre, half a block further on than the
    first pixel; a pixel that was merely kept lies where it was.
    """
    described: list[dict[str, Any]] = [{"name": axis, "type": TYPES[axis]} for axis in axes]
    for axis in described:
        if axis["name"] in placement.units:
            axis["unit"] = placement.units[axis["name"]]
    datasets = []
    for level, (fy, fx) in enumerate(factors):
        shift = {} if nearest else {"y": (fy - 1) / 2, "x": (fx - 1) / 2}
        steps = Steps({"y": fy, "x": fx}, shift).then(placement.level)
        datasets.append({"path": str(level), "coordinateTransformations": steps.document(axes)})
    method = "nearest" if nearest else "mean"
    document = {"name": name, "axes": described, "datasets": datasets, "type": method}
    if placement.whole != Steps():
        document["coordinateTransformations"] = placement.whole.document(axes)
    return [document]


# What a folder of images is called by viewers that know the layout of bioformats2raw, and where it
# lists them: under `series`, and in OME-XML, which napari goes by.
COLLECTION = "OME"
COLLECTION_XML = "METADATA.ome.xml"
LAYOUT = {"bioformats2raw.layout": 3}
_XML = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_XML_TYPES = {"float16": "float", "float32": "float", "float64": "double", "bool": "uint8"}


def collection_xml(images: Sequence[tuple[str, str, Multiscale, ArrayNode]]) -> str:
    """Describe images, each by its path, name, levels and largest level, in OME-XML.

    References
    ----------
    OME-Zarr 0.5, "bioformats2raw.layout" (transitional); OME-XML of 2016-06.
    """
    root = ElementTree.Element("OME", {"xmlns": _XML})
    for number, (path, name, multiscale, array) in enumerate(images):
        # The number after the colon is the path, for those who know no list of series.
        image = ElementTree.SubElement(root, "Image", {"ID": f"Image:{path}", "Name": name})
        sizes = dict(zip(multiscale.axes, array.shape, strict=True))
        kind = array.dtype.name
        about = {"ID": f"Pixels:{number}", "DimensionOrder": "XYZCT"}
        about["Type"] = _XML_TYPES.get(kind, kind if kind[-2:] != "64" else "double")
        about |= {f"Size{axis}": str(sizes.get(axis.lower(), 1)) for axis in "XYZCT"}
        for axis, size in (multiscale.pixel_size or {}).items():
            about[f"PhysicalSize{axis.upper()}"] = repr(float(size))
        pixels = ElementTree.SubElement(image, "Pixels", about)
        ElementTree.SubElement(pixels, "MetadataOnly")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False)


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


@dataclass(frozen=True)
class ListedSample:
    """What the list of a dataset says of a sample."""

    name: str
    source: str  # what it was made from
    group: str | None = None  # the animal, patient or well that it belongs to, if that was told

    def to_dict(self) -> dict[str, str]:
        """Return it as it is listed."""
        told = {"name": self.name, "source": self.source}
        return told if self.group is None else {**told, "group": self.group}


def listed_samples(node: GroupNode) -> list[ListedSample]:
    """Return the samples that a dataset's metadata lists, each once."""
    listed = provenance_marks(node).get("samples")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"samples of {node.url} must be a list, got {listed!r:.100}")
    found: dict[str, ListedSample] = {}
    for entry in listed:
        name = entry.get("name")
        # No link is followed here: of many samples that would take longer than reading the list.
        if not is_segment(name):
            raise InputError(
                f"a sample's name in the metadata of {node.url} must be a plain folder name, got "
                f"{name!r:.100}; write the store again with the tool that made it"
            )
        if name in found:
            raise InputError(
                f"samples of {node.url} must have different names, got {name!r:.100} twice; import "
                "the data again"
            )
        group = entry.get("group")
        found[name] = ListedSample(
            name, str(entry.get("source") or name), str(group) if group else None
        )
    return list(found.values())
