"""Write a prediction as files that other programs open: TIFF, PNG, GeoJSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import unetkit
from unetkit.errors import InputError, UsageError
from unetkit.pipeline.export_outlines import Outlined, write_outlines
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset
from unetkit.storage.files import check_local, make_folder, output_name, staged
from unetkit.storage.journal import FOLDER
from unetkit.storage.png_writing import bands, write_png
from unetkit.storage.tiff_writing import tile_rows, write_tiff
from unetkit.storage.urls import base_name, bytes_on_disk, join

if TYPE_CHECKING:
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

Format = Literal["tiff", "png", "geojson"]
Layer = Literal["instances", "classes", "probabilities"]
SUFFIXES: dict[Format, str] = {"tiff": ".tif", "png": ".png", "geojson": ".geojson"}
BLOCK = 1024


@dataclass(frozen=True)
class ExportReport:
    """What `export_prediction` wrote.

    Parameters
    ----------
    output : str
        The file; of a dataset the folder of files.
    format : str
        `tiff`, `png` or `geojson`.
    layer : str
        `instances`, `classes` or `probabilities`.
    files : int
        How many files were written.
    features : int or None
        Outlines in all GeoJSON files.
    bytes : int
        What they take on disk.
    """

    output: str
    format: str
    layer: str
    files: int
    features: int | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def export_prediction(
    prediction: str,
    *,
    to: Format = "tiff",
    output: str | None = None,
    layer: Layer | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write labels or probabilities for other programs, a few blocks at a time.

    Ids and classes stay as they are: a TIFF or PNG read again equals the labels, and so do the
    outlines filled again.

    Parameters
    ----------
    prediction : str
        A prediction, or any image or dataset with labels.
    to : {"tiff", "png", "geojson"}
        OME-TIFF in tiles, with the pixel size, for Fiji and others; grey PNG, for one plane and
        ids up to 65535; GeoJSON with an outline for each object, in pixels, for QuPath.
    output : str, optional
        The file, or of a dataset the folder; left out, beside the prediction.
    layer : {"instances", "classes", "probabilities"}, optional
        What to write; left out, the instances, and without them the classes.
    overwrite : bool
        Replace an earlier export.
    progress : Progress
        Who is told.

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
    SurroundingsError
        If the disk is full or refuses.
    """
    if to not in SUFFIXES:
        raise UsageError(f"to must be one of {', '.join(SUFFIXES)}, got {to!r}")
    dataset = open_dataset(prediction, mixed=True)
    alone = dataset.kind in ("image", "array")
    target = output or output_name(prediction, SUFFIXES[to] if alone else f"-{to}")
    check_local(target)
    if alone:
        _check_suffix(target, to)
    exports = [_Export(sample, to, _layer(sample, to, layer)) for sample in dataset.samples]
    if not exports:
        raise InputError(f"{prediction} must hold a sample to be exported, got none")
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
    """Refuse a name by which other programs would take the file for another format.

    Raises
    ------
    UsageError
        If it ends like one of the other formats.
    """
    suffix = Path(target).suffix.lower()
    others = {ending: other for other, ending in SUFFIXES.items() if other != to}
    if suffix in others:
        raise UsageError(
            f"output must end with {SUFFIXES[to]} for --to {to}, got {target}; "
            f"name it so, or use --to {others[suffix]}"
        )


def _layer(sample: Sample, to: Format, wanted: Layer | None) -> Layer:
    """Say what of a sample is written.

    Raises
    ------
    InputError
        If it is not there.
    UsageError
        If the format can't hold it.
    """
    there: list[Layer] = [
        layer for layer in ("instances", "classes") if layer in sample.image.labels
    ]
    if "prediction" in sample.image.attributes:
        there.append("probabilities")
    layer = wanted or next(iter(there), None)
    if layer is None or layer not in there:
        found = ", ".join(there) or "no labels"
        raise InputError(
            f"sample {sample.name!r} must have {layer or 'labels'} to be exported, got {found}; "
            "name a prediction, or another --layer"
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
        looks = 0 if self.layer == "probabilities" else len(_places(self.data))
        return looks + (bands(self.data) if self.to == "png" else tile_rows(self.data))

    def write(self, path: str, progress: Progress) -> int:
        """Write the file; returns how many outlines are in it."""
        if self.to == "geojson":
            about = {"version": unetkit.__version__, "source": base_name(self.sample.image.url)}
            return write_outlines(path, self._outlined(), about=about, advance=progress.advance)
        common: dict[str, Any] = {
            "dtype": self._dtype(progress),
            "software": f"unetkit {unetkit.__version__}",
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
        narrow = np.uint8 if self.layer == "classes" and largest < 256 else np.uint16
        return np.dtype(narrow if largest < 65536 else np.uint32)


def _largest(data: PlaneArray, progress: Progress) -> int:
    """Find the largest label, a few chunks at a time."""
    largest = 0
    for place in _places(data):
        largest = max(largest, int(data.read(*place).max()))
        progress.advance()
    return largest


def _places(data: PlaneArray) -> list[tuple[int, int, int, int, int]]:
    """List boxes of a few whole chunks, as `read` takes them."""
    high = data.chunk[0] * max(1, BLOCK // data.chunk[0])
    wide = data.chunk[1] * max(1, BLOCK // data.chunk[1])
    return [
        (plane, y, min(y + high, data.height), x, min(x + wide, data.width))
        for plane in range(data.planes)
        for y in range(0, data.height, high)
        for x in range(0, data.width, wide)
    ]
