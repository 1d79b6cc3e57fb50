"""Measure a prediction: each of its instances, or the area of each of its classes, by region."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from unetkit.arrays import objects
from unetkit.arrays.uncertainty import LEVELS
from unetkit.engine.measuring import count_classes, measure_labels, piece_count
from unetkit.engine.regions import count_in_regions, open_regions
from unetkit.errors import InputError, UsageError
from unetkit.progress import SILENT, Progress, Together, collects_warnings, warn
from unetkit.storage.collections import COLLECTIONS
from unetkit.storage.datasets import listed_names, open_dataset, order_remark
from unetkit.storage.images import detect
from unetkit.storage.object_classes import object_class_names, read_object_classes
from unetkit.storage.outputs import check_file, output_name, write_csv
from unetkit.storage.pixel_size import parse_pixel_size, plane_pixel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.engine.regions import InRegions, Regions
    from unetkit.options import (
        Axes,
        LabelName,
        Opt,
        Overwrite,
        PixelSize,
        SchedulerName,
        Store,
        Workers,
    )
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.object_classes import ObjectClasses
    from unetkit.storage.outputs import Cell

# How every such table begins.
COLUMNS = ("sample", "plane", "id", "unit")
CLASS_COLUMNS = ("sample", "plane", "class", "name", "unit")
REGION_COLUMNS = ("sample", "plane", "region", "region_name", "unit")
# What follows where samples are of a plate.
ON_PLATE = ("row", "column", "field")
# What a region holds, of objects and of classes.
OF_OBJECTS = ("objects", "pixels", "area", "density_per_mm2")
OF_CLASSES = ("class", "name", "pixels", "area", "share")


@dataclass(frozen=True)
class MeasureReport:
    """What was measured."""

    output: str
    objects: int | None  # None where classes were measured
    samples: int
    classes: int | None = None
    region_output: str | None = None  # the table of regions
    regions: tuple[dict[str, Cell], ...] = ()  # its rows
    warnings: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """All tables."""
        return tuple(filter(None, (self.output, self.region_output)))

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return {**asdict(self), "regions": list(self.regions), "warnings": list(self.warnings)}


@collects_warnings
def measure(
    prediction: Store,
    image: Annotated[str | None, Opt(check="unetkit.storage.urls:check_there")] = None,
    *,
    csv: Annotated[str | None, Opt(default="NAME.objects.csv, or NAME.classes.csv")] = None,
    region: Annotated[str | None, Opt(check="unetkit.storage.urls:check_there")] = None,
    rim: Literal["centroid", "inside", "touch"] = "centroid",
    labels: LabelName = None,
    axes: Axes = None,
    pixel_size: PixelSize = None,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> MeasureReport:
    """Measure every instance: area, place, axes, circularity, intensities; or every class: area.

    The table of instances equals scikit-image's `regionprops_table` on the whole. Lengths are in
    micrometres where the prediction or the image knows its pixel size, else in pixels; the column
    `unit` says which. Of a plate every field is measured, with its row, column and field.

    Where there are classes and no instances, the table has a row for each class of each plane:
    its pixels, its area, and its share of all pixels that are not ignored.

    Where the prediction has a layer of uncertainty, the column `uncertainty` is its mean over each
    object, from 0 where all looks agreed to 1.

    With regions a second table, NAME.regions.csv, has a row for each of them: its objects, its
    area and the objects a square millimetre, or area and share of each class inside. Where objects
    have classes, both tables name them, and a region has a row for each.

    Parameters
    ----------
    prediction : str
        An image, dataset or plate with instances or classes.
    image : str, optional
        Whose intensities are measured too, channel by channel; samples and channels are matched
        by name.
    csv : str, optional
        Where the table is written; left out, beside the prediction.
    region : str, optional
        Regions to count in: a label image (Zarr or TIFF) over the whole image, at its size or
        coarser, or outlines such as QuPath's GeoJSON.
    rim : {"centroid", "inside", "touch"}
        Which objects a region has: those whose centroid's pixel lies in it, those with all their
        pixels in it, or with any.
    labels : str, optional
        Which labels to measure, by name, or ``NAME=classes``; left out, ``instances``, or else
        ``classes``.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    pixel_size : str, optional
        Micrometres a pixel, where prediction and image do not say it or are wrong: ``0.25``,
        ``250nm``, or y,x as ``0.5,0.25``.
    scheduler : str
        Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH.
    workers : int, optional
        How many work at once.
    overwrite : bool
        Replace an earlier table of unetkit.
    progress : Progress
        Told of each block.

    Returns
    -------
    MeasureReport

    Raises
    ------
    UsageError
        If the pixel size is none, or an image comes with classes.
    InputError
        If there is nothing to measure, the image or the regions do not fit them, or images name
        other channels.
    OutputError
        If a table is there already.
    """
    if rim != "centroid" and region is None:
        raise UsageError(f"rim must be that of regions, got {rim!r} and none; add --region")
    told = None if pixel_size is None else parse_pixel_size(pixel_size)
    found = _open(prediction, axes, labels)
    kinds = {sample.label_kind for sample in found.samples}
    kind = "classes" if "classes" in kinds and "instances" not in kinds else "instances"
    if kind == "classes" and image is not None:
        raise UsageError(
            f"intensities must be those of instances, got the classes of {prediction} and an image;"
            " leave the image out"
        )
    if kind == "classes" and rim != "centroid":
        raise UsageError(
            f"rim must be that of instances, got the classes of {prediction}; leave --rim out"
        )
    ending, begins = (
        (".objects.csv", COLUMNS) if kind == "instances" else (".classes.csv", CLASS_COLUMNS)
    )
    output = csv or output_name(prediction, ending)
    check_file(output, overwrite=overwrite, begins=",".join(begins))
    beside = None
    if region is not None:
        beside = re.sub(r"(\.objects|\.classes)?(\.csv)?$", ".regions.csv", output, count=1)
        check_file(beside, overwrite=overwrite, begins=",".join(REGION_COLUMNS))
    if told is not None:
        found = found.with_pixel_size(told)
    found = _labelled(found, kind, progress)
    regions, remarks = ({}, []) if region is None else open_regions(region, found)
    for remark in remarks:
        warn(progress, remark)
    total = sum(piece_count(sample.labels(kind)) for sample in found.samples)
    task = _Task(
        found.samples,
        output,
        places=ON_PLATE if any(sample.position for sample in found.samples) else (),
        regions=regions,
        rim=rim,
        run={
            "scheduler": scheduler,
            "workers": workers,
            "progress": Together(progress, "measure", total=total * (2 if regions else 1)),
        },
    )
    if kind == "classes":
        report = _measure_classes(task)
    else:
        pictures = None if image is None else _open(image, axes)
        report = _measure_instances(task, pictures)
    if beside is None:
        return report
    of: tuple[str, ...] = OF_OBJECTS if kind == "instances" else OF_CLASSES
    if kind == "instances" and any("class" in row for row in report.regions):
        of = ("class", *of)
    header = (*REGION_COLUMNS, *task.places, *of)
    write_csv(beside, header, [[row.get(name) for name in header] for row in report.regions])
    return replace(report, region_output=beside)


@dataclass(frozen=True)
class _Task:
    """What is measured, and into which table."""

    samples: tuple[Sample, ...]
    output: str
    places: tuple[str, ...]  # what is told of a sample's place on a plate
    regions: Mapping[str, Regions]  # by sample, where they were asked for
    rim: str
    run: Mapping[str, Any]  # how jobs are run, and who is told

    def place_of(self, sample: Sample) -> list[Cell]:
        """Say where on a plate a sample is."""
        return [sample.position.get(name) for name in self.places]

    def region_row(
        self, sample: Sample, plane: int, region: int, *, known: bool
    ) -> dict[str, Cell]:
        """Begin a row of the table of regions."""
        name = self.regions[sample.name].names.get(region, "")
        unit = "micrometre" if known else "pixel"
        cells: list[Cell] = [sample.name, plane, region, name, unit, *self.place_of(sample)]
        return dict(zip((*REGION_COLUMNS, *self.places), cells, strict=True))


def _measure_instances(task: _Task, pictures: Dataset | None) -> MeasureReport:
    """Write a row for each object; return what was counted, in regions too."""
    alone = len(task.samples) == 1
    pairs = [(sample, _image_of(sample, pictures, alone=alone)) for sample in task.samples]
    names = _channels({sample.name: picture for sample, picture in pairs})
    rows: list[list[Cell]] = []
    counted: list[dict[str, Cell]] = []
    header: tuple[str, ...] = ()
    unknown: list[str] = []
    unsure = any(sample.image.uncertainty is not None for sample in task.samples)
    classed = any(object_class_names(sample.image) for sample in task.samples)
    for sample, picture in pairs:
        data = None if picture is None else picture.data
        classes = read_object_classes(sample.image)
        labels, layer = sample.labels("instances"), sample.image.uncertainty
        planes = measure_labels(labels, data, uncertainty=layer, **task.run)
        size = _pixel_of(sample)
        if size is None and picture is not None:
            size = plane_pixel(picture.pixel_size)
        members: list[NDArray[np.int64]] = []
        if task.regions:
            members, found = _count_objects(task, sample, planes, size, classes)
            counted += found
        for number, plane in enumerate(planes):
            table = objects.table(plane, pixel=size)
            if unsure:
                table |= _uncertainty(table, sample)
            header = header or tuple(_named(name, names) for name in table if name != "id")
            unit = "micrometre" if size else "pixel"
            beside: list[Iterable[Cell]] = []
            if classed:
                beside.append(_class_names(classes, plane.ids))
            if members:
                beside.append(_listed_regions(members[number], len(plane.ids)))
            place = task.place_of(sample)
            rows += _rows(table, (sample.name, number), [unit, *place], beside)
        if size is None:
            unknown.append(sample.name)
    _check_counted(task, counted)
    more = (*(("class",) if classed else ()), *(("region",) if task.regions else ()))
    write_csv(task.output, (*COLUMNS, *task.places, *more, *header), rows)
    _warn_unknown(unknown, task.run["progress"])
    return MeasureReport(task.output, len(rows), len(pairs), regions=tuple(counted))


def _count_objects(
    task: _Task,
    sample: Sample,
    planes: Sequence[objects.Objects],
    size: tuple[float, float] | None,
    classes: ObjectClasses | None,
) -> tuple[list[NDArray[np.int64]], list[dict[str, Cell]]]:
    """Say which objects of each plane belong to which regions, and what each region has.

    Where objects have classes, it is said of each class.
    """
    labels, regions = sample.labels("instances"), task.regions[sample.name]
    by_centroid = task.rim == "centroid"
    found = count_in_regions(
        regions,
        None if by_centroid else labels,
        blocks=labels,
        ignore=sample.ignore,
        points=[objects.centroid_pixels(plane) for plane in planes] if by_centroid else (),
        **task.run,
    )
    _warn_of_mask(sample, found, task.run["progress"])
    members, rows = [], []
    for number, (plane, one) in enumerate(zip(planes, found, strict=True)):
        own, table = one.members, one.table
        if not by_centroid:
            at = np.searchsorted(plane.ids, table.pred)
            kept = table.pred != 0
            if task.rim == "inside":
                kept[kept] = table.counts[kept] == plane.sums[at[kept], 0]
            own = np.column_stack([at[kept], table.true[kept].astype(np.int64)])
        members.append(own)
        pixels = _sums(table.true, table.counts)
        named = np.array(_class_names(classes, plane.ids), object)[own[:, 0]]
        count = Counter(zip(own[:, 1].tolist(), named.tolist(), strict=True))
        for region in regions.on(number, table):
            area: float = pixels[region] * size[0] * size[1] if size else pixels[region]
            # Those of no class are told of where there are some.
            none = [""] if classes is None or count[region, ""] else []
            for name in [*(classes.names[1:] if classes else ()), *none]:
                objects_of = count[region, name]
                density = objects_of / area * 1e6 if size and area else None
                told = (objects_of, pixels[region], area, density)
                rows.append(
                    task.region_row(sample, number, region, known=size is not None)
                    | ({} if classes is None else {"class": name})
                    | dict(zip(OF_OBJECTS, told, strict=True))
                )
    return members, rows


def _uncertainty(table: dict[str, NDArray[Any]], sample: Sample) -> dict[str, NDArray[Any]]:
    """Take the layer's channel, the last one, out of a table; return its mean over each object."""
    if sample.image.uncertainty is None:
        return {"uncertainty": np.full(len(table["id"]), np.nan)}
    last = max(int(name.removeprefix("mean_")) for name in table if name.startswith("mean_"))
    for name in ("min", "max"):
        del table[f"{name}_{last}"]
    scale = sample.image.uncertainty_attributes.get("scale", 1 / LEVELS)
    return {"uncertainty": table.pop(f"mean_{last}") * scale}


