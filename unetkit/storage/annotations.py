"""Files of outlines to shapes: GeoJSON, COCO, LabelMe, VIA, ImageJ's ROIs, CVAT, ImageScope.

What this module does not know: which pixels a shape has, and which images there are.
"""

from __future__ import annotations

import base64
import glob
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar
from xml.parsers import expat
from zipfile import ZipFile

import numpy as np

from unetkit.errors import InputError, MissingError, ResourceError, UnetkitError
from unetkit.storage.drawings import (
    Drawing,
    Shape,
    as_part,
    as_ring,
    base,
    box_part,
    ellipse,
    rectangles,
    runs_by_row,
)
from unetkit.storage.readers import decode_png, suffixes
from unetkit.storage.urls import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from unetkit.progress import Told
    from unetkit.storage.drawings import Convention, Part

SUFFIXES = (".geojson", ".json", ".roi", ".zip", ".xml")
DECODER = json.JSONDecoder()
# Kinds of shapes that have an area, in any of the formats.
AREAS = {"polygon", "rectangle", "rect", "box", "circle", "ellipse", "oval", "mask"}
AREAS |= {"freehand", "traced"}
# What a class is called among the properties that users name.
CLASS_KEYS = ("class", "label", "category")
# Our own choice: what is packed and claims more is a bomb.
MOST_BYTES = 2**31


def annotation_files(labels: str, *, beside: str) -> list[str]:
    """List the files of outlines that a path leads to; none where it leads to masks.

    A folder leads to outlines where it holds some and nothing else, or the images themselves.
    """
    path = Path(labels)
    if path.is_file():
        return [labels] if path.suffix.lower() in SUFFIXES else []
    if path.is_dir():
        files = list(path.iterdir())
    else:
        files = [Path(one) for one in glob.glob(labels.replace("{stem}", "*"))]  # noqa: PTH207
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    found = [str(file) for file in files if file.suffix.lower() in SUFFIXES]
    masks = len(found) < len(files) and any(file.suffix.lower() in suffixes() for file in files)
    among = Path(beside).is_dir() and path.is_dir() and path.samefile(beside)
    return [] if masks and not among else sorted(found)


def read_annotations(
    path: str,
    *,
    outlines: Convention | None = None,
    told: Told = lambda _: None,
) -> list[Drawing]:
    """Read a file of outlines, whatever program wrote it.

    Parameters
    ----------
    path : str
        GeoJSON, COCO, LabelMe, VIA, ImageJ's ROIs or a zip of them, CVAT's or ImageScope's XML.
    outlines : {"corners", "centres"}, optional
        Where points are counted from; by default as the format has it.
    told : callable
        Takes the share of the file that was read, now and then.

    Returns
    -------
    list of Drawing
        One an image.

    Raises
    ------
    InputError
        If it is of another format or damaged.
    """
    try:
        suffix = Path(path).suffix.lower()
        if suffix == ".xml":
            with Path(path).open("rb") as file:
                size = max(Path(path).stat().st_size, 1)
                drawings = _read_xml(path, file, outlines, told=lambda at: told(at / size))
        else:
            read = _read_rois if suffix in (".roi", ".zip") else _read_json
            drawings = read(path, outlines, told=told)
    except (UnetkitError, MemoryError):
        raise
    except FileNotFoundError as error:
        hint = did_you_mean(path)
        raise MissingError(f"annotations must exist, got nothing at {path!r}; {hint}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"annotations must be readable, got {path!r} ({reason}); save or copy them again"
        ) from error
    return drawings


