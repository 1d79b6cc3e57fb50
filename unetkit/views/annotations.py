"""What people draw on a page of neuroglancer, as GeoJSON that is kept while they draw."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from unetkit.errors import UnetkitError, UsageError
from unetkit.storage import urls
from unetkit.storage.atomic import write_text
from unetkit.storage.outputs import check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Json = dict[str, Any]

# The layers to draw in, besides one for each class: windows that were judged, and objects where
# these have no classes.
JUDGED, OBJECTS = "judged", "objects"
# How such a file begins, so that no other is taken for one and written over.
BEGINS = '{"type": "FeatureCollection", "unetkit": {"command": "view"'
# Our choice: an ellipse as large as a cell has corners closer to each other than pixels.
CORNERS = 64
# What a click with Ctrl draws at first; the layer's panel has the others.
TOOLS = {JUDGED: "annotateBoundingBox"}
USUAL_TOOL = "annotatePolyline"


def check_annotations(path: str | None, *, napari: bool, png: str | None) -> None:
    """Refuse a file that `correct` would not take, that holds anything else, or with no page."""
    if path is None:
        return
    if napari or png is not None:
        raise UsageError(
            f"annotations must be drawn on a page that stays open, got {path!r} with a picture or"
            " napari; leave one of them out"
        )
    if not path.lower().endswith((".geojson", ".json")):
        raise UsageError(
            f"annotations must be a file named .geojson, got {path!r}; name for example"
            " edited.geojson"
        )
    check_file(path, overwrite=True, begins=BEGINS)


@dataclass
class Annotations:
    """The shapes of a page, each of the class that its layer is called, and their file."""

    path: str
    classes: Sequence[str] = (OBJECTS,)
    told: Callable[[str], None] = lambda _: None
    others: frozenset[str] = frozenset()  # layers of the page that nobody draws in
    _kept: str = ""  # what the file holds

    def layers(self, dimensions: Json) -> list[Json]:
        """Return the layers to draw in, with what an earlier view kept."""
        drawn: dict[str, list[Json]] = {name: [] for name in (JUDGED, *self.classes)}
        if urls.exists(self.path):
            self._kept = urls.read(self.path).decode()
            for feature in json.loads(self._kept)["features"]:
                own = feature["properties"].get("unetkit")
                if own is not None:
                    drawn.setdefault(own["layer"], []).append(own["annotation"])
        source = {"url": "local://annotations", "transform": {"outputDimensions": dimensions}}
        return [
            {
                "name": name,
                "type": "annotation",
                "source": source,
                "annotations": annotations,
                "tool": TOOLS.get(name, USUAL_TOOL),
                "tab": "annotations",
            }
            for name, annotations in drawn.items()
        ]

    def keep(self, state: Json) -> None:
        """Write the file where something else is drawn than it holds; `state` is the page's."""
        features = [
            feature
            for layer in state.get("layers", ())
            if layer.get("type") == "annotation" and layer["name"] not in self.others
            for one in layer.get("annotations", ())
            for feature in _features(one, layer)
        ]
        told = {"type": "FeatureCollection", "unetkit": {"command": "view"}, "features": features}
        text = json.dumps(told) + "\n"
        if text == self._kept or not (features or self._kept):
            return
        try:
            write_text(self.path, text)
        except (UnetkitError, OSError) as error:
            self.told(f"{self.path} could not be written: {error}")
        else:
            self._kept = text


def _features(one: Json, layer: Json) -> list[Json]:
    """Return a shape as GeoJSON, once for each plane that it lies on; the first has it whole."""
    axes = list(_dimensions(layer))
    geometry, points = _geometry(one, axes.index("x"), axes.index("y"))
    name = str(layer["name"])
    properties: Json = {"objectType": "annotation"}
    if name != OBJECTS:
        properties["classification"] = {"name": name}
    found: list[Json] = []
    planes = [
        _planes([point[axes.index(a)] for point in points]) if a in axes else [0] for a in "tz"
    ]
    for t, z in product(*planes):
        if {"t", "z"} & set(axes):
            geometry = {**geometry, "plane": {"c": -1, "z": z, "t": t}}
        own = {} if found else {"unetkit": {"layer": name, "annotation": one}}
        found.append({"type": "Feature", "geometry": geometry, "properties": properties | own})
    return found


def _dimensions(layer: Json) -> Json:
    """Return the axes of a layer's points, in their order, as the page writes its one source."""
    source = layer["source"][0] if isinstance(layer["source"], list) else layer["source"]
    found: Json = source["transform"]["outputDimensions"]
    return found


def _planes(along: list[float]) -> list[int]:
    """List the planes, whose middles are whole numbers, between the lowest and highest point."""
    low, high = min(along), max(along)
    return [*range(math.ceil(low), math.floor(high) + 1)] or [round((low + high) / 2)]


def _geometry(one: Json, x: int, y: int) -> tuple[Json, list[list[float]]]:
    """Return a shape as GeoJSON has it, and the points that say on which planes it lies.

    Pixels have their corners on whole numbers there, and their middles in neuroglancer.
    """
    kind = one["type"]
    if kind == "ellipsoid":
        centre, radii = one["center"], one["radii"]
        turns = (2 * math.pi * n / CORNERS for n in range(CORNERS))
        ring = [(math.cos(turn), math.sin(turn)) for turn in turns]
        corners = [(centre[x] + radii[x] * c, centre[y] + radii[y] * s) for c, s in ring]
        points = [centre]
    elif kind == "axis_aligned_bounding_box":
        points = [one["pointA"], one["pointB"]]
        (x0, y0), (x1, y1) = ((point[x], point[y]) for point in points)
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    else:
        points = one["points"] if kind == "polyline" else [one[k] for k in _ENDS if k in one]
        corners = [(point[x], point[y]) for point in points]
        points = points[:1]
    placed = [[float(across) + 0.5, float(down) + 0.5] for across, down in corners]
    if len(placed) == 1:
        return {"type": "Point", "coordinates": placed[0]}, points
    if len(placed) == 2:
        return {"type": "LineString", "coordinates": placed}, points
    return {"type": "Polygon", "coordinates": [[*placed, placed[0]]]}, points


_ENDS = ("point", "pointA", "pointB")