def _class_names(classes: ObjectClasses | None, ids: NDArray[np.uint64]) -> list[str]:
    """Name the class of each object, or nothing for one of none."""
    if classes is None:
        return [""] * len(ids)
    return [classes.names[number] if number else "" for number in classes.of(ids).tolist()]


def _check_counted(task: _Task, rows: Sequence[Mapping[str, Cell]]) -> None:
    """Refuse regions that hold nothing at all."""
    if task.regions and not any(row["pixels"] for row in rows):
        first = next(iter(task.regions.values()))
        raise InputError(
            f"regions must hold pixels of their image that are judged, got none in {first.url!r}"
            f" for {first.image.height} x {first.image.width} pixels; are they another image's, or"
            " of another scale?"
        )


def _warn_of_mask(sample: Sample, found: Sequence[InRegions], progress: Progress) -> None:
    """Say that regions were counted whole, unless they are as large as the mask, or it is all."""
    judged = _judged(sample)
    share, counted = judged.get("share"), sum(one.table.pixels for one in found)
    if isinstance(share, float) and share < 1 and counted != judged.get("pixels"):
        warn(
            progress,
            f"regions of {sample.name!r} are counted whole, though only {share:.1%} of the image"
            " lie in the mask of its prediction; take regions within the mask, or the mask itself",
        )


