"""The job of `augment`: one copy of one sample, deformed plane by plane and tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.appearance import Appearance, apply_appearance, draw_appearance
from unetkit.arrays.deformation import (
    SAMPLING,
    Deformation,
    draw_deformation,
    folds,
    grid_lines,
    sampler,
)
from unetkit.arrays.meanings import OF_IDS, meaning_of, target_names
from unetkit.arrays.weight_map import stored_balance, stored_preset
from unetkit.engine.block_io import fit_image
from unetkit.engine.label_tiles import TileJob, context_of, survey_depths, tile_weights
from unetkit.errors import InputError
from unetkit.geometry.tiles import cover
from unetkit.storage.image_file import AXES
from unetkit.storage.image_writer import create_image, create_labels, create_weights
from unetkit.storage.images import open_image
from unetkit.storage.object_classes import read_object_classes, write_object_classes
from unetkit.storage.outputs import discard
from unetkit.storage.pixel_size import in_pixels, split_length
from unetkit.storage.pyramids import downscaled
from unetkit.storage.urls import base_name, exists
from unetkit.views.pictures import augmentation_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.arrays.resampling import Box
    from unetkit.storage.datasets import Dataset, DatasetWriter, Sample
    from unetkit.storage.planes import PlaneArray

# Pixels a side, a multiple of the chunks that are written: large beside what a movement adds to it.
TILE = 2048


@dataclass(frozen=True)
class Copy:
    """A copy to make; small, so that it travels to any worker."""

    sample: Sample
    name: str  # of the copy
    url: str
    attributes: dict[str, Any]  # provenance of the copy
    deformation: Deformation | None = None  # None for the original
    appearance: Appearance | None = None
    # What was drawn first, where the movement is another since that would fold the image.
    folded: Deformation | None = None


def make_copy(copy: Copy) -> None:
    """Write a copy with all that belongs to it; tiles are read, changed and written one by one."""
    if exists(copy.url):
        # A worker that was lost left a part of it.
        discard(copy.url)
    weighing = _weighing(copy)
    outputs = _create(copy)
    size = outputs["image"].height, outputs["image"].width
    maker = _Maker(copy, without=() if weighing is None else ("weights",))
    for plane in range(copy.sample.data.planes):
        for tile in cover(*size, tile=TILE):
            parts = maker.make(plane, (tile.y0, tile.y1, tile.x0, tile.x1))
            for name, block in parts.items():
                outputs[name].write(plane, tile.y0, tile.x0, block)
    if weighing is not None:
        _weigh(outputs, weighing)


def _weighing(copy: Copy) -> dict[str, Any] | None:
    """Return how the weights of a copy follow from its labels; None where they are moved along.

    Moved weights don't fit moved labels: labels move to the nearest pixel and weights between
    pixels, and a gap is cut to the left of a cell whichever way the cell is turned.
    """
    sample, stored = copy.sample, copy.sample.image.weights_attributes
    if copy.deformation is None or sample.weights is None or sample.label_kind is None:
        return None
    target, preset = str(stored.get("target")), stored_preset(stored)
    fits = ("classes",) if sample.label_kind == "classes" else OF_IDS
    if target not in fits or preset is None:
        return None
    balance = stored_balance(stored, target_names(target, sample.class_names))
    if balance is None and (target == "classes" or preset.background is None):
        return None
    if copy.deformation.quarter_turns % 2:
        preset = replace(preset, spacing=preset.spacing[::-1])
    return {"target": target, "preset": preset, "balance": balance or ()}


def _weigh(outputs: dict[str, PlaneArray], weighing: dict[str, Any]) -> None:
    """Weigh the labels of a copy, which are written, as the command `weights` would."""
    target: str = weighing["target"]
    labels = outputs["classes" if target == "classes" else "instances"]
    ignore = outputs.get("ignore")
    overlap = context_of(target, weighing["preset"])
    if meaning_of(target).bands:
        labels = survey_depths(labels, ignore, target=target, scheduler="sync")
    tiles = cover(labels.height, labels.width, tile=TILE, overlap=overlap)
    for plane, tile in product(range(labels.planes), tiles):
        job = TileJob(labels=labels, ignore=ignore, plane=plane, tile=tile, **weighing)
        outputs["weights"].write(plane, tile.y0, tile.x0, tile_weights(job))


class _Maker:
    """Makes parts of a copy; each has the bits that it would have in the whole."""

    def __init__(self, copy: Copy, *, without: Sequence[str] = ()) -> None:
        self._copy = copy
        inputs = _inputs(copy.sample)
        self._inputs = {name: array for name, array in inputs.items() if name not in without}
        data = copy.sample.data
        shape = data.height, data.width
        self._sampler = None if copy.deformation is None else sampler(copy.deformation, shape)
        self._normalization = None if copy.appearance is None else _normalization(data)

    def make(self, plane: int, box: Box) -> dict[str, NDArray[Any]]:
        """Return everything that belongs to a box of a plane of the copy."""
        parts = self._moved(plane, box)
        if self._copy.appearance is not None:
            parts["image"] = apply_appearance(
                parts["image"],
                self._copy.appearance,
                normalization=self._normalization,
                stream=plane,
                corner=(box[0], box[2]),
            )
        return parts

    def _moved(self, plane: int, box: Box) -> dict[str, NDArray[Any]]:
        source = box if self._sampler is None else self._sampler.source(box)
        parts = {name: array.read(plane, *source) for name, array in self._inputs.items()}
        if self._sampler is None:
            return parts
        # What is neither image nor weights is labels of some kind.
        pairs = [(part, SAMPLING.get(name, SAMPLING["labels"])) for name, part in parts.items()]
        moved = self._sampler(pairs, box=box, corner=(source[0], source[2]))
        return dict(zip(parts, moved, strict=True))


def _inputs(sample: Sample) -> dict[str, PlaneArray]:
    """Name everything that belongs to a sample."""
    arrays = {"image": sample.data, **sample.image.labels}
    if sample.weights is not None:
        arrays["weights"] = sample.weights
    return arrays


@lru_cache(maxsize=64)
def _normalization(data: PlaneArray) -> Normalization:
    # All copies of a sample vary the same range; fitting it also refuses NaN and Inf.
    return fit_image(data)


def _create(copy: Copy) -> dict[str, PlaneArray]:
    """Create the empty arrays of a copy."""
    sample, image = copy.sample, copy.sample.image
    turned = copy.deformation is not None and copy.deformation.quarter_turns % 2 == 1
    axes = "".join(axis for axis in AXES if axis in sample.data.axes)
    sizes = {axis: sample.data.size(axis) for axis in axes} | (
        {"c": sample.data.channel_count} if "c" in axes else {}
    )
    pixel_size = dict(image.pixel_size or {})
    if turned:
        sizes = _swapped(sizes)
        pixel_size = _swapped(pixel_size)
    outputs = {
        "image": create_image(
            copy.url,
            shape=list(sizes.values()),
            axes=axes,
            dtype=sample.data.dtype,
            channel_names=image.channel_names,
            pixel_size=pixel_size or None,
            attributes=copy.attributes,
            name=copy.name,
        )
    }
    plain = axes.replace("c", "")
    shape = [sizes[axis] for axis in plain]
    for kind, labels in image.labels.items():
        outputs[kind] = create_labels(
            copy.url,
            kind,
            shape=shape,
            axes=plain,
            dtype=labels.dtype,
            attributes=image.label_attributes.get(kind),
        )
    if (classes := read_object_classes(image)) is not None:
        write_object_classes(outputs["instances"], classes)
    if sample.weights is not None:
        outputs["weights"] = create_weights(
            copy.url,
            shape=shape,
            axes=plain,
            attributes=_weights_attributes(copy),
        )
    return outputs


def _weights_attributes(copy: Copy) -> dict[str, Any]:
    """Say how a copy's weights were made, and by which pixels they are measured."""
    stored, weighing = copy.sample.image.weights_attributes, _weighing(copy)
    if weighing is None:
        return dict(stored)
    return {**stored, "spacing": list(weighing["preset"].spacing), "made_from": "moved labels"}


