"""The job of `augment`: one copy of one sample, deformed plane by plane."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unetkit.arrays.appearance import Appearance, apply_appearance
from unetkit.arrays.deformation import Deformation, deform
from unetkit.engine.tileio import fit_image
from unetkit.storage.files import discard
from unetkit.storage.images import create_image, create_labels, create_weights
from unetkit.storage.urls import exists

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

AXES = "tczyx"


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
    """Write a copy with all that belongs to it; planes are read, changed and written one by one.

    Raises
    ------
    NumbersError
        If the image of a changed copy has NaN or Inf.
    """
    if exists(copy.url):
        # A worker that was lost left a part of it.
        discard(copy.url)
    outputs = _create(copy)
    data = copy.sample.data
    normalization = None if copy.appearance is None else _normalization(data)
    for plane in range(data.planes):
        parts = {name: _whole(array, plane) for name, array in _inputs(copy.sample).items()}
        if copy.deformation is not None:
            parts = _deformed(parts, copy.deformation)
        if copy.appearance is not None:
            parts["image"] = apply_appearance(
                parts["image"], copy.appearance, normalization=normalization, stream=plane
            )
        for name, block in parts.items():
            outputs[name].write(plane, 0, 0, block)


def _inputs(sample: Sample) -> dict[str, PlaneArray]:
    """Name everything that belongs to a sample."""
    arrays = {"image": sample.data, **sample.image.labels}
    if sample.weights is not None:
        arrays["weights"] = sample.weights
    return arrays


def _whole(array: PlaneArray, plane: int) -> NDArray[Any]:
    return array.read(plane, 0, array.height, 0, array.width)


def _deformed(parts: dict[str, NDArray[Any]], deformation: Deformation) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    for name, array in parts.items():
        if name == "image":
            moved = deform(array, deformation).image
        elif name == "weights":
            moved = deform(None, deformation, weights=array).weights
        else:
            moved = deform(None, deformation, labels=array).labels
        if moved is not None:
            out[name] = moved
    return out


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