def _sums(keys: NDArray[Any], counts: NDArray[np.int64]) -> Counter[int]:
    """Add up what stands under each key."""
    total: Counter[int] = Counter()
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        total[key] += count
    return total


def _listed_regions(members: NDArray[np.int64], count: int) -> list[str]:
    """Write the regions of each object, separated by blanks where shapes overlap."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number, region in sorted(members.tolist()):
        found[number].append(region)
    return [" ".join(map(str, found.get(number, ()))) for number in range(count)]


def _warn_unknown(unknown: Sequence[str], progress: Progress) -> None:
    if unknown:
        warn(
            progress,
            f"the pixel size of {listed_names(unknown)} is unknown, so that its lengths are in"
            " pixels; say it with --pixel-size",
        )


def _pixel_of(sample: Sample) -> tuple[float, float] | None:
    return plane_pixel(sample.image.pixel_size)


def _measure_classes(task: _Task) -> MeasureReport:
    """Write the area and share of each class on each plane, and in regions; count the classes."""
    counted = [
        count_classes(sample.labels("classes"), sample.ignore, **task.run)
        for sample in task.samples
    ]
    for sample, planes in zip(task.samples, counted, strict=True):
        _leave_out_unjudged(sample, planes, task.run["progress"])
    names = max((sample.class_names for sample in task.samples), key=len)
    highest = max((max(plane, default=0) for planes in counted for plane in planes), default=0)
    count = max(len(names), highest + 1)
    rows: list[list[Cell]] = []
    inside: list[dict[str, Cell]] = []
    for sample, planes in zip(task.samples, counted, strict=True):
        size, own = _pixel_of(sample), sample.class_names or names
        called = [own[n] if n < len(own) else str(n) for n in range(count)]
        unit = "micrometre" if size else "pixel"
        for number, plane in enumerate(planes):
            for one, name, *rest in _class_cells(plane, called, size):
                place = task.place_of(sample)
                rows.append([sample.name, number, one, name, unit, *place, *rest])
        if task.regions:
            inside += _count_classes_inside(task, sample, called, size)
    _check_counted(task, inside)
    write_csv(task.output, (*CLASS_COLUMNS, *task.places, "pixels", "area", "share"), rows)
    unknown = [sample.name for sample in task.samples if not _pixel_of(sample)]
    _warn_unknown(unknown, task.run["progress"])
    samples = len(task.samples)
    return MeasureReport(task.output, None, samples, classes=count, regions=tuple(inside))


def _judged(sample: Sample) -> dict[str, Any]:
    """Return what a prediction says of the mask with which it was made, if there was one."""
    attributes = sample.image.label_attributes.get(sample.label_kind or "", {})
    for told in (attributes.get("prediction"), sample.image.attributes.get("prediction")):
        found = told.get("judged") if isinstance(told, dict) else None
        if isinstance(found, dict) and sample.chosen is None:
            return found
    return {}


def _leave_out_unjudged(sample: Sample, planes: Sequence[Counter[int]], progress: Progress) -> None:
    """Take what lies outside of the mask of a prediction out of its background, where it is."""
    judged, name = _judged(sample), sample.name
    pixels = judged.get("planes")
    if not isinstance(pixels, list) or len(pixels) != len(planes) or sample.ignore is not None:
        return
    if judged.get("reach"):
        warn(
            progress,
            f"the classes of {name!r} go beyond the mask of its prediction, with whose objects they"
            " were made, so that shares are of the whole image",
        )
        return
    for plane, own in zip(planes, pixels, strict=True):
        plane[0] = max(0, plane[0] - (sum(plane.values()) - int(own)))
    share = sum(pixels) / (len(planes) * sample.data.height * sample.data.width)
    progress.note(f"areas and shares of {name!r} are of the {share:.1%} of the image in its mask")


def _class_cells(
    counts: Counter[int], names: Sequence[str], size: tuple[float, float] | None
) -> Iterator[list[Cell]]:
    """Give number, name, pixels, area and share of each class among counted pixels."""
    judged = sum(counts.values())
    for one, name in enumerate(names):
        area = counts[one] * size[0] * size[1] if size else counts[one]
        yield [one, name, counts[one], area, counts[one] / judged if judged else None]


def _count_classes_inside(
    task: _Task, sample: Sample, names: Sequence[str], size: tuple[float, float] | None
) -> Iterator[dict[str, Cell]]:
    """Give a row for each class in each region."""
    labels, regions = sample.labels("classes"), task.regions[sample.name]
    found = count_in_regions(regions, labels, blocks=labels, ignore=sample.ignore, **task.run)
    _warn_of_mask(sample, found, task.run["progress"])
    for number, one in enumerate(found):
        for region in regions.on(number, one.table):
            own = one.table.true == region
            counts = _sums(one.table.pred[own], one.table.counts[own])
            for cells in _class_cells(counts, names, size):
                row = task.region_row(sample, number, region, known=size is not None)
                yield row | dict(zip(OF_CLASSES, cells, strict=True))


def _open(url: str, axes: str | None, labels: str | None = None) -> Dataset:
    axes = axes if detect(url) in ("stack", "array") else None
    return open_dataset(url, axes=axes, labels=labels, mixed=True)


def _labelled(found: Dataset, kind: str, progress: Progress) -> Dataset:
    """Leave out images of a collection without labels, such as one that could not be read."""
    samples = [sample for sample in found.samples if kind in sample.image.labels]
    if found.kind not in COLLECTIONS or not samples or len(samples) == len(found.samples):
        return found
    left = [sample.name for sample in found.samples if kind not in sample.image.labels]
    warn(progress, f"{listed_names(left)} of {found.url} have no {kind} and are left out")
    return replace(found, samples=tuple(samples))


def _image_of(sample: Sample, pictures: Dataset | None, *, alone: bool) -> Image | None:
    """Find the image of a sample's labels, of the same size."""
    if pictures is None:
        return None
    picture = pictures.samples[0] if alone and len(pictures.samples) == 1 else pictures[sample.name]
    labels, data = sample.labels("instances"), picture.data
    of_labels, of_image = ((a.planes, a.height, a.width) for a in (labels, data))
    if of_labels != of_image:
        raise InputError(
            f"image {picture.name!r} must be of the size of its labels, got {of_image} and "
            f"{of_labels} planes, rows and columns; measure the image that was predicted"
        )
    return picture.image


