"""Write a prediction as files that other programs open: TIFF, PNG, outlines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np

from unetkit.arrays.boxes import read_around
from unetkit.arrays.outlines import edges, polygons
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Cover, Tile, cover
from unetkit.progress import SILENT, collects_warnings, warn
from unetkit.storage.annotations import roi_type
from unetkit.storage.atomic import make_folder
from unetkit.storage.datasets import listed_names, open_dataset
from unetkit.storage.drawings import BACKGROUND
from unetkit.storage.file_writers import bands, tile_rows, write_png, write_tiff
from unetkit.storage.journal import FOLDER
from unetkit.storage.object_classes import object_class_names, read_object_classes
from unetkit.storage.outline_files import WRITERS, Outline, Picture
from unetkit.storage.outputs import (
    EXPORTED,
    check_file,
    check_local,
    export_name,
    staged,
    write_csv,
)
from unetkit.storage.planes import whole_chunks
from unetkit.storage.urls import base_name, bytes_on_disk, join
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.outlines import Polygon
    from unetkit.options import Axes, LabelName, Opt, Store
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.object_classes import ObjectClasses
    from unetkit.storage.planes import PlaneArray

BLOCK = 1024
# Up to here a float32, in which ImageJ holds 32 bits, is exact.
FLOAT_EXACT = 2**24
# Of the classes of objects, as `measure` calls them.
TABLE, TABLE_SUFFIX = ("id", "class"), ".classes.csv"


@dataclass(frozen=True)
class Outlined:
    """What is outlined."""

    labels: PlaneArray  # instances, or a class map
    classes: PlaneArray | None = None  # the class map that says what each instance is
    class_names: Sequence[str] = ()
    are_objects: bool = True  # whether labels are instances
    told: ObjectClasses | None = None  # the class of each of them, where that is stored
    side: int = BLOCK

    @property
    def blocks(self) -> Cover:
        """Blocks of whole chunks over one plane."""
        side = whole_chunks(max(self.labels.chunk), self.side)
        return cover(self.labels.height, self.labels.width, tile=side)

    @property
    def steps(self) -> int:
        """How often the work advances: each block is read twice."""
        return 2 * len(self.blocks) * self.labels.planes


def outlines(outlined: Outlined, advance: Callable[[], None]) -> Iterator[Outline]:
    """Outline each object, or connected piece of a class, plane by plane."""
    planes, depth = outlined.labels.planes, outlined.labels.size("z")
    for plane in range(planes):
        place = divmod(plane, depth) if planes > 1 else None
        for number, parts, name in _objects(outlined, plane, advance):
            if outlined.are_objects:
                yield Outline(number, parts, name, place)
                continue
            # A class is no object: each connected piece of it is one.
            label = name or str(number)
            yield from (Outline(number, [part], label, place, is_object=False) for part in parts)


def _objects(
    outlined: Outlined, plane: int, advance: Callable[[], None]
) -> Iterator[tuple[int, list[Polygon], str | None]]:
    """Outline the objects of a plane, each as soon as the last block that holds it was read."""
    labels, blocks = outlined.labels, outlined.blocks
    size = {"height": labels.height, "width": labels.width}
    outlines, votes = _Pending(), _Pending()
    for block, complete in zip(blocks, _completed(labels, plane, blocks, advance), strict=True):
        box = (block.y0, block.y1), (block.x0, block.x1)
        rimmed = read_around(labels, plane, *box, reach=1)
        outlines.add(*edges(rimmed, y0=block.y0, x0=block.x0, width=labels.width))
        votes.add(*_votes(outlined, plane, block, rimmed[1:-1, 1:-1]))
        names = _names(outlined, *votes.take(complete))
        if outlined.told is not None:
            told = zip(complete.tolist(), outlined.told.of(complete).tolist(), strict=True)
            names = {one: outlined.told.names[place] for one, place in told if place}
        ids, codes = outlines.take(complete)
        for number, parts in polygons(ids, codes, **size):
            yield number, parts, names.get(number, _only_name(outlined))
        advance()


class _Pending:
    """What was found of objects, until all is found."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], NDArray[np.int64]]] = []

    def add(self, ids: NDArray[Any], values: NDArray[np.int64]) -> None:
        """Keep a value, or a row of values, for each id."""
        self._parts.append((ids, values))

    def take(self, complete: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return and forget what was kept for some ids."""
        ids, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        chosen = np.isin(ids, complete)
        self._parts = [(ids[~chosen], values[~chosen])]
        return ids[chosen], values[chosen]


def _only_name(outlined: Outlined) -> str | None:
    names = [name for name in outlined.class_names if name != BACKGROUND]
    return names[0] if len(names) == 1 else None


def _votes(
    outlined: Outlined, plane: int, block: Tile, labels: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Count the pixels of each class in each object, where the class is in question."""
    if _only_name(outlined) is not None or not outlined.class_names:
        return labels[:0, 0], np.empty((0, 2), np.int64)
    classes = labels
    if outlined.classes is not None:
        classes = outlined.classes.read(plane, block.y0, block.y1, block.x0, block.x1)
    inside = labels != 0
    count = len(outlined.class_names)
    pairs, pixels = np.unique(
        labels[inside].astype(np.uint64) * np.uint64(count) + classes[inside].astype(np.uint64),
        return_counts=True,
    )
    ids, found = np.divmod(pairs, np.uint64(count))
    return ids, np.stack([found.astype(np.int64), pixels], axis=-1)


def _names(outlined: Outlined, ids: NDArray[Any], votes: NDArray[np.int64]) -> dict[int, str]:
    """Name each object's most frequent class but the background; of equal ones the first."""
    sums: dict[int, dict[int, int]] = {}
    for number, (which, pixels) in zip(ids.tolist(), votes.tolist(), strict=True):
        if outlined.class_names[which] != BACKGROUND:
            counts = sums.setdefault(number, {})
            counts[which] = counts.get(which, 0) + pixels
    return {
        number: outlined.class_names[min(counts, key=lambda which: (-counts[which], which))]
        for number, counts in sums.items()
    }


def _completed(
    labels: PlaneArray, plane: int, blocks: Cover, advance: Callable[[], None]
) -> list[NDArray[Any]]:
    """List for each block the objects that no later block holds."""
    found = []
    for block in blocks:
        found.append(np.unique(labels.read(plane, block.y0, block.y1, block.x0, block.x1)))
        advance()
    ids = np.concatenate(found)
    place = np.repeat(np.arange(len(found)), [len(part) for part in found])
    order = np.argsort(ids, kind="stable")
    ids, place = ids[order], place[order]
    is_last = np.append(ids[1:] != ids[:-1], True)
    ids, place = ids[is_last], place[is_last]
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(1, len(found)))
    return np.split(ids[order], starts)