def _swapped(values: dict[str, Any]) -> dict[str, Any]:
    """Exchange what is said of y and of x."""
    other = {"y": "x", "x": "y"}
    return {axis: values.get(other.get(axis, axis), value) for axis, value in values.items()}


# The second number of a seed: what is drawn. No two draws of the library share one.
DRAW_DEFORMATION, DRAW_APPEARANCE = 101, 102


@dataclass(frozen=True)
class Strengths:
    """How much is drawn; the options of the same names."""

    grid: int
    sigma: float | str
    shift: float
    rotation: float
    flips: bool
    grey: float
    allow_folds: bool = False

    def check(self) -> None:
        """Judge the strengths before anything is read or written."""
        self._draw([0], [0], sigma=(split_length(self.sigma, name="sigma")[0],) * 2, shape=None)

    def draw(
        self, seed: int, place: tuple[int, int], sample: Sample
    ) -> tuple[Deformation, Appearance]:
        """Draw the change of one copy; `place` is the number of the sample and that of the copy.

        The pixel size of the sample says how many pixels a micrometre is; its size, what folds it.
        """
        return self._draw(
            [seed, DRAW_DEFORMATION, *place],
            [seed, DRAW_APPEARANCE, *place],
            sigma=in_pixels(self.sigma, sample.image.pixel_size, name="sigma", sample=sample.name),
            shape=None if self.allow_folds else (sample.data.height, sample.data.width),
        )

    def folded(self, seed: int, place: tuple[int, int], sample: Sample) -> Deformation | None:
        """Return what is drawn first for a copy, where it would fold the image and is not taken."""
        if self.allow_folds:
            return None
        drawn, _ = replace(self, allow_folds=True).draw(seed, place, sample)
        return drawn if folds(drawn, (sample.data.height, sample.data.width)) else None

    def _draw(
        self,
        movement: list[int],
        greys: list[int],
        *,
        sigma: tuple[float, float],
        shape: tuple[int, int] | None,
    ) -> tuple[Deformation, Appearance]:
        deformation = draw_deformation(
            np.random.default_rng(movement),
            points=self.grid,
            sigma=sigma,
            rotation=self.rotation,
            shift=self.shift,
            flips=self.flips,
            unfolded_in=shape,
        )
        return deformation, draw_appearance(np.random.default_rng(greys), strength=self.grey)