def members(text: str, told: Told = lambda _: None) -> Iterator[tuple[str, Any]]:
    """Read JSON piece by piece: the values of an object by key, and of its lists each element.

    A list that stands alone has the key "". So the objects of a large file are never in memory
    together. `told` takes the share that was read.
    """
    at = _past_space(text, 0)
    if text[at] == "[":
        yield from _elements(text, at, "", told)
        return
    if text[at] != "{":
        raise ValueError("JSON must be an object or a list")
    at = _past_space(text, at + 1)
    while text[at] != "}":
        _expect(text, at, '"')
        key, at = DECODER.raw_decode(text, at)
        at = _past_space(text, at)
        _expect(text, at, ":")
        at = _past_space(text, at + 1)
        if text[at] == "[":
            at = yield from _elements(text, at, key, told)
        else:
            value, at = DECODER.raw_decode(text, at)
            yield key, value
        at = _next(text, at, "}")


def _elements(text: str, at: int, key: str, told: Told) -> Generator[tuple[str, Any], None, int]:
    at = _past_space(text, at + 1)
    while text[at] != "]":
        value, at = DECODER.raw_decode(text, at)
        yield key, value
        told(at / len(text))
        at = _next(text, at, "]")
    return at + 1


def _next(text: str, at: int, end: str) -> int:
    at = _past_space(text, at)
    if text[at] == end:
        return at
    _expect(text, at, ",")
    return _past_space(text, at + 1)


def _expect(text: str, at: int, sign: str) -> None:
    if text[at] != sign:
        raise ValueError(f"{sign!r} must be at character {at}, got {text[at]!r}")


def _past_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _read_json(path: str, outlines: Convention | None, *, told: Told) -> list[Drawing]:
    """Read shapes as they come, and everything else when all is known."""
    text = Path(path).read_text("utf-8-sig")
    if not text.strip():
        raise ValueError("it is empty")
    drawing = Drawing(path, outlines or "corners")
    objects: list[tuple[Any, Any, Shape]] = []
    kept: dict[str, Any] = {"images": [], "categories": []}
    for key, value in members(text, told):
        there = value if isinstance(value, dict) else {}
        if key in ("features", "") and "geometry" in there:
            _add_feature(drawing, value)
            kept["type"] = "FeatureCollection"
        elif key == "annotations" and "image_id" in there:
            shape = Shape(_coco_parts(value.get("segmentation")), name=str(value.get("name", "")))
            shape = replace(shape, is_mask=isinstance(value.get("segmentation"), dict))
            objects.append((value["image_id"], value.get("category_id"), shape))
        elif key == "shapes" and "shape_type" in {"shape_type": 0, **there}:
            drawing.convention = outlines or "centres"
            _add_labelme(drawing, value)
        elif key in ("images", "categories"):
            kept[key].append(value)
        elif key != "imageData":
            kept[key] = value
    if kept.get("type") in ("Feature", "FeatureCollection"):
        if "geometry" in kept:
            _add_feature(drawing, kept)
        return [drawing]
    if kept["images"]:
        return _coco_drawings(drawing, kept, objects)
    if "imagePath" in kept:
        drawing.image, drawing.shapes = kept["imagePath"], _grouped(drawing)
        if kept.get("imageHeight") and kept.get("imageWidth"):
            drawing.size = (int(kept["imageHeight"]), int(kept["imageWidth"]))
        return [drawing]
    images = kept.get("_via_img_metadata", kept)
    images = [one for one in images.values() if isinstance(one, dict) and "regions" in one]
    if images:
        return [_via_drawing(drawing, image) for image in images]
    raise InputError(
        "annotations must be GeoJSON, COCO, LabelMe or VIA, got a JSON of another kind in"
        f" {path!r}; export them as one of these"
    )


def _add_feature(drawing: Drawing, feature: dict[str, Any]) -> None:
    """Add a feature of GeoJSON (RFC 7946), with the properties that QuPath writes."""
    geometry, marks = feature["geometry"] or {}, feature.get("properties") or {}
    flat: list[str] = []
    parts = _geometry_parts(geometry, flat)
    plane = geometry.get("plane") or {}
    shape = Shape(
        parts,
        label=_class_name(marks),
        name=str(marks.get("name") or ""),
        # QuPath leaves the first plane out.
        plane=(int(plane.get("t", 0)), int(plane.get("z", 0))),
    )
    drawing.add(shape, flat=flat[0] if flat and not parts else None)


