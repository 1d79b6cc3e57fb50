"""Files of outlines, written object by object: GeoJSON, COCO, LabelMe, ImageJ's ROIs.

Rings are those of `unetkit.arrays.outlines`: corners of pixels at which they turn. What this module
does not know: where they come from.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from unetkit.storage.annotations import roi_type
from unetkit.storage.drawings import BACKGROUND
from unetkit.storage.file_writers import png_stream
from unetkit.storage.urls import storing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Polygon = Sequence[Ints]  # the outer ring, then its holes

# Where a format asks for a class and there is none.
UNNAMED = "object"
# The one whose form this is; it says so when another reads it.
LABELME = "6.3.1"
# ImageJ holds whole numbers in 16 bits; beyond them numbers with fractions, here exact up to 2^24.
LARGEST_SHORT = 2**15 - 1
MOVE, LINE, CLOSE = 0, 1, 4
BAND = 2**22  # pixels of a mask that are drawn at once


@dataclass(frozen=True)
class Outline:
    """An object, or a connected piece of a class."""

    number: int
    parts: Sequence[Polygon]
    label: str | None = None  # the class
    plane: tuple[int, int] | None = None  # t and z, where its image has several
    is_object: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether there is no hole in it."""
        return all(len(rings) == 1 for rings in self.parts)

    @property
    def rings(self) -> list[Ints]:
        """All rings."""
        return [ring for rings in self.parts for ring in rings]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        outer = np.concatenate([rings[0] for rings in self.parts])
        (left, top), (right, bottom) = outer.min(axis=0), outer.max(axis=0)
        return int(left), int(top), int(right), int(bottom)

    def sides(self) -> tuple[Ints, Ints]:
        """List the sides of pixels that are part of its upright edges: their rows and x."""
        start = np.concatenate(self.rings)
        end = np.concatenate([np.roll(ring, -1, axis=0) for ring in self.rings])
        return _units(start, end, along=1)

    def column_ends(self, height: int) -> Ints:
        """List where runs of pixels begin and end, counted down the columns of an image."""
        start = np.concatenate(self.rings)
        end = np.concatenate([np.roll(ring, -1, axis=0) for ring in self.rings])
        x, y = _units(start, end, along=0)
        ends, counts = np.unique(x * height + y, return_counts=True)
        # A run that ends at the foot of a column goes on at the head of the next.
        once: Ints = ends[counts == 1]
        return once


@dataclass(frozen=True)
class Picture:
    """An image, and the outlines on it."""

    name: str  # of its file
    height: int
    width: int
    outlines: Iterable[Outline]
    class_names: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # where they come from


def _units(start: Ints, end: Ints, *, along: int) -> tuple[Ints, Ints]:
    """Cut the edges that run along an axis into those of single pixels: (along, across) each."""
    chosen = start[:, along] != end[:, along]
    low = np.minimum(start, end)[chosen]
    lengths = np.abs(end - start)[chosen, along]
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    steps = np.arange(len(before)) - before
    return np.repeat(low[:, along], lengths) + steps, np.repeat(low[:, 1 - along], lengths)


def write_geojson(path: str, pictures: Sequence[Picture]) -> int:
    """Write a feature for each outline of the one picture, in pixels.

    References
    ----------
    RFC 7946; the properties are those that QuPath reads.
    """
    (picture,) = pictures
    with storing(path), _text(path) as file:
        head = json.dumps({"type": "FeatureCollection", "unetkit": dict(picture.about)})
        file.write(f'{head[:-1]}, "features": ')
        count = _write_list(file, map(_feature, picture.outlines))
        file.write("}\n")
    return count