def replayed(url: str, dataset: Dataset, writer: DatasetWriter) -> list[Copy]:
    """List the original and the copy that are to be made again from the record of `url`."""
    attributes = open_image(url).attributes
    try:
        deformation = Deformation.from_dict(attributes["deformation"])
        appearance = Appearance.from_dict(attributes["appearance"])
        original = str(attributes["original"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{url} must be a sample that 'unetkit augment' made to be made again, got one without "
            "its record; name a sample such as more.zarr/a-aug001"
        ) from error
    sample = _original(dataset, original)
    kin = {"source": sample.source, "group": sample.group}
    first = writer.reserve(sample.name, **kin)
    name = base_name(url)
    second = writer.reserve(name, **kin)
    return [
        Copy(sample, sample.name, first, sample.image.attributes),
        Copy(sample, name, second, dict(attributes), deformation, appearance),
    ]


def _original(dataset: Dataset, name: str) -> Sample:
    if name not in dataset.names:
        raise InputError(
            f"{dataset.url} must hold the sample {name!r} to make its copy again, got "
            f"{', '.join(dataset.names[:5])}; name the dataset that was augmented"
        )
    return dataset[name]


# Our own choices: what fits a screen or two, at a size at which single cells are seen.
ROWS = 8
SIDE = 1024


def write_preview(path: str, *, source: Dataset, output: Dataset, copies: Sequence[Copy]) -> None:
    """Write a few originals beside their deformed copies, as a PNG.

    The first copy of each sample comes first, then the second, up to eight in all.
    """
    # What follows the name of the sample sorts by the number of the copy.
    rounds = sorted(copies, key=lambda copy: copy.name.removeprefix(copy.sample.name))
    rows = (
        _row(source[copy.sample.name], output[copy.name], copy.deformation)
        for copy in rounds
        if copy.deformation is not None
    )
    augmentation_sheet(path, list(islice(rows, ROWS)))


def _row(original: Sample, deformed: Sample, deformation: Deformation) -> dict[str, Any]:
    data = original.data
    # Both sides are made smaller alike, so that one grid fits.
    step = -(-max(data.height, data.width) // SIDE)
    lines = grid_lines(deformation, (data.height, data.width))
    return {
        "original": _small(data, step),
        "deformed": _small(deformed.data, step),
        "labels": _labels(original, step),
        "deformed_labels": _labels(deformed, step),
        "grid_lines": lines / step,
        "title": original.name,
    }


def _labels(sample: Sample, step: int) -> NDArray[Any] | None:
    return None if sample.label_kind is None else _small(sample.labels(), step)


def _small(array: PlaneArray, step: int) -> NDArray[Any]:
    return downscaled(array, array.planes // 2, factor=step)