Format = Literal["tiff", "png", "geojson", "rois", "coco", "labelme"]
Layer = Literal["instances", "classes", "probabilities"]
# What names of files of each format end with; the first is what we name them.
# Those that know no planes.
FLAT = {"png": "PNG", "coco": "COCO file", "labelme": "LabelMe file"}


@dataclass(frozen=True)
class ExportReport:
    """What `export_prediction` wrote."""

    output: str  # the file; of a dataset the folder of files, or the one file of COCO
    format: str
    layer: str
    files: int
    features: int | None  # outlines in all files
    bytes: int  # on disk
    skipped: tuple[str, ...] = ()  # samples without such labels
    tables: int = 0  # files beside these, of the class of each object
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        lists = {"skipped": list(self.skipped), "warnings": list(self.warnings)}
        return {**asdict(self), **lists}


@collects_warnings
def export_prediction(
    prediction: Store,
    *,
    to: Literal["tiff", "png", "geojson", "rois", "coco", "labelme"] = "tiff",
    output: Annotated[
        str | None,
        Opt(flags=("--output", "-o"), default="beside the input", panel="Output"),
    ] = None,
    layer: Annotated[
        Literal["instances", "classes", "probabilities"] | None,
        Opt(default="instances, else classes"),
    ] = None,
    labels: LabelName = None,
    axes: Axes = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_export")
    ] = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write labels or probabilities as files that other programs open.

    Ids and classes stay as they are: a TIFF or PNG read again equals the labels, and so do the
    outlines filled again, by ``unetkit import --labels`` or the program they are for. A few blocks
    are in memory at a time. Where objects have classes, outlines name them; a TIFF or PNG holds ids
    alone, so that a table ``NAME.classes.csv`` of ids and classes is written beside it. ImageJ and
    Fiji show ids as 32-bit floats: from 16,777,217 on neighbouring ids look alike there, and are
    still apart in the file. Samples without labels are left out.

    Parameters
    ----------
    prediction : str
        A prediction, or any image or dataset with labels.
    to : {"tiff", "png", "geojson", "rois", "coco", "labelme"}
        TIFF for Fiji, in tiles with the pixel size; grey PNG, for one plane and ids up to 65535;
        or outlines in pixels, one an object or a connected piece of a class: GeoJSON for QuPath,
        a zip of ROIs for ImageJ, COCO in one file for all images, LabelMe.
    output : str, optional
        Where the file is written, or of a dataset the folder.
    layer : {"instances", "classes", "probabilities"}, optional
        What is written; probabilities as TIFF only.
    labels : str, optional
        Which labels, by name, where other writers named them; ``NAME=classes`` for class maps.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told of each block.

    Returns
    -------
    ExportReport

    Raises
    ------
    InputError
        If there is nothing to export.
    UsageError
        If the format can't hold it, or the file's name is of another format.
    OutputError
        If the output exists.
    ResourceError
        If the disk is full or refuses.
    """
    if to not in EXPORTED:
        raise UsageError(f"to must be one of {', '.join(get_args(Format))}, got {to!r}")
    if to == "rois":
        roi_type("to export rois")
    dataset = open_dataset(prediction, axes=axes, labels=labels, mixed=True)
    alone = dataset.kind in ("image", "array")
    one_file = alone or to == "coco"
    target = output or export_name(prediction, to, one_file=one_file)
    check_local(target)
    if one_file:
        _check_suffix(target, to)
    exports, skipped = _exports(dataset.samples, to, layer)
    tables = [export for export in exports if export.has_table]
    if alone and tables:
        check_file(table_name(target), overwrite=overwrite, begins=",".join(TABLE))
    features = 0
    with staged(target, inputs=[prediction], overwrite=overwrite) as partial:
        if not one_file:
            # By this folder a later run knows that it may replace the one around it.
            make_folder(join(partial, FOLDER))
        progress.start("export", total=sum(export.steps for export in exports))
        if to == "coco":
            features = WRITERS[to](partial, [export.picture(progress) for export in exports])
        for export in exports if to != "coco" else ():
            name = f"{export.sample.name}{EXPORTED[to][0]}"
            features += export.write(partial if alone else join(partial, name), progress)
        for export in () if alone else tables:
            export.write_table(join(partial, f"{export.sample.name}{TABLE_SUFFIX}"))
    if alone and tables:
        tables[0].write_table(table_name(target))
    if tables:
        where = base_name(table_name(target)) if alone else f"NAME{TABLE_SUFFIX} beside it"
        progress.note(f"A {to.upper()} holds ids alone: the class of each object is in {where}.")
    if skipped:
        warn(
            progress,
            f"left out {len(skipped):,} {'sample' if len(skipped) == 1 else 'samples'} without"
            f" {layer or 'labels'}: {listed_names(skipped)}",
        )
    return ExportReport(
        output=target,
        format=to,
        layer=exports[0].layer,
        files=1 if one_file else len(exports),
        features=features if to in WRITERS else None,
        bytes=bytes_on_disk(target),
        skipped=skipped,
        tables=len(tables),
    )


def table_name(path: str) -> str:
    """Name the table of classes of objects that belongs to a file of ids.

    >>> table_name("cells/a.tif")
    'cells/a.classes.csv'
    """
    return f"{path.removesuffix(Path(path).suffix)}{TABLE_SUFFIX}"


def _check_suffix(target: str, to: Format) -> None:
    """Refuse a name by which other programs would take the file for another format."""
    suffix = Path(target).suffix.lower()
    others = [other for other, endings in EXPORTED.items() if suffix in endings]
    if others and to not in others:
        raise UsageError(
            f"output must end with {EXPORTED[to][0]} for --to {to}, got {target}; "
            f"name it so, or use --to {' or '.join(others)}"
        )


def _exports(
    samples: Sequence[Sample], to: Format, wanted: Layer | None
) -> tuple[list[_Export], tuple[str, ...]]:
    """Say what of each sample is written, and which have nothing of it."""
    exports, skipped = [], []
    for sample in samples:
        layer = next((one for one in _layers(sample) if wanted in (one, None)), None)
        if layer is None:
            skipped.append(sample)
            continue
        _check_fits(sample, to, layer)
        exports.append(_Export(sample, to, layer))
    if not exports:
        raise _nothing(samples[0], wanted)
    return exports, tuple(sample.name for sample in skipped)


def _layers(sample: Sample) -> list[Layer]:
    """List what a sample has."""
    there: list[Layer] = [
        layer for layer in ("instances", "classes") if layer in sample.image.labels
    ]
    if "prediction" in sample.image.attributes:
        there.append("probabilities")
    return there


def _nothing(sample: Sample, wanted: Layer | None) -> InputError:
    """Say that a sample, like all others, has nothing to be written."""
    there = _layers(sample)
    if not there and sample.image.other_labels:
        # The error that names them.
        sample.labels()
    remedy = f"use --layer {there[0]}" if there else "name a prediction, or what has labels"
    return InputError(
        f"sample {sample.name!r} must have {wanted or 'labels'} to be exported, got"
        f" {', '.join(there) or 'no labels'}; {remedy}"
    )


def _check_fits(sample: Sample, to: Format, layer: Layer) -> None:
    """Refuse what a format can't hold."""
    if layer == "probabilities" and to != "tiff":
        raise UsageError(f"probabilities must be exported to tiff, got {to!r}; use --to tiff")
    if to in FLAT and sample.data.planes > 1:
        remedy = "tiff" if to == "png" else "geojson or rois"
        raise UsageError(
            f"a {FLAT[to]} must hold one plane an image, got {sample.data.planes} in"
            f" {sample.name!r}; use --to {remedy}"
        )