def _geometry_parts(geometry: dict[str, Any], flat: list[str]) -> list[Part]:
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        return [part for one in geometry["geometries"] for part in _geometry_parts(one, flat)]
    if kind not in ("Polygon", "MultiPolygon"):
        flat += [str(kind).lower()] if kind else []
        return []
    coordinates = geometry["coordinates"]
    parts = map(as_part, [coordinates] if kind == "Polygon" else coordinates)
    return [part for part in parts if part]


def _class_name(marks: dict[str, Any], *more: str) -> str | None:
    found = marks.get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or ()))
    for key in (*CLASS_KEYS, *more):
        found = found or marks.get(key)
    if isinstance(found, dict):  # boxes to tick
        found = next((name for name, ticked in found.items() if ticked), None)
    return str(found) if found else None


def _coco_parts(segmentation: Any) -> list[Part]:
    """Read rings, which COCO adds up, or runs."""
    if not isinstance(segmentation, dict):
        rings = [np.reshape(np.asarray(ring, float), (-1, 2)) for ring in segmentation or ()]
        return [part for ring in rings if (part := as_part([ring]))]
    high, wide = map(int, segmentation["size"])
    counts = segmentation["counts"]
    counts = _unpacked(counts) if isinstance(counts, str) else list(map(int, counts))
    ends = np.cumsum(counts, dtype=np.int64)
    if min(counts, default=0) < 0 or not len(ends) or ends[-1] != high * wide:
        raise ValueError(f"counts must add up to {high} x {wide}, got {sum(counts)}")
    start, end = ends[0:-1:2], ends[1::2]
    start, end = start[start < end], end[start < end]
    if not len(start):
        return []
    # Runs go down the columns; those that go on in the next are cut there.
    first, columns = start // high, (end - 1) // high - start // high + 1
    runs = np.repeat(np.arange(len(start)), columns)
    x = first[runs] + np.arange(len(runs)) - (np.cumsum(columns) - columns)[runs]
    top = np.maximum(start[runs] - x * high, 0)
    bottom = np.minimum(end[runs] - x * high, high)
    return [rectangles(x, top, x + 1, bottom)]


