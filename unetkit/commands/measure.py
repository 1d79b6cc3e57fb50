"""Measure a prediction: each of its instances, or the area of each of its classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from unetkit.arrays import objects
from unetkit.engine.measuring import count_classes, measure_labels, piece_count
from unetkit.errors import InputError, UsageError
from unetkit.progress import SILENT, Progress, Together, collects_warnings, warn
from unetkit.storage.collections import COLLECTIONS
from unetkit.storage.datasets import listed_names, open_dataset, order_remark
from unetkit.storage.images import detect
from unetkit.storage.outputs import check_file, output_name, write_csv
from unetkit.storage.pixel_size import parse_pixel_size, plane_pixel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    from unetkit.storage.outputs import Cell

# How every such table begins.
COLUMNS = ("sample", "plane", "id", "unit")
CLASS_COLUMNS = ("sample", "plane", "class", "name", "unit")
# What follows where samples are of a plate.
ON_PLATE = ("row", "column", "field")


@dataclass(frozen=True)
class MeasureReport:
    """What was measured."""

    output: str
    objects: int | None  # None where classes were measured
    samples: int
    classes: int | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return {**asdict(self), "warnings": list(self.warnings)}


@collects_warnings
def measure(
    prediction: Store,
    image: Annotated[str | None, Opt(check="unetkit.storage.urls:check_there")] = None,
    *,
    csv: Annotated[str | None, Opt(default="NAME.objects.csv, or NAME.classes.csv")] = None,
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

    Parameters
    ----------
    prediction : str
        An image, dataset or plate with instances or classes.
    image : str, optional
        Whose intensities are measured too, channel by channel; samples and channels are matched
        by name.
    csv : str, optional
        Where the table is written; left out, beside the prediction.
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
        If there is nothing to measure, the image does not fit them, or images name other channels.
    OutputError
        If the table is there already.
    """
    told = None if pixel_size is None else parse_pixel_size(pixel_size)
    found = _open(prediction, axes, labels)
    kinds = {sample.label_kind for sample in found.samples}
    kind = "classes" if "classes" in kinds and "instances" not in kinds else "instances"
    ending, begins = (
        (".objects.csv", COLUMNS) if kind == "instances" else (".classes.csv", CLASS_COLUMNS)
    )
    output = csv or output_name(prediction, ending)
    check_file(output, overwrite=overwrite, begins=",".join(begins))
    if told is not None:
        found = found.with_pixel_size(told)
    found = _labelled(found, kind, progress)
    places = ON_PLATE if any(sample.position for sample in found.samples) else ()
    if kind == "classes":
        if image is not None:
            raise UsageError(
                f"intensities must be those of instances, got the classes of {prediction} and an"
                " image; leave the image out"
            )
        count = _measure_classes(
            found.samples,
            output,
            places=places,
            run={"scheduler": scheduler, "workers": workers},
            progress=progress,
        )
        _warn_unknown([s.name for s in found.samples if not _pixel_of(s)], progress)
        return MeasureReport(output, None, samples=len(found.samples), classes=count)
    pictures = None if image is None else _open(image, axes)
    pairs = [
        (sample, _image_of(sample, pictures, alone=len(found.samples) == 1))
        for sample in found.samples
    ]
    names = _channels({sample.name: picture for sample, picture in pairs})
    total = sum(piece_count(sample.labels("instances")) for sample, _ in pairs)
    together = Together(progress, "measure", total=total)
    rows: list[list[Cell]] = []
    header: tuple[str, ...] = ()
    unknown: list[str] = []
    for sample, picture in pairs:
        data = None if picture is None else picture.data
        planes = measure_labels(
            sample.labels("instances"),
            data,
            scheduler=scheduler,
            workers=workers,
            progress=together,
        )
        size = _pixel_of(sample)
        if size is None and picture is not None:
            size = plane_pixel(picture.pixel_size)
        for number, plane in enumerate(planes):
            table = objects.table(plane, pixel=size)
            header = header or tuple(_named(name, names) for name in table if name != "id")
            unit = "micrometre" if size else "pixel"
            where = [sample.position.get(name) for name in places]
            rows += _rows(table, (sample.name, number), [unit, *where])
        if size is None:
            unknown.append(sample.name)
    write_csv(output, (*COLUMNS, *places, *header), rows)
    _warn_unknown(unknown, progress)
    return MeasureReport(output=output, objects=len(rows), samples=len(pairs))


def _warn_unknown(unknown: Sequence[str], progress: Progress) -> None:
    if unknown:
        warn(
            progress,
            f"the pixel size of {listed_names(unknown)} is unknown, so that its lengths are in"
            " pixels; say it with --pixel-size",
        )


def _pixel_of(sample: Sample) -> tuple[float, float] | None:
    return plane_pixel(sample.image.pixel_size)


def _measure_classes(
    samples: Sequence[Sample],
    output: str,
    *,
    places: Sequence[str],
    run: Mapping[str, Any],
    progress: Progress,
) -> int:
    """Write the area and share of each class on each plane; return how many classes there are."""
    total = sum(piece_count(sample.labels("classes")) for sample in samples)
    together = Together(progress, "measure", total=total)
    counted = [
        count_classes(sample.labels("classes"), sample.ignore, progress=together, **run)
        for sample in samples
    ]
    names = max((sample.class_names for sample in samples), key=len)
    highest = max((max(plane, default=0) for planes in counted for plane in planes), default=0)
    count = max(len(names), highest + 1)
    rows: list[list[Cell]] = []
    for sample, planes in zip(samples, counted, strict=True):
        size, own = _pixel_of(sample), sample.class_names or names
        where = [sample.position.get(name) for name in places]
        for number, plane in enumerate(planes):
            judged = sum(plane.values())
            for one in range(count):
                name = own[one] if one < len(own) else str(one)
                unit = "micrometre" if size else "pixel"
                area = plane[one] * size[0] * size[1] if size else plane[one]
                share = plane[one] / judged if judged else None
                rows.append([sample.name, number, one, name, unit, *where, plane[one], area, share])
    write_csv(output, (*CLASS_COLUMNS, *places, "pixels", "area", "share"), rows)
    return count


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
    table: dict[str, Any], place: tuple[str, int], told: Sequence[Cell]
) -> Iterator[list[Cell]]:
    columns = [table[name].tolist() for name in table]
    for number, *values in zip(*columns, strict=True):
        yield [*place, number, *told, *values]
