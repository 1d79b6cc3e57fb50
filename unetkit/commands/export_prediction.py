"""Write a prediction as files that other programs open: TIFF, PNG, GeoJSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import numpy as np

from unetkit.arrays.boxes import read_around
from unetkit.arrays.outlines import edges, polygons
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Cover, Tile, cover
from unetkit.progress import SILENT, collects_warnings, warn
from unetkit.storage.atomic import make_folder
from unetkit.storage.datasets import open_dataset
from unetkit.storage.file_writers import bands, tile_rows, write_png, write_tiff
from unetkit.storage.journal import FOLDER
from unetkit.storage.outputs import check_local, output_name, staged
from unetkit.storage.planes import whole_chunks
from unetkit.storage.urls import base_name, bytes_on_disk, join, storing
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.outlines import Polygon
    from unetkit.options import LabelName, Opt, Overwrite
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

BLOCK = 1024
# Up to here a float32, in which ImageJ holds 32 bits, is exact.
FLOAT_EXACT = 2**24
# What the first class is called; a grown object's rim is background too.
BACKGROUND = "background"


@dataclass(frozen=True)
class Outlined:
    """What is outlined."""

    labels: PlaneArray  # instances, or a class map
    classes: PlaneArray | None = None  # the class map that says what each instance is
    class_names: Sequence[str] = ()
    are_objects: bool = True  # whether labels are instances
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


def write_outlines(
    path: str, outlined: Outlined, *, about: Mapping[str, Any], advance: Callable[[], None]
) -> int:
    """Write a GeoJSON file with a feature for each object or piece of a class, in pixels.

    References
    ----------
    RFC 7946; the properties are those that QuPath reads.
    """
    count = 0
    with storing(path), Path(path).open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps({"type": "FeatureCollection", "unetkit": dict(about)})
        file.write(f'{head[:-1]}, "features": [')
        for plane in range(outlined.labels.planes):
            for number, parts, name in _objects(outlined, plane, advance):
                # A class is no object: each connected piece of it is one.
                pieces = [parts] if outlined.are_objects else [[part] for part in parts]
                for piece in pieces:
                    _write(file, _feature(outlined, number, piece, plane=plane, name=name), count)
                    count += 1
        file.write("\n]}\n")
    return count


def _write(file: TextIO, feature: dict[str, Any], before: int) -> None:
    text = json.dumps(feature, separators=(",", ":"), ensure_ascii=False)
    file.write(f"{',' if before else ''}\n{text}")


def _feature(
    outlined: Outlined, number: int, parts: list[Polygon], *, plane: int, name: str | None
) -> dict[str, Any]:
    coordinates = [[[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in parts]
    geometry: dict[str, Any] = {
        "type": "Polygon" if len(parts) == 1 else "MultiPolygon",
        "coordinates": coordinates[0] if len(parts) == 1 else coordinates,
    }
    if outlined.labels.planes > 1:
        t, z = divmod(plane, outlined.labels.size("z"))
        geometry["plane"] = {"c": -1, "z": z, "t": t}
    properties: dict[str, Any] = {"objectType": "detection", "name": str(number)}
    if not outlined.are_objects:
        properties = {"objectType": "annotation"}
        name = name or str(number)
    if name is not None:
        properties["classification"] = {"name": name}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


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


Format = Literal["tiff", "png", "geojson"]
Layer = Literal["instances", "classes", "probabilities"]
SUFFIXES: dict[Format, str] = {"tiff": ".tif", "png": ".png", "geojson": ".geojson"}


@dataclass(frozen=True)
class ExportReport:
    """What `export_prediction` wrote."""

    output: str  # the file; of a dataset the folder of files
    format: str
    layer: str
    files: int
    features: int | None  # outlines in all GeoJSON files
    bytes: int  # on disk
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "warnings": list(self.warnings)}


@collects_warnings
def export_prediction(
    prediction: str,
    *,
    to: Literal["tiff", "png", "geojson"] = "tiff",
    output: Annotated[
        str | None, Opt(flags=("--output", "-o"), default="beside the input", panel="Output")
    ] = None,
    layer: Annotated[
        Literal["instances", "classes", "probabilities"] | None,
        Opt(default="instances, else classes"),
    ] = None,
    labels: LabelName = None,
    axes: str | None = None,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write labels or probabilities as files that other programs open.

    Ids and classes stay as they are: a TIFF or PNG read again equals the labels, and so do the
    outlines filled again. A few blocks are in memory at a time. ImageJ and Fiji show ids as 32-bit
    floats: from 16,777,217 on neighbouring ids look alike there, and are still apart in the file.

    Parameters
    ----------
    prediction : str
        A prediction, or any image or dataset with labels.
    to : {"tiff", "png", "geojson"}
        TIFF for Fiji, in tiles with the pixel size; grey PNG, for one plane and ids up to 65535;
        or GeoJSON outlines for QuPath, in pixels: one feature an object, or a connected piece of
        a class.
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
    if to not in SUFFIXES:
        raise UsageError(f"to must be one of {', '.join(SUFFIXES)}, got {to!r}")
    dataset = open_dataset(prediction, axes=axes, labels=labels, mixed=True)
    alone = dataset.kind in ("image", "array")
    target = output or output_name(prediction, SUFFIXES[to] if alone else f"-{to}")
    check_local(target)
    if alone:
        _check_suffix(target, to)
    exports = [_Export(sample, to, _layer(sample, to, layer)) for sample in dataset.samples]
    features = 0
    with staged(target, inputs=[prediction], overwrite=overwrite) as partial:
        if not alone:
            # By this folder a later run knows that it may replace the one around it.
            make_folder(join(partial, FOLDER))
        progress.start("export", total=sum(export.steps for export in exports))
        for export in exports:
            name = f"{export.sample.name}{SUFFIXES[to]}"
            features += export.write(partial if alone else join(partial, name), progress)
    return ExportReport(
        output=target,
        format=to,
        layer=exports[0].layer,
        files=len(exports),
        features=features if to == "geojson" else None,
        bytes=bytes_on_disk(target),
    )


def _check_suffix(target: str, to: Format) -> None:
    """Refuse a name by which other programs would take the file for another format."""
    suffix = Path(target).suffix.lower()
    others = {ending: other for other, ending in SUFFIXES.items() if other != to}
    if suffix in others:
        raise UsageError(
            f"output must end with {SUFFIXES[to]} for --to {to}, got {target}; "
            f"name it so, or use --to {others[suffix]}"
        )


def _layer(sample: Sample, to: Format, wanted: Layer | None) -> Layer:
    """Say what of a sample is written."""
    there: list[Layer] = [
        layer for layer in ("instances", "classes") if layer in sample.image.labels
    ]
    if "prediction" in sample.image.attributes:
        there.append("probabilities")
    layer = wanted or next(iter(there), None)
    if not there and sample.image.other_labels:
        # The error that names them.
        sample.labels()
    if layer is None or layer not in there:
        found = ", ".join(there) or "no labels"
        remedy = f"use --layer {there[0]}" if there else "name a prediction, or what has labels"
        raise InputError(
            f"sample {sample.name!r} must have {layer or 'labels'} to be exported, got {found}; "
            f"{remedy}"
        )
    if layer == "probabilities" and to != "tiff":
        raise UsageError(f"probabilities must be exported to tiff, got {to!r}; use --to tiff")
    if to == "png" and sample.data.planes > 1:
        raise UsageError(
            f"a PNG must hold one plane, got {sample.data.planes} in {sample.name!r}; use --to tiff"
        )
    return layer


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
    def steps(self) -> int:
        """How often the work advances."""
        if self.to == "geojson":
            return self._outlined().steps
        looks = 0 if self.layer == "probabilities" else len(self.data.chunk_boxes(BLOCK))
        return looks + (bands(self.data) if self.to == "png" else tile_rows(self.data))

    def write(self, path: str, progress: Progress) -> int:
        """Write the file; returns how many outlines are in it."""
        if self.to == "geojson":
            about = {"version": __version__, "source": base_name(self.sample.image.url)}
            return write_outlines(path, self._outlined(), about=about, advance=progress.advance)
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

    def _outlined(self) -> Outlined:
        classes = self.sample.image.labels.get("classes")
        return Outlined(
            self.data,
            classes if self.layer == "instances" else None,
            self.sample.class_names,
            are_objects=self.layer == "instances",
        )

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