def _unpacked(text: str) -> list[int]:
    """Unpack counts: six bits a letter, the low ones first, differences from the last but one."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _coco_drawings(
    empty: Drawing, kept: dict[str, Any], objects: list[tuple[Any, Any, Shape]]
) -> list[Drawing]:
    names = {one["id"]: str(one["name"]) for one in kept["categories"]}
    drawings = {}
    for image in kept["images"]:
        size = (image.get("height"), image.get("width"))
        drawings[image["id"]] = Drawing(
            empty.path, empty.convention, str(image["file_name"]), size if all(size) else None
        )
    for image, category, shape in objects:
        drawings[image].add(replace(shape, label=names.get(category)))
    return list(drawings.values())


def _add_labelme(drawing: Drawing, drawn: dict[str, Any]) -> None:
    kind, half = drawn.get("shape_type") or "polygon", drawing.half
    points = as_ring(drawn["points"])
    parts: list[Part] = []
    if kind == "polygon":
        parts = [[points]] if len(points) else []
    elif kind == "rectangle":
        parts = [box_part(*points.min(axis=0), *points.max(axis=0))]
    elif kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        parts = [ellipse(tuple(points[0]), (radius, radius), angle=0, half=half)]
    elif kind == "mask":
        (x, y), far = np.rint(points.min(axis=0)).astype(int), np.rint(points.max(axis=0))
        pixels = decode_png(base64.b64decode(drawn["mask"]), largest=2**30)
        if pixels.shape != (far[1] - y + 1, far[0] - x + 1):
            raise ValueError(f"a mask must fill its box, got {pixels.shape} at x {x}, y {y}")
        parts = [runs_by_row(pixels, x0=int(x), y0=int(y))]
    shape = Shape(
        parts,
        label=str(drawn["label"]) if drawn.get("label") else None,
        name=str(drawn.get("description") or ""),
        is_mask=kind in ("circle", "mask"),
        group=drawn.get("group_id"),
    )
    drawing.add(shape, flat=None if kind in AREAS else str(kind))


def _grouped(drawing: Drawing) -> list[Shape]:
    """Join the shapes of one class and group, which LabelMe takes for one object."""
    found: dict[Any, Shape] = {}
    for number, shape in enumerate(drawing.shapes):
        key = (number,) if shape.group is None else (shape.label, shape.group)
        one = found.get(key)
        if one is not None and one.is_mask != shape.is_mask:
            raise ValueError(f"group {shape.group} must be of masks or of polygons, got both")
        found[key] = replace(one, parts=[*one.parts, *shape.parts]) if one else shape
    return list(found.values())


def _via_drawing(empty: Drawing, image: dict[str, Any]) -> Drawing:
    drawing = Drawing(empty.path, empty.convention, str(image["filename"]))
    regions = image["regions"]
    for region in regions.values() if isinstance(regions, dict) else regions:
        drawn, marks = region["shape_attributes"], region.get("region_attributes") or {}
        marks = marks if len(marks) != 1 else {"class": next(iter(marks.values()))}
        kind = drawn["name"]
        parts: list[Part] = []
        is_round = kind in ("circle", "ellipse")
        if kind == "polygon":
            ring = as_ring(list(zip(drawn["all_points_x"], drawn["all_points_y"], strict=True)))
            parts = [[ring]] if len(ring) else []
        elif kind == "rect":
            x, y = drawn["x"], drawn["y"]
            parts = [box_part(x, y, x + drawn["width"], y + drawn["height"])]
        elif is_round:
            radii = (drawn.get("rx", drawn.get("r")), drawn.get("ry", drawn.get("r")))
            place, angle = (drawn["cx"], drawn["cy"]), float(drawn.get("theta") or 0)
            parts = [ellipse(place, radii, angle=angle, half=drawing.half)]
        shape = Shape(
            parts, label=_class_name(marks, "type", "name"), is_mask=kind in ("circle", "ellipse")
        )
        drawing.add(shape, flat=None if kind in AREAS else str(kind))
    return drawing


def _read_rois(path: str, outlines: Convention | None, *, told: Told) -> list[Drawing]:
    """Read ImageJ's regions of interest, one or a zip of them."""
    if Path(path).suffix.lower() == ".roi":
        files = [(Path(path).stem, Path(path).read_bytes())]
    else:
        with ZipFile(path) as packed:
            inside = packed.infolist()
            if any(base(one.filename) == "annotations.xml" for one in inside):
                (xml,) = [one for one in inside if base(one.filename) == "annotations.xml"]
                size = max(xml.file_size, 1)
                return _read_xml(path, packed.open(xml), outlines, told=lambda at: told(at / size))
            inside = [one for one in inside if one.filename.lower().endswith(".roi")]
            if sum(one.file_size for one in inside) > MOST_BYTES:
                raise ValueError(f"its parts must be at most {MOST_BYTES:,} bytes")
            files = [(base(one.filename)[:-4], packed.read(one)) for one in inside]
    roi = roi_type(f"to read {path!r}")
    drawing = Drawing(path, outlines or "corners")
    for number, (name, content) in enumerate(files, start=1):
        _add_roi(drawing, roi.frombytes(content), name)
        told(number / len(files))
    return [drawing]


def roi_type(aim: str) -> Any:
    """Return the class of ImageJ's regions; `aim` says in an error what it was needed for."""
    try:
        from roifile import ImagejRoi
    except ImportError as error:
        raise ResourceError(
            f"roifile must be installed {aim}, got none; install unetkit[annotations]"
        ) from error
    return ImagejRoi


