"""The job of `augment`: one copy of one sample, deformed plane by plane and tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unetkit.arrays.appearance import Appearance, apply_appearance
from unetkit.arrays.deformation import SAMPLING, Deformation
from unetkit.arrays.movement import sampler
from unetkit.engine.tileio import fit_image
from unetkit.geometry.tiles import cover
from unetkit.storage.files import discard
from unetkit.storage.images import create_image, create_labels, create_weights
from unetkit.storage.urls import exists

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.arrays.resampling import Box
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

AXES = "tczyx"
# Pixels a side, a multiple of the chunks that are written: large beside what a movement adds to it.
TILE = 2048


@dataclass(frozen=True)
class Copy:
    """A copy to make; small, so that it travels to any worker.

    Parameters
    ----------
    sample : Sample
        What is copied.
    name : str
        What the copy is called.
    url : str
        Where it is created.
    attributes : dict
        Provenance of the copy.
    deformation, appearance : optional
        How it is changed; None for the original.
    """

    sample: Sample
    name: str
    url: str
    attributes: dict[str, Any]
    deformation: Deformation | None = None
    appearance: Appearance | None = None


def make_copy(copy: Copy) -> None:
    """Write a copy with all that belongs to it; tiles are read, changed and written one by one.

    Raises
    ------
    NumbersError
        If the image of a changed copy has NaN or Inf.
    """
    if exists(copy.url):
        # A worker that was lost left a part of it.
        discard(copy.url)
    outputs = _create(copy)
    size = outputs["image"].height, outputs["image"].width
    maker = _Maker(copy)
    for plane in range(copy.sample.data.planes):
        for tile in cover(*size, tile=TILE):
            parts = maker.make(plane, (tile.y0, tile.y1, tile.x0, tile.x1))
            for name, block in parts.items():
                outputs[name].write(plane, tile.y0, tile.x0, block)


class _Maker:
    """Makes parts of a copy; each has the bits that it would have in the whole."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._inputs = _inputs(copy.sample)
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
            pixel_size=pixel_size or None,
        )
    if sample.weights is not None:
        outputs["weights"] = create_weights(
            copy.url,
            shape=shape,
            axes=plain,
            attributes=image.weights_attributes,
            pixel_size=pixel_size or None,
        )
    return outputs


def _swapped(values: dict[str, Any]) -> dict[str, Any]:
    """Exchange what is said of y and of x."""
    other = {"y": "x", "x": "y"}
    return {axis: values.get(other.get(axis, axis), value) for axis, value in values.items()}
