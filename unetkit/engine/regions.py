"""Regions of an image, such as a tumour: their pixels, what these hold, and whose objects they are.

What this module does not know: what is measured of an object, and which table is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.polygons import Painter, joined, self_crossings
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs
from unetkit.errors import InputError, LabelError, UsageError
from unetkit.geometry.sizes import are_proportional
from unetkit.scores import contingency
from unetkit.scores.contingency import ContingencySums, from_labels
from unetkit.storage.annotations import SUFFIXES, read_annotations
from unetkit.storage.atomic import is_stored
from unetkit.storage.datasets import listed_names, open_dataset
from unetkit.storage.planes import PlaneArray
from unetkit.storage.readers import open_file
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.polygons import Polygons
    from unetkit.progress import Progress
    from unetkit.scores.contingency import Contingency
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.drawings import Drawing, Shape

    Ints = NDArray[np.int64]
    Box = tuple[int, int, int, int]
    # A corner in the plane, and from there on the region of each pixel, 0 for none.
    Layer = tuple[int, int, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class DrawnRegion:
    """A region that somebody drew."""

    number: int
    polygons: Polygons
    box: Box  # which holds all of its pixels

    def within(self, box: Box) -> Box:
        """Return the part of a box that it may have pixels in; empty where there is none."""
        (y0, y1, x0, x1), (top, bottom, left, right) = self.box, box
        return max(y0, top), min(y1, bottom), max(x0, left), min(x1, right)


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one image: a label image, where they lie apart, or shapes that may overlap."""

    url: str
    image: PlaneArray  # over which they lie
    names: Mapping[int, str]  # by the region's number, where it has a name
    labels: PlaneArray | NDArray[Any] | None = None  # over the whole image, at any scale
    drawn: tuple[tuple[DrawnRegion, ...], ...] = ()  # of each plane

    def on(self, plane: int, table: Contingency) -> list[int]:
        """List the regions of a plane, also what was drawn so small that it has no pixel."""
        drawn = self.drawn[plane] if self.drawn else ()
        return sorted({*(one.number for one in drawn), *table.true.tolist()})

    def part(self, plane: int, box: Box) -> RegionsPart:
        """Return what tells the regions of a box, and little more, to travel to a worker."""
        if self.labels is None:
            near = [(one, one.within(box)) for one in self.drawn[plane]]
            return RegionsPart(box, tuple(one for one, (a, b, c, d) in near if a < b and c < d))
        planes, high, wide = _sizes(self.labels)
        rows = np.arange(box[0], box[1]) * high // self.image.height
        columns = np.arange(box[2], box[3]) * wide // self.image.width
        place, labels = (plane if planes > 1 else 0), self.labels
        if not isinstance(labels, PlaneArray):
            labels = labels[place, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return RegionsPart(box, labels=labels, plane=place, rows=rows, columns=columns)


@dataclass(frozen=True, eq=False)
class RegionsPart:
    """The regions of a box of a plane, not painted yet."""

    box: Box
    drawn: tuple[DrawnRegion, ...] = ()
    labels: PlaneArray | NDArray[Any] | None = None
    plane: int = 0  # of the labels
    rows: Ints | None = None  # of the labels, for each row of the box
    columns: Ints | None = None

    def layers(self) -> Iterator[Layer]:
        """Paint all regions at once where they lie apart, else one by one."""
        for one in self.drawn:
            y0, y1, x0, x1 = one.within(self.box)
            painted = Painter(one.polygons, np.array([one.number], np.uint32)).paint(y0, y1, x0, x1)
            if painted is not None:
                yield y0, x0, painted
        if self.labels is not None and self.rows is not None and self.columns is not None:
            rows, columns, block = self.rows, self.columns, self.labels
            if isinstance(block, PlaneArray):
                box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
                block = block.read(self.plane, *map(int, box))
            block = block.reshape(block.shape[-2:])
            yield self.box[0], self.box[2], block[np.ix_(rows - rows[0], columns - columns[0])]


def _sizes(labels: PlaneArray | NDArray[Any]) -> tuple[int, int, int]:
    """Return how many planes, rows and columns there are."""
    if isinstance(labels, PlaneArray):
        return labels.planes, labels.height, labels.width
    return labels.shape[0], labels.shape[1], labels.shape[2]


@dataclass(frozen=True, eq=False)
class RegionPiece:
    """A block of one plane whose regions are to be looked at."""

    plane: int
    regions: RegionsPart
    values: PlaneArray | None  # what is counted in them; left out, their pixels alone
    ignore: PlaneArray | None  # not 0 where pixels are not counted
    points: Ints  # those that lie here, as (N, 3): number, y, x

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"regions {self.plane} {self.regions.box}"


@dataclass(frozen=True, eq=False)
class InRegions:
    """What the regions of a plane hold."""

    table: Contingency  # the region as what is true, the counted value as what is predicted
    members: Ints  # shape (K, 2), ascending: the number of a point, and a region that it lies in


def count_piece(piece: RegionPiece) -> tuple[Contingency, Ints]:
    """Count the values in the regions of a block, and find the regions of its points."""
    y0, y1, x0, x1 = box = piece.regions.box
    values, ignore = np.zeros((y1 - y0, x1 - x0), np.uint8), None
    tables: list[Contingency] = []
    members = [np.empty((0, 2), np.int64)]
    for top, left, layer in piece.regions.layers():
        if not layer.any():
            continue
        if not tables and piece.values is not None:
            values = piece.values.read(piece.plane, *box)
        if not tables and piece.ignore is not None:
            ignore = piece.ignore.read(piece.plane, *box)
        high, wide = layer.shape
        inside = np.s_[top - y0 : top - y0 + high, left - x0 : left - x0 + wide]
        judged = layer if ignore is None else np.where(ignore[inside] == 0, layer, 0)
        tables.append(from_labels(judged, values[inside], ignore=judged == 0))
        number, y, x = piece.points.T
        here = (y >= top) & (y < top + high) & (x >= left) & (x < left + wide)
        found = judged[y[here] - top, x[here] - left].astype(np.int64)
        members.append(np.column_stack([number[here], found])[found != 0])
    return contingency.merge(tables), np.concatenate(members)


def count_in_regions(
    regions: Regions,
    values: PlaneArray | None,
    *,
    blocks: PlaneArray,
    ignore: PlaneArray | None,
    points: Sequence[Ints] = (),
    scheduler: str,
    workers: int | None,
    progress: Progress,
) -> list[InRegions]:
    """Count, on every plane, the values of the pixels of each region, and find those of points.

    All is whole numbers, so that it is the same in any blocks, which are those of `blocks`. Points
    are rows and columns (N, 2) of each plane.
    """
    tables = [ContingencySums() for _ in range(blocks.planes)]
    members: list[list[Ints]] = [[np.empty((0, 2), np.int64)] for _ in range(blocks.planes)]

    def pieces() -> Iterator[RegionPiece]:
        for plane in range(blocks.planes):
            own = points[plane] if points else np.empty((0, 2), np.int64)
            numbered = np.column_stack([np.arange(len(own)), own])
            numbered = numbered[np.argsort(own[:, 0], kind="stable")]
            for tile in blocks_of(blocks):
                box = (tile.y0, tile.y1, tile.x0, tile.x1)
                first, last = np.searchsorted(numbered[:, 1], box[:2])
                row = numbered[first:last]
                here = row[(row[:, 2] >= tile.x0) & (row[:, 2] < tile.x1)]
                yield RegionPiece(plane, regions.part(plane, box), values, ignore, here)

    def add(piece: RegionPiece, part: tuple[Contingency, Ints]) -> None:
        tables[piece.plane].add(part[0])
        members[piece.plane].append(part[1])
        progress.advance()

    run_jobs(count_piece, pieces(), scheduler=scheduler, workers=workers, on_done=add)
    return [
        InRegions(table.total(), np.unique(np.concatenate(own), axis=0))
        for table, own in zip(tables, members, strict=True)
    ]


def open_regions(url: str, dataset: Dataset) -> tuple[dict[str, Regions], list[str]]:
    """Open the regions of each sample, by name, and say what of them is left out.

    Parameters
    ----------
    url : str
        A Zarr, whose samples are found by name where there are several, or, for a single image, an
        image file or a file of outlines.
    dataset : Dataset
        What is measured.
    """
    samples = dataset.samples
    if is_remote(url) or is_stored(url):
        stored = open_dataset(url, mixed=True)
        alone = len(samples) == len(stored.samples) == 1
        return {
            one.name: _of_store(stored.samples[0] if alone else stored[one.name], one, url=url)
            for one in samples
        }, []
    if len(samples) > 1:
        raise UsageError(
            f"regions of a file must be of a single image, got {len(samples)} samples in"
            f" {dataset.url}; measure one of them, or import the regions as a dataset whose"
            " samples have the same names"
        )
    (sample,) = samples
    if Path(url).suffix.lower() in SUFFIXES:
        regions, remarks = drawn_regions(url, sample)
        return {sample.name: regions}, remarks
    file = open_file(url, labels=True)
    if file.size("c") > 1:
        raise _must_be_numbers(f"{file.size('c')} channels", url)
    pixels = file.load().reshape(file.planes, file.size("y"), file.size("x"))
    return {sample.name: _labelled(pixels, sample, url=url, names=())}, []


def _of_store(stored: Sample, sample: Sample, *, url: str) -> Regions:
    """Take the labels of a stored image for its regions, or else its pixels."""
    labels = stored.image.labels.get(stored.label_kind or "", stored.data)
    if labels.has_channels and labels.channel_count > 1:
        raise _must_be_numbers(f"{labels.channel_count} channels", url)
    names = stored.class_names if stored.label_kind == "classes" else ()
    return _labelled(labels, sample, url=url, names=names)


def _must_be_numbers(got: str, url: str) -> InputError:
    return InputError(
        f"regions must be a label image of whole numbers or outlines, got {got} in {url!r}; save"
        " the number of each pixel's region in one channel"
    )


def _labelled(
    labels: PlaneArray | NDArray[Any], sample: Sample, *, url: str, names: Sequence[str]
) -> Regions:
    planes, high, wide = _sizes(labels)
    image = sample.data
    if labels.dtype.kind not in "uib":
        raise _must_be_numbers(str(labels.dtype), url)
    if planes not in (1, image.planes):
        raise InputError(
            f"regions must have 1 plane or {image.planes} as the image, got {planes} in {url!r};"
            " give them one plane for all"
        )
    whole = (image.height, image.width)
    if not are_proportional((high, wide), whole) or high > image.height or wide > image.width:
        raise InputError(
            f"regions must have the image's {whole[0]} x {whole[1]} pixels, or fewer in the same"
            f" proportions, got {high} x {wide} in {url!r}; draw them over the whole image"
        )
    return Regions(url, image, dict(enumerate(names)), labels=labels)


def drawn_regions(url: str, sample: Sample, *, what: str = "regions") -> tuple[Regions, list[str]]:
    """Read outlines of a sample; those that lie elsewhere are left out, and named.

    `what` is what errors call them.
    """
    drawings = read_annotations(url)
    if len(drawings) != 1:
        raise InputError(
            f"{what} must be of one image, got those of {len(drawings)} in {url!r}; export them"
            " image by image"
        )
    (drawing,), image = drawings, sample.data
    size = (image.height, image.width)
    if drawing.size not in (None, size):
        high, wide = drawing.size or size
        raise LabelError(
            f"{what} must be of an image as high and wide, got {high} x {wide} in {url!r} for"
            f" {size[0]} x {size[1]}; export them from that image"
        )
    if not drawing.shapes:
        raise InputError(f"{what} must hold shapes with an area, got none in {url!r}; draw some")
    names = {n: shape.name or shape.label or "" for n, shape in enumerate(drawing.shapes, start=1)}
    planes: list[list[DrawnRegion]] = [[] for _ in range(image.planes)]
    lost = []
    for number, shape in enumerate(drawing.shapes, start=1):
        region = _region(number, shape, drawing)
        y0, y1, x0, x1 = region.within((0, image.height, 0, image.width))
        own = _planes_of(shape, image) if y0 < y1 and x0 < x1 else ()
        for plane in own:
            planes[plane].append(region)
        lost += [] if own else [names[number] or str(number)]
    if len(lost) == len(names):
        raise InputError(
            f"{what} must lie on the image, got none of {len(lost)} in {url!r} on the"
            f" {size[0]} x {size[1]} pixels of {sample.name!r}; are they another image's, or of"
            " another scale?"
        )
    remarks = [f"{what} outside of the image are left out: {listed_names(lost)}"] if lost else []
    if drawing.flat:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(drawing.flat.items()))
        remarks.append(f"left out of the {what} what has no area: {kinds}")
    return Regions(url, image, names, drawn=tuple(map(tuple, planes))), remarks


def _region(number: int, shape: Shape, drawing: Drawing) -> DrawnRegion:
    polygons = joined([shape.parts], [drawing.convention == "centres" and not shape.is_mask])
    for _, x, y in self_crossings(polygons)[:1]:
        raise LabelError(
            f"outlines must not cross themselves, got region {shape.name or number} of"
            f" {drawing.path!r} crossing itself at x {x:.1f}, y {y:.1f}; draw it anew"
        )
    low, high = polygons.boxes[:, :2].min(axis=0), polygons.boxes[:, 2:].max(axis=0)
    (left, top), (right, bottom) = (map(int, at) for at in (np.floor(low), np.ceil(high)))
    return DrawnRegion(number, polygons, (top, bottom, left, right))


def _planes_of(shape: Shape, image: PlaneArray) -> Sequence[int]:
    """List the planes that a shape lies on: all, unless it names one."""
    if shape.plane is None:
        return range(image.planes)
    t, z = shape.plane
    depth = image.size("z")
    return (t * depth + z,) if 0 <= t < image.size("t") and 0 <= z < depth else ()