def _add_roi(drawing: Drawing, roi: Any, name: str) -> None:
    kind = roi.roitype.name.lower()
    parts: list[Part] = []
    sides = (roi.left, roi.top, roi.right, roi.bottom)
    if roi.subpixelrect:
        sides = (roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd)
    left, top, right, bottom = map(float, sides)
    if roi.subtype.name in ("TEXT", "IMAGE"):
        kind = roi.subtype.name.lower()
    elif roi.composite:
        kind, parts = "polygon", [as_part(roi.coordinates(multi=True))]
    elif kind == "rect":
        parts = [box_part(left, top, right, bottom)] if left < right and top < bottom else []
    elif kind == "oval":
        radii, middle = ((right - left) / 2, (bottom - top) / 2), (left + right) / 2
        place = (middle, (top + bottom) / 2)
        parts = [ellipse(place, radii, angle=0, half=drawing.half)]
    elif kind in ("polygon", "freehand", "traced"):
        parts = [part] if (part := as_part([roi.coordinates()])) else []
    t, z = max(roi.t_position - 1, 0), max(roi.z_position - 1, 0)
    placed = roi.t_position > 0 or roi.z_position > 0
    if not placed and roi.position > 0:
        placed, z = True, roi.position - 1
    # roifile makes numbers and truth values of what looks like them.
    named = re.search(r"^\s*class\s*:\s*(\S.*?)\s*$", roi.props, re.MULTILINE)
    shape = Shape(
        parts,
        label=named[1] if named else str(roi.group) if roi.group else roi.name or name,
        name=roi.name or name,
        plane=(t, z) if placed else None,
        is_mask=kind == "oval",
    )
    drawing.add(shape, flat=None if kind in AREAS else kind)


def _read_xml(
    path: str, file: IO[bytes], outlines: Convention | None, *, told: Told
) -> list[Drawing]:
    """Read the XML of CVAT or ImageScope, element by element; it may define nothing."""
    parser = expat.ParserCreate()
    readers: dict[str, type[_Cvat | _ImageScope]]
    readers = {"annotations": _Cvat, "Annotations": _ImageScope}
    reader: _Cvat | _ImageScope | None = None

    def start(name: str, marks: dict[str, str]) -> None:
        nonlocal reader
        if reader is None and name not in readers:
            raise ValueError(f"it must be of CVAT or ImageScope, got <{name}>")
        if reader is None:
            reader = readers[name](path, outlines or "corners")
        reader.start(name, marks)
        told(parser.CurrentByteIndex)

    def end(name: str) -> None:
        if reader is not None:
            reader.end(name)

    def refuse(*_: Any) -> None:
        raise ValueError("it must not define document types or entities")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    parser.ParseFile(file)
    return reader.drawings if reader else []


class _Cvat:
    """CVAT for images 1.1."""

    def __init__(self, path: str, convention: Convention) -> None:
        self.drawings: list[Drawing] = []
        self._new = partial(Drawing, path, convention)
        self._heights: list[int] = []

    def start(self, name: str, marks: dict[str, str]) -> None:
        if name == "track":
            raise ValueError("tracks of a video have no images; export as 'CVAT for images 1.1'")
        if name == "image":
            size = (int(marks["height"]), int(marks["width"])) if "height" in marks else None
            self.drawings.append(self._new(marks["name"], size))
            self._heights = []
        elif "label" in marks and self.drawings and name != "tag":
            drawing, before = self.drawings[-1], len(self.drawings[-1].shapes)
            masks = name in ("mask", "ellipse")
            shape = Shape(self._parts(name, marks), label=marks["label"], is_mask=masks)
            drawing.add(shape, flat=None if name in AREAS else name)
            self._heights += [int(marks.get("z_order", 0))] * (len(drawing.shapes) - before)

    def _parts(self, name: str, marks: dict[str, str]) -> list[Part]:
        def number(key: str) -> float:
            return float(marks.get(key, 0))

        if name == "polygon":
            points = [list(map(float, p.split(","))) for p in marks["points"].split(";")]
            return [[as_ring(points)]]
        if name == "box":
            corners = [number(key) for key in ("xtl", "ytl", "xbr", "ybr")]
            return [box_part(*corners, angle=np.radians(number("rotation")))]
        if name == "ellipse":
            radii, angle = (number("rx"), number("ry")), np.radians(number("rotation"))
            half = self.drawings[-1].half
            return [ellipse((number("cx"), number("cy")), radii, angle=angle, half=half)]
        if name == "mask":
            left, top, width, height = (
                int(number(key)) for key in ("left", "top", "width", "height")
            )
            counts = [int(count) for count in marks["rle"].split(",")]
            if min(counts) < 0 or sum(counts) != width * height or sum(counts) > MOST_BYTES:
                raise ValueError(f"counts must add up to {width} x {height}, got {sum(counts)}")
            pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
            return [runs_by_row(pixels, x0=left, y0=top)]
        return []

    def end(self, name: str) -> None:
        if name == "image":
            drawing = self.drawings[-1]
            order = sorted(range(len(self._heights)), key=lambda n: self._heights[n])
            drawing.shapes = [drawing.shapes[n] for n in order]