@dataclass(frozen=True)
class _Export:
    """One sample on its way into a file."""

    sample: Sample
    to: Format
    layer: Layer

    @property
    def data(self) -> PlaneArray:
        if self.layer == "probabilities":
            return self.sample.data
        return self.sample.image.labels[self.layer]

    @property
    def has_table(self) -> bool:
        """Whether its objects have classes that the file can't hold."""
        return (
            self.layer == "instances"
            and self.to not in WRITERS
            and bool(object_class_names(self.sample.image))
        )

    def write_table(self, path: str) -> None:
        """Write the class of each object."""
        told = read_object_classes(self.sample.image)
        if told is not None:
            named = (told.names[number] for number in told.numbers.tolist())
            write_csv(path, TABLE, zip(told.ids.tolist(), named, strict=True))

    @property
    def steps(self) -> int:
        """How often the work advances."""
        if self.to in WRITERS:
            return self._outlined().steps
        looks = 0 if self.layer == "probabilities" else len(self.data.chunk_boxes(BLOCK))
        return looks + (bands(self.data) if self.to == "png" else tile_rows(self.data))

    def write(self, path: str, progress: Progress) -> int:
        """Write the file; returns how many outlines are in it."""
        if self.to in WRITERS:
            return WRITERS[self.to](path, [self.picture(progress)])
        common: dict[str, Any] = {
            "dtype": self._dtype(progress),
            "software": f"unetkit {__version__}",
            "pixel_size": self.sample.image.pixel_size,
            "advance": progress.advance,
        }
        if self.to == "png":
            write_png(path, self.data, **common)
        else:
            names = self.sample.image.channel_names
            write_tiff(path, self.data, name=self.sample.name, channel_names=names, **common)
        return 0

    def picture(self, progress: Progress) -> Picture:
        """Return the outlines, to be made as they are written."""
        name = f"{self.sample.name.removesuffix('.prediction')}.png"
        return Picture(
            self.sample.image.attributes.get("source_file") or name,
            self.data.height,
            self.data.width,
            outlines(self._outlined(), progress.advance),
            self._class_names,
            {"version": __version__, "source": base_name(self.sample.image.url)},
        )

    @property
    def _class_names(self) -> tuple[str, ...]:
        of_objects = object_class_names(self.sample.image) if self.layer == "instances" else ()
        return of_objects or self.sample.class_names

    def _outlined(self) -> Outlined:
        if self.layer != "instances":
            return Outlined(self.data, None, self.sample.class_names, are_objects=False)
        told = read_object_classes(self.sample.image)
        classes = None if told is not None else self.sample.image.labels.get("classes")
        names = self.sample.class_names if told is None else ()
        return Outlined(self.data, classes, names, are_objects=True, told=told)

    def _dtype(self, progress: Progress) -> np.dtype[Any]:
        """Choose the narrowest type that holds what is there and that programs know."""
        if self.layer == "probabilities":
            return self.data.dtype
        largest = _largest(self.data, progress)
        if self.to == "png" and largest > 65535:
            raise UsageError(
                f"ids must be at most 65535 in a PNG, got {largest}; use --to tiff or geojson"
            )
        if largest >= 2**32:
            raise UsageError(f"ids must be below 2^32 in a TIFF, got {largest}; use --to geojson")
        if self.to == "tiff" and largest > FLOAT_EXACT:
            warn(
                progress,
                f"ImageJ and Fiji show ids as 32-bit floats, so that some of those above"
                f" {FLOAT_EXACT:,} look alike there; the file keeps them apart",
            )
        narrow = np.uint8 if self.layer == "classes" and largest < 256 else np.uint16
        return np.dtype(narrow if largest < 65536 else np.uint32)


def _largest(data: PlaneArray, progress: Progress) -> int:
    """Find the largest label, a few chunks at a time."""
    largest = 0
    for box in data.chunk_boxes(BLOCK):
        largest = max(largest, int(data.read(*box).max()))
        progress.advance()
    return largest