def _channels(pictures: Mapping[str, Image | None]) -> tuple[str, ...]:
    """Name the channels, which are of one order already where all have the same names."""
    names = {key: image.channel_names for key, image in pictures.items() if image is not None}
    remark = order_remark(names)
    counts = sorted({len(channels) for channels in names.values()})
    if remark is None and len(counts) > 1:
        remark = f"{' and '.join(map(str, counts))} channels"
    if remark is not None:
        raise InputError(
            f"images must name the same channels to be measured into one table, got {remark};"
            " measure those apart that differ"
        )
    return next(iter(names.values()), ())


def _named(column: str, channels: Sequence[str]) -> str:
    """Put a channel's name for its number; a grey image without a name needs neither."""
    what, _, number = column.partition("_")
    if number == "0" and tuple(channels) == ("0",):
        return what
    if number.isdigit() and int(number) < len(channels):
        return f"{what}_{channels[int(number)]}"
    return column


def _rows(
    table: dict[str, Any],
    place: tuple[str, int],
    told: Sequence[Cell],
    beside: Iterable[Iterable[Cell]],
) -> Iterator[list[Cell]]:
    """Give a row for each object; `beside` are columns that come before what was measured."""
    first, *measured = (table[name].tolist() for name in table)
    columns = [first, *map(list, beside), *measured]
    for number, *values in zip(*columns, strict=True):
        yield [*place, number, *told, *values]