class _ImageScope:
    """Aperio ImageScope: layers of regions; a negative one is a hole in the one around it."""

    KINDS: ClassVar = {"0": "polygon", "1": "rectangle", "2": "ellipse", "3": "arrow", "4": "ruler"}

    def __init__(self, path: str, convention: Convention) -> None:
        self.drawings = [Drawing(path, convention)]
        self._label: str | None = None
        self._region: dict[str, str] = {}
        self._points: list[tuple[float, float]] = []
        self._first = 0  # shape of the layer
        self._holes: list[NDArray[np.float64]] = []

    def start(self, name: str, marks: dict[str, str]) -> None:
        if name == "Annotation":
            self._label, self._first = marks.get("Name") or None, len(self.drawings[0].shapes)
        elif name == "Attribute" and not self._region and self._label is None:
            described = marks.get("Name") == "Description"
            self._label = marks.get("Value" if described else "Name") or None
        elif name == "Region":
            self._region, self._points = marks, []
        elif name == "Vertex":
            self._points.append((float(marks["X"]), float(marks["Y"])))

    def end(self, name: str) -> None:
        drawing = self.drawings[0]
        if name == "Annotation":
            layer = drawing.shapes[self._first :]
            for hole in self._holes:
                around = [shape for shape in layer if _is_around(shape.parts[0], hole[0])]
                for shape in around[-1:]:
                    at = next(n for n, other in enumerate(drawing.shapes) if other is shape)
                    drawing.shapes[at] = replace(shape, parts=[[*shape.parts[0], hole]])
                    layer = drawing.shapes[self._first :]
            self._holes = []
        if name != "Region":
            return
        region, points = self._region, as_ring(self._points)
        self._region = {}
        kind = self.KINDS.get(region.get("Type", "0"), "polygon")
        if region.get("NegativeROA") == "1":
            self._holes += [points] if len(points) else []
            return
        parts: list[Part] = [[points]] if len(points) else []
        if kind in ("rectangle", "ellipse") and len(points):
            low, high = points.min(axis=0), points.max(axis=0)
            parts = [box_part(*low, *high)]
            if kind == "ellipse":
                middle = (float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2)
                radii = (float(high[0] - low[0]) / 2, float(high[1] - low[1]) / 2)
                parts = [ellipse(middle, radii, angle=0, half=drawing.half)]
        label = self._label or region.get("Text") or None
        shape = Shape(parts, label=label, is_mask=kind == "ellipse")
        drawing.add(shape, flat=None if kind in AREAS else kind)


def _is_around(part: Part, point: NDArray[np.float64]) -> bool:
    """Tell whether a point lies inside of a part's first ring."""
    x, y = point
    a = np.asarray(part[0])
    b = np.roll(a, -1, axis=0)
    crossed = (a[:, 1] <= y) != (b[:, 1] <= y)
    a, b = a[crossed], b[crossed]
    at = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return bool(np.count_nonzero(at < x) % 2)