def _feature(outline: Outline) -> dict[str, Any]:
    coordinates = [
        [[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in outline.parts
    ]
    geometry: dict[str, Any] = {
        "type": "Polygon" if len(coordinates) == 1 else "MultiPolygon",
        "coordinates": coordinates[0] if len(coordinates) == 1 else coordinates,
    }
    if outline.plane is not None:
        t, z = outline.plane
        geometry["plane"] = {"c": -1, "z": z, "t": t}
    properties: dict[str, Any] = {"objectType": "annotation"}
    if outline.is_object:
        properties = {"objectType": "detection", "name": str(outline.number)}
    if outline.label is not None:
        properties["classification"] = {"name": outline.label}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write_coco(path: str, pictures: Sequence[Picture]) -> int:
    """Write an annotation for each outline: polygons, or run lengths where it has holes.

    References
    ----------
    Lin and others (2014), Microsoft COCO; pycocotools fills both to the same pixels.
    """
    named = [name for one in pictures for name in one.class_names if name != BACKGROUND]
    categories = {name: number for number, name in enumerate(dict.fromkeys(named), start=1)}

    def annotations() -> Iterator[dict[str, Any]]:
        for image, picture in enumerate(pictures, start=1):
            for outline in picture.outlines:
                category = categories.setdefault(outline.label or UNNAMED, len(categories) + 1)
                yield {
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": 0,
                    **_segmentation(outline, picture),
                }

    with storing(path), _text(path) as file:
        images = [
            {"id": number, "file_name": one.name, "height": one.height, "width": one.width}
            for number, one in enumerate(pictures, start=1)
        ]
        head = json.dumps({"unetkit": dict(pictures[0].about), "images": images})
        file.write(f'{head[:-1]}, "annotations": ')
        numbered = ({"id": n, **one} for n, one in enumerate(annotations(), start=1))
        count = _write_list(file, numbered)
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        file.write(f',\n"categories": {json.dumps(listed, ensure_ascii=False)}}}\n')
    return count


def _segmentation(outline: Outline, picture: Picture) -> dict[str, Any]:
    left, top, right, bottom = outline.box
    ends = outline.column_ends(picture.height)
    said: dict[str, Any] = {
        "area": int((ends[1::2] - ends[::2]).sum()),
        "bbox": [left, top, right - left, bottom - top],
    }
    if outline.is_object:
        # What COCO does not know; it is the id's way back.
        said["name"] = str(outline.number)
    if outline.is_plain:
        said["segmentation"] = [ring.ravel().tolist() for ring in outline.rings]
        return said
    size = [picture.height, picture.width]
    ends = np.append(ends, size[0] * size[1])
    counts = np.diff(ends[: -1 if ends[-1] == ends[-2] else None], prepend=0)
    said["segmentation"] = {"size": size, "counts": packed_counts(counts)}
    return said


def packed_counts(counts: Ints) -> str:
    """Pack lengths of runs as COCO does.

    Six bits a letter, the low ones first; from the fourth on differences from the last but one.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    letters, used = [], []
    more = np.ones(len(rest), bool)
    while more.any():
        bits = rest & 31
        rest >>= 5
        used.append(more)
        more = more & (rest != np.where(bits & 16, -1, 0))
        letters.append(bits + 32 * more + 48)
    found = np.stack(letters, axis=1)[np.stack(used, axis=1)]
    return str(found.astype(np.uint8).tobytes(), "ascii")


def write_labelme(path: str, pictures: Sequence[Picture]) -> int:
    """Write a shape for each outline: a polygon, or a mask where it has holes or pieces.

    labelme fills a polygon from the centres of its rim's pixels to the same pixels.
    """
    (picture,) = pictures
    with storing(path), _text(path) as file:
        head = {"version": LABELME, "unetkit": dict(picture.about), "flags": {}}
        file.write(f'{json.dumps(head)[:-1]}, "shapes": ')
        count = _write_list(file, map(_shape, picture.outlines))
        size = {"imageHeight": picture.height, "imageWidth": picture.width}
        foot = {"imagePath": picture.name, "imageData": None, **size}
        file.write(f",\n{json.dumps(foot, ensure_ascii=False)[1:]}\n")
    return count


def _shape(outline: Outline) -> dict[str, Any]:
    rings = outline.rings
    left, top, right, bottom = outline.box
    is_mask = len(rings) > 1
    points = [[left, top], [right - 1, bottom - 1]] if is_mask else _rim(rings[0]).tolist()
    return {
        "label": outline.label or UNNAMED,
        "points": points,
        "group_id": None,
        "description": str(outline.number) if outline.is_object else "",
        "shape_type": "mask" if is_mask else "polygon",
        "flags": {},
        "mask": _mask(outline) if is_mask else None,
    }


def _rim(ring: Ints) -> Ints:
    """Move each corner of an outer ring to the centre of the pixel in it, counted from centres."""
    way = np.roll(ring, -1, axis=0) - ring
    # Of the two edges at a corner one is level and one upright. The object lies right of both.
    right, down = (way + np.roll(way, 1, axis=0)).T
    rim: Ints = ring - np.stack([down > 0, right < 0], axis=-1)
    return rim


def _mask(outline: Outline) -> str:
    """Draw the pixels of an outline, in its box, as a PNG in base64."""
    left, top, right, bottom = outline.box
    height, width = bottom - top, right - left
    rows, x = outline.sides()
    order = np.argsort(rows, kind="stable")
    rows, x = rows[order] - top, x[order] - left

    def drawn() -> Iterator[bytes]:
        step = max(1, BAND // width)
        for y in range(0, height, step):
            high = min(step, height - y)
            start, end = np.searchsorted(rows, [y, y + high])
            turns = np.zeros((high, width + 1), np.uint8)
            turns[rows[start:end] - y, x[start:end]] = 1
            inside = np.bitwise_xor.accumulate(turns, axis=1)
            # The number of the filter that leaves a row as it is, and the row.
            yield np.pad(inside[:, :-1], ((0, 0), (1, 0))).tobytes()

    file = io.BytesIO()
    png_stream(file, drawn(), height=height, width=width, depth=8)
    return base64.b64encode(file.getvalue()).decode("ascii")


def write_rois(path: str, pictures: Sequence[Picture]) -> int:
    """Write a zip of ImageJ's regions: traced, or composite where they have holes or pieces.

    Raises
    ------
    ResourceError
        If roifile is not installed.
    """
    (picture,) = pictures
    new = roi_type(f"to write {path!r}")
    seen: Counter[str] = Counter()
    with storing(path), ZipFile(path, "w", ZIP_DEFLATED) as file:
        for outline in picture.outlines:
            roi = _roi(outline, new)
            # By the names of its files ImageJ lists regions.
            entry = "-".join(roi.name.replace("\\", "/").split("/"))
            if outline.plane is not None:
                roi.t_position, roi.z_position = (number + 1 for number in outline.plane)
                entry += f"-t{roi.t_position}-z{roi.z_position}"
            seen[entry] += 1
            entry += "" if outline.is_object else f"-{seen[entry]}"
            # The same labels give the same bytes, so that the time is none.
            file.writestr(ZipInfo(f"{entry}.roi"), roi.tobytes(), ZIP_DEFLATED)
        file.comment = json.dumps({"unetkit": dict(picture.about)}).encode()
    return seen.total()


def _roi(outline: Outline, new: Any) -> Any:
    rings = outline.rings
    if len(rings) == 1:
        small = rings[0].max() <= LARGEST_SHORT
        roi = new.frompoints(rings[0] if small else rings[0].astype(np.float32), name="")
        roi.roitype = type(roi.roitype).TRACED
    else:
        roi = new()
        roi.roitype = type(roi.roitype).RECT
        path: list[NDArray[np.float32]] = []
        for ring in rings:
            steps = np.c_[np.full(len(ring), LINE), ring].astype(np.float32)
            steps[0, 0] = MOVE
            path += [steps.ravel(), np.array([CLOSE], np.float32)]
        roi.multi_coordinates = np.concatenate(path)
        roi.shape_roi_size = len(roi.multi_coordinates)
    roi.left, roi.top, roi.right, roi.bottom = outline.box
    roi.name = str(outline.number) if outline.is_object else outline.label or UNNAMED
    if outline.label is not None:
        roi.props = f"class: {' '.join(outline.label.splitlines())}\n"
    return roi


def _text(path: str) -> TextIO:
    return Path(path).open("w", encoding="utf-8", newline="\n")


def _write_list(file: TextIO, values: Iterable[dict[str, Any]]) -> int:
    """Write a list of JSON, an element a line."""
    count = 0
    file.write("[")
    for value in values:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        file.write(f"{',' if count else ''}\n{text}")
        count += 1
    file.write("\n]")
    return count


WRITERS: dict[str, Callable[[str, Sequence[Picture]], int]] = {
    "geojson": write_geojson,
    "rois": write_rois,
    "coco": write_coco,
    "labelme": write_labelme,
}
