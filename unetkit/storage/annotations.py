"""Files of outlines to shapes: GeoJSON, COCO, LabelMe and VIA here, ImageJ's and XML next door.

What this module does not know: which pixels a shape has, and which images there are.
"""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.errors import InputError, MissingError, UnetkitError
from unetkit.storage.readers import suffixes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    # Rings of points (x, y), or an array (R, N, 2) of them; a pixel is inside of an odd number.
    Part = Sequence[NDArray[Any]] | NDArray[Any]

Convention = Literal["corners", "centres"]
SUFFIXES = (".geojson", ".json", ".roi", ".zip", ".xml")
# Our own choice: no image has a side of more pixels, and float64 is exact to far below a pixel.
FARTHEST = 1e9
DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Shape:
    """An object as it was drawn."""

    parts: Sequence[Part]  # which are added
    label: str | None = None  # the class
    name: str = ""
    plane: tuple[int, int] | None = None  # t and z, where the file says it
    is_mask: bool = False  # whether it was painted, so that its rings are pixels' edges


@dataclass
class Drawing:
    """What a file says of one image."""

    path: str
    convention: Convention  # where points are counted from
    image: str | None = None  # the name of its file, where this file says it
    size: tuple[int, int] | None = None  # height, width
    shapes: list[Shape] = field(default_factory=list)
    empty: int = 0  # objects that their program could not draw
    flat: Counter[str] = field(default_factory=Counter)  # kinds of shapes without an area


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


def read_annotations(path: str, *, outlines: Convention | None = None) -> list[Drawing]:
    """Read a file of outlines, whatever program wrote it.

    Parameters
    ----------
    path : str
        GeoJSON, COCO, LabelMe or VIA.
    outlines : {"corners", "centres"}, optional
        Where points are counted from; by default as the format has it.

    Returns
    -------
    list of Drawing
        One an image.

    Raises
    ------
    InputError
        If it is of another format, damaged, or holds no shape at all.
    """
    try:
        drawings = _read_json(path, outlines)
    except (UnetkitError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise MissingError(f"annotations must exist, got nothing at {path!r}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"annotations must be readable, got {path!r} ({reason}); save or copy them again"
        ) from error
    if not any(drawing.shapes or drawing.empty or drawing.flat for drawing in drawings):
        raise InputError(f"annotations must hold shapes, got none in {path!r}; draw some")
    return drawings


def base(name: str) -> str:
    """Return a file's name without its folders, whichever system wrote it."""
    return re.split(r"[\\/]", name)[-1]


def as_ring(points: Any) -> NDArray[np.float64]:
    """Check points (x, y); the last is left out where it repeats the first."""
    ring = np.asarray(points, np.float64)
    if not ring.size:
        return np.empty((0, 2))
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError(f"a ring must be a list of points, got {str(points)[:60]}")
    ring = ring[:, :2]
    if not (np.abs(ring) < FARTHEST).all():
        raise ValueError("coordinates must be numbers of pixels, got others")
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def as_part(rings: Sequence[Any]) -> list[NDArray[np.float64]]:
    """Check the rings of a part; those without points are left out."""
    return [ring for ring in map(as_ring, rings) if len(ring)]


def members(text: str) -> Iterator[tuple[str, Any]]:
    """Read JSON piece by piece: the values of an object by key, and of its lists each element.

    A list that stands alone has the key "". So the objects of a large file are never in memory
    together.
    """
    at = _past_space(text, 0)
    if text[at] == "[":
        yield from _elements(text, at, "")
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
            at = yield from _elements(text, at, key)
        else:
            value, at = DECODER.raw_decode(text, at)
            yield key, value
        at = _next(text, at, "}")


def _elements(text: str, at: int, key: str) -> Generator[tuple[str, Any], None, int]:
    at = _past_space(text, at + 1)
    while text[at] != "]":
        value, at = DECODER.raw_decode(text, at)
        yield key, value
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


def _read_json(path: str, outlines: Convention | None) -> list[Drawing]:
    """Read shapes as they come, and everything else when all is known."""
    text = Path(path).read_text("utf-8-sig")
    if not text.strip():
        raise ValueError("it is empty")
    drawing = Drawing(path, outlines or "corners")
    kept: dict[str, Any] = {}
    for key, value in members(text):
        if key in ("features", "") and isinstance(value, dict) and "geometry" in value:
            _add_feature(drawing, value)
            kept["type"] = "FeatureCollection"
        else:
            kept[key] = value
    if kept.get("type") == "Feature":
        _add_feature(drawing, kept)
    elif kept.get("type") != "FeatureCollection":
        raise InputError(
            f"annotations must be GeoJSON, got a JSON of another kind in {path!r}; export them anew"
        )
    return [drawing]


def _add_feature(drawing: Drawing, feature: dict[str, Any]) -> None:
    """Add a feature of GeoJSON (RFC 7946), with the properties that QuPath writes."""
    geometry, marks = feature["geometry"] or {}, feature.get("properties") or {}
    flat: list[str] = []
    parts = _geometry_parts(geometry, flat)
    if not parts:
        drawing.flat.update(flat[:1])
        drawing.empty += not flat
        return
    plane = geometry.get("plane") or {}
    drawing.shapes.append(
        Shape(
            parts,
            label=_class_name(marks),
            name=str(marks.get("name") or ""),
            # QuPath leaves the first plane out.
            plane=(int(plane.get("t", 0)), int(plane.get("z", 0))),
        )
    )


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


def _class_name(marks: dict[str, Any]) -> str | None:
    found = marks.get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or ()))
    for key in ("class", "label", "category"):
        found = found or marks.get(key)
    return str(found) if found else None
