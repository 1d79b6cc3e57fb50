"""Say what a store or a model file is, from its metadata alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from unetkit.errors import InputError, UsageError
from unetkit.models.model_card import model_card
from unetkit.models.model_header import PACKAGE_SUFFIX, SUFFIX, read_header
from unetkit.storage.collections import COLLECTIONS, list_fields
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import kind_of, named_axes, node_at, open_image, refuse_incomplete
from unetkit.storage.nodes import ArrayNode, GroupNode, plain, read_node
from unetkit.storage.object_classes import object_class_names
from unetkit.storage.ome import provenance_marks
from unetkit.storage.urls import base_name, bytes_on_disk, join

if TYPE_CHECKING:
    from unetkit.options import Opt
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

# What a group's attributes say that is told elsewhere.
TOLD = ("schema", "kind", "samples", "channel_names", "empty_chunks")


def info(
    source: str,
    *,
    card: bool = False,
    author: Annotated[tuple[str, ...], Opt(metavar="NAME")] = (),
    license: Annotated[str | None, Opt(metavar="SPDX")] = None,  # noqa: A002 - its usual name
) -> dict[str, Any]:
    """Describe a dataset, an image, a prediction or a model file.

    No pixel and no weight is read, and nothing is created.

    Parameters
    ----------
    source : str
        A Zarr of any kind, or a model file.
    card : bool
        Write of a model what people should know before they use it, as Markdown: data, scores,
        decision, limits.
    author : sequence of str
        Who made the model, for the card; may be repeated.
    license : str, optional
        What the model may be used for, for the card, such as CC-BY-4.0.

    Returns
    -------
    dict
        What JSON can hold. `kind` says which other entries there are: `dataset` and `stack` have
        `samples`; of a `plate`, a `well` or `series` these are listed and only the first is looked
        at; `image` and `array` have `axes`, `shape`, `dtype`, `chunks` and more; `model` has
        what the model file says, or `card`. Sizes on disk are in bytes, pixel sizes in micrometres.

    Raises
    ------
    MissingError
        If there is nothing.
    InputError
        If it is an unfinished output, an image file or anything else.
    UsageError
        If a card is asked for of anything but a model, or what belongs to one without it.
    """
    name = base_name(source)
    if (author or license) and not card:
        raise UsageError("author and license must come with a card, got none; add --card")
    if name.endswith((SUFFIX, PACKAGE_SUFFIX)):
        if not card:
            return _model(source)
        known = name.removesuffix(PACKAGE_SUFFIX).removesuffix(".bioimageio").removesuffix(SUFFIX)
        text = model_card(read_header(source), name=known, authors=author, licence=license)
        return {"source": source, "kind": "model", "card": text}
    if card:
        raise UsageError(f"a card must be of a model file, got {source}; leave out --card")
    refuse_incomplete(source)
    if name == ".unetkit":
        raise InputError(
            f"{source} must be a store, got the record inside one; name the folder around it"
        )
    return _plain({"source": source, **_store(source), "bytes": bytes_on_disk(source)})


def _store(source: str) -> dict[str, Any]:
    node = node_at(source)
    kind = kind_of(node)
    array = read_node(join(source, "images")) if kind == "stack" else node
    if isinstance(array, ArrayNode):
        dimensions = len(array.shape) - (kind == "stack")
        if named_axes(array, dimensions) is None:
            return _nameless(kind, array)
    if kind in COLLECTIONS and isinstance(node, GroupNode):
        return _collection(node, kind)
    if kind in ("image", "array"):
        (sample,) = open_dataset(source).samples
        return {"kind": kind, **_image(sample.image)}
    return _dataset(source)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {str(key): plain(entry) for key, entry in value.items()}


def _model(source: str) -> dict[str, Any]:
    header = read_header(source)
    size = bytes_on_disk(source)
    told = {**header.to_dict(), "intensities": _shortened(header.intensities)}
    return _plain({"source": source, "kind": "model", **told, "bytes": size})


def _shortened(intensities: dict[str, Any] | None) -> dict[str, Any] | None:
    """Say of the many quantiles of each channel the lowest, the middle one and the highest."""
    rows = (intensities or {}).get("quantiles")
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        return intensities
    rest = {name: value for name, value in (intensities or {}).items() if name != "quantiles"}
    ends = {"lowest": 0, "median": 0.5, "highest": 1}
    few = {key: [row[round(at * (len(row) - 1))] for row in rows] for key, at in ends.items()}
    return {**few, **rest}


def _channels(image: Image) -> list[str]:
    """Name the channels; a grey image without a name has none to tell."""
    return [] if image.channel_names == ("0",) else list(image.channel_names)


def _dataset(source: str) -> dict[str, Any]:
    dataset = open_dataset(source, mixed=True, empty=True)
    return {
        "kind": dataset.kind,
        "count": len(dataset.samples),
        "labelled": sum(sample.label_kind is not None for sample in dataset.samples),
        "sources": len({sample.source for sample in dataset.samples}),
        **_groups(dataset),
        "samples": [_sample(sample) for sample in dataset.samples],
        "provenance": _provenance(dataset.attributes),
    }


def _groups(dataset: Dataset) -> dict[str, Any]:
    """Count the samples of each group, where any was told."""
    counts = Counter(sample.group for sample in dataset.samples if sample.group is not None)
    return {"groups": dict(counts)} if counts else {}


def _collection(node: GroupNode, kind: str) -> dict[str, Any]:
    """List a collection; of its images only the first is looked at, which may be of thousands."""
    broken: dict[str, str] = {}
    fields = list_fields(node, broken=broken)
    first = None
    for field in fields:
        try:
            first = open_image(join(node.url, field.path))
        except InputError as error:
            broken[field.path] = str(error)
        else:
            break
    wells = {field.well: None for field in fields if field.well}
    return {
        "kind": kind,
        "count": len(fields),
        **({"wells": len(wells)} if wells else {}),
        "samples": [{"name": f.name, **f.position, "path": f.path} for f in fields],
        "first": None if first is None else {"path": field.path, **_image(first)},
        "broken": broken,
        "provenance": _provenance(provenance_marks(node)),
    }


def _sample(sample: Sample) -> dict[str, Any]:
    image = sample.image
    kind = sample.label_kind
    told = image.label_attributes.get(kind, {}) if kind else {}
    names = object_class_names(image) if kind == "instances" else ()
    return {
        "name": sample.name,
        "source": sample.source,
        **({} if sample.group is None else {"group": sample.group}),
        **_array(sample.data),
        "channels": _channels(image),
        "pixel_size": image.pixel_size,
        "levels": image.levels,
        "labels": kind,
        "other_labels": list(image.other_labels),
        "classes": list(sample.class_names),
        **({"objects": told["objects"]} if told.get("objects") is not None else {}),
        **({"object_classes": list(names[1:])} if names else {}),
        "ignore": sample.ignore is not None,
        "weights": sample.weights is not None,
        **_uncertainty(image),
    }


def _image(image: Image) -> dict[str, Any]:
    return {
        **_array(image.data),
        "channels": _channels(image),
        "pixel_size": image.pixel_size,
        "levels": image.levels,
        "labels": {
            name: {**_array(array), **_provenance(image.label_attributes.get(name, {}))}
            for name, array in image.labels.items()
        },
        "other_labels": list(image.other_labels),
        "weights": None
        if image.weights is None
        else {**_array(image.weights), **_provenance(image.weights_attributes)},
        **_uncertainty(image),
        "provenance": _provenance(image.attributes),
    }


def _uncertainty(image: Image) -> dict[str, Any]:
    """Describe the layer of `tile-predict --uncertainty`, where there is one."""
    layer = image.uncertainty
    if layer is None:
        return {}
    return {"uncertainty": {**_array(layer), **_provenance(image.uncertainty_attributes)}}


def _array(array: PlaneArray) -> dict[str, Any]:
    return {
        "axes": array.axes,
        "shape": array.shape,
        "dtype": str(array.dtype),
        "chunks": array.chunks,
    }


def _nameless(kind: str, array: ArrayNode) -> dict[str, Any]:
    """Describe an array whose axes nothing tells; commands that read it take `--axes`."""
    return {
        "kind": kind,
        "axes": None,
        "shape": array.shape,
        "dtype": str(array.dtype),
        "chunks": array.chunks,
    }


def _provenance(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in TOLD}
