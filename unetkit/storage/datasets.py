"""A dataset, many samples of differing sizes in one store: opened, built and added to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.errors import (
    InputError,
    LabelError,
    MissingError,
    OutputError,
    UsageError,
    command_line,
)
from unetkit.storage.atomic import asides, sweep_removed, write_bytes, write_text
from unetkit.storage.chunks import empty_chunks
from unetkit.storage.collections import COLLECTIONS, each_at_once, list_fields
from unetkit.storage.image_file import are_axes
from unetkit.storage.image_writer import (
    create_image,
    create_labels,
    create_weights,
    update_attributes,
)
from unetkit.storage.images import (
    Image,
    bare_image,
    choose_channels,
    choose_labels,
    find_channels,
    kind_of,
    node_at,
    ome_image,
    refuse_incomplete,
    stack_images,
)
from unetkit.storage.nodes import (
    ArrayNode,
    GroupNode,
    create_group,
    read_node,
    replace_attributes,
)
from unetkit.storage.ome import (
    COLLECTION,
    COLLECTION_XML,
    FORMATS,
    LAYOUT,
    SCHEMA,
    ListedSample,
    array_below,
    collection_xml,
    listed_samples,
    ome_part,
    provenance_marks,
    read_multiscale,
)
from unetkit.storage.outputs import discard, written_by_unetkit
from unetkit.storage.pyramids import add_pyramid
from unetkit.storage.urls import (
    base_name,
    exists,
    files_below,
    inside,
    is_remote,
    is_segment,
    join,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unetkit.progress import Told
    from unetkit.storage.collections import Field
    from unetkit.storage.ome import OmeVersion
    from unetkit.storage.planes import PlaneArray

    Array = np.ndarray[Any, Any]


class DatasetWriter:
    """Builds a dataset, commonly inside a partial, or adds to one.

    Samples are written first and listed by `finish`, so that a reader never sees half a sample.
    A dataset that is created should get samples of its own OME version.
    """

    def __init__(
        self,
        url: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        ome_version: OmeVersion = "0.5",
    ) -> None:
        self.url = url
        self._samples: dict[str, ListedSample] = {}
        self._added: list[str] = []
        node = read_node(url)
        if node is None:
            own = {**(attributes or {}), "schema": SCHEMA, "kind": "dataset", "samples": []}
            create_group(url, {"unetkit": own}, zarr_format=FORMATS[ome_version])
            return
        if not isinstance(node, GroupNode) or provenance_marks(node).get("kind") != "dataset":
            raise InputError(f"{url} must be a dataset to add samples, got another Zarr store")
        self._samples = {sample.name: sample for sample in listed_samples(node)}
        if attributes:
            update_attributes(url, **attributes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples so far."""
        return tuple(self._samples)

    def reserve(self, name: str, *, source: str | None = None, group: str | None = None) -> str:
        """Add a name to the list, and return where the sample is to be created.

        What an interrupted run left there, with its name in no list, is still there. `source` is
        what the sample was made from, itself where left out, and `group` what it belongs to.
        """
        if not _may_be_sample(name):
            raise InputError(
                f"a sample's name must be a plain folder name, got {name!r}; rename the file"
            )
        if name in self._samples:
            raise OutputError(f"a sample's name must be new, got {name!r} twice; rename the file")
        self._samples[name] = ListedSample(name, source or name, group)
        self._added.append(name)
        return join(self.url, name)

    def add(
        self,
        name: str,
        image: Array,
        *,
        source: str | None = None,
        group: str | None = None,
        **parts: Any,
    ) -> None:
        """Write a sample from arrays in memory; see `write_sample` for the parts."""
        place = self.reserve(name, source=source, group=group)
        if exists(place):
            discard(place)
        try:
            write_sample(place, image, **parts)
        except BaseException:
            del self._samples[name]
            self._added.remove(name)
            if exists(place):
                discard(place)
            raise

    def remove(self, names: Sequence[str]) -> None:
        """Take samples out, off the list first, so that it never names one that is not there.

        Those that an earlier removal had taken off the list, and not from the disk, go as well.
        """
        left = {name for name in names if name not in self.names and self._is_left(name)}
        lost = [name for name in names if name not in (*self.names, *left)]
        if lost:
            raise InputError(
                f"samples of {self.url} must be among {listed_names(self.names)}, got"
                f" {listed_names(lost)}; 'unetkit info' lists them"
            )
        self._samples = {k: v for k, v in self._samples.items() if k not in names}
        if not self._samples:
            raise UsageError(
                f"a sample must be left in {self.url}, got the names of all; remove its folder"
            )
        if not left.issuperset(names):
            self._list()
        for name in dict.fromkeys(names):
            discard(join(self.url, name))
        sweep_removed(self.url)

    def _is_left(self, name: str) -> bool:
        """Tell whether there is a sample, or a part of one, that is in no list."""
        if not _may_be_sample(name):
            return False
        place = join(self.url, name)
        return written_by_unetkit(place) or (not is_remote(place) and bool(asides(place)))

    def finish(self, *, warnings: Sequence[str] = ()) -> None:
        """Add pyramids to the new samples, make sure that all are there, and list them.

        The list keeps what was warned of meanwhile, beside the warnings that it has. What killed
        jobs left of samples that they removed goes.
        """
        for name in tuple(self._added):
            self.add_levels(name)
        self._list(warnings)
        sweep_removed(self.url)

    def add_levels(self, name: str, told: Told = lambda _: None) -> None:
        """Add its pyramid to a new sample that is written; `told` takes the share that is done."""
        if read_node(join(self.url, name)) is None:
            raise InputError(f"sample {name!r} of {self.url} must be written, got nothing")
        add_pyramid(join(self.url, name), told=told)
        self._added.remove(name)

    def _list(self, warnings: Sequence[str] = ()) -> None:
        """List the samples, for viewers too; viewers see the earlier list where that fails."""
        node = read_node(self.url)
        if not isinstance(node, GroupNode):
            raise InputError(f"{self.url} must be a dataset, got none there; check the path")
        marks = provenance_marks(node)
        marks |= {"samples": [sample.to_dict() for sample in self._samples.values()]}
        if warnings:
            marks["warnings"] = list(dict.fromkeys((*marks.get("warnings", ()), *warnings)))
        document: dict[str, Any] = {"unetkit": marks}
        if COLLECTION in self.names:  # of an earlier version
            replace_attributes(self.url, document)
            return
        document |= ome_part(LAYOUT, zarr_format=node.zarr_format)
        folder = join(self.url, COLLECTION)
        before = {path: read(join(folder, path)) for path in files_below(folder)}
        try:
            self._list_for_viewers(folder, node.zarr_format)
            replace_attributes(self.url, document)
        except BaseException:
            with suppress(Exception):
                if not before:
                    discard(folder)
                for path, data in before.items():
                    write_bytes(join(folder, path), data)
            raise

    def _list_for_viewers(self, folder: str, zarr_format: Literal[2, 3]) -> None:
        images = []
        for name in self.names:
            group = read_node(join(self.url, name))
            multiscale = read_multiscale(group) if isinstance(group, GroupNode) else None
            if multiscale is not None:
                images.append((name, name, multiscale, array_below(multiscale.paths[0])))
        series = ome_part({"series": [name for name, *_ in images]}, zarr_format=zarr_format)
        if read_node(folder) is None:
            create_group(folder, series, zarr_format=zarr_format)
        else:
            replace_attributes(folder, series)
        write_text(join(folder, COLLECTION_XML), collection_xml(images))


def _may_be_sample(name: str) -> bool:
    is_taken = name.lower() in ("zarr.json", COLLECTION.lower())
    # A name of a file that is no UTF-8 comes with what no document can hold.
    is_odd = name.startswith(".") or any("\ud800" <= letter <= "\udfff" for letter in name)
    return is_segment(name) and not is_taken and not is_odd


def write_sample(
    url: str,
    image: Array,
    *,
    axes: str,
    labels: Array | None = None,
    kind: str = "instances",
    ignore: Array | None = None,
    weights: Array | None = None,
    class_names: Sequence[str] = (),
    channel_names: Sequence[str] = (),
    pixel_size: Mapping[str, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
    label_attributes: Mapping[str, Any] | None = None,
    weights_attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an image with what belongs to it, where nothing is yet; a worker may do it.

    `axes` are letters in the order t, c, z, y, x; the other parts have the image's axes without c.
    Labels are stored in the narrowest of uint8, 16 and 32 that fits; `ignore` is not 0 where pixels
    are to be ignored.
    """
    if kind not in ("instances", "classes"):
        raise UsageError(f"kind must be instances or classes, got {kind!r}")
    if not are_axes(axes, image.ndim):
        raise UsageError(f"axes must name the {image.ndim} axes of the image, got {axes!r}")
    plain = axes.replace("c", "")
    shape = tuple(n for n, axis in zip(image.shape, axes, strict=True) if axis != "c")
    for what, part in (("labels", labels), ("ignore", ignore), ("weights", weights)):
        if part is not None and part.shape != shape:
            raise InputError(
                f"{what} must be as large as their image, got {part.shape} for {shape} ({plain})"
            )
    array = create_image(
        url,
        shape=image.shape,
        axes=axes,
        dtype=image.dtype,
        channel_names=channel_names,
        pixel_size=pixel_size,
        attributes=attributes,
    )
    _fill(array, image, axes=axes)
    if (empty := empty_chunks(array)) is not None:
        update_attributes(url, empty_chunks=empty)
    same: dict[str, Any] = {"shape": shape, "axes": plain}
    if labels is not None:
        own = {**(label_attributes or {})}
        if class_names:
            own["class_names"] = list(class_names)
        dtype = label_dtype(labels)
        _fill(create_labels(url, kind, dtype=dtype, attributes=own, **same), labels, axes=plain)
    if ignore is not None:
        mask = (ignore != 0).astype(np.uint8)
        _fill(create_labels(url, "ignore", dtype=np.uint8, **same), mask, axes=plain)
    if weights is not None:
        target = create_weights(url, attributes=weights_attributes, **same)
        _fill(target, weights, axes=plain)


def label_dtype(labels: Array) -> np.dtype[Any]:
    """Choose the narrowest unsigned type that holds labels and that viewers know.

    >>> label_dtype(np.array([0, 300]))
    dtype('uint16')
    """
    if labels.dtype.kind not in "uib":
        raise LabelError(f"labels must be integers, got {labels.dtype}; round them first")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= 2**32:
        raise LabelError(f"labels must lie in 0 to 4294967295, got {low if low < 0 else high}")
    return np.min_scalar_type(high)


def _fill(target: PlaneArray, array: Array, *, axes: str) -> None:
    """Store an array plane by plane."""
    leading = [axis for axis in "tz" if axis in axes]
    order = [*leading, *(axis for axis in axes if axis not in "tz")]
    turned = array.transpose([axes.index(axis) for axis in order])
    planes = turned.reshape(target.planes, *turned.shape[len(leading) :])
    for number, plane in enumerate(planes):
        if plane.dtype.kind == "b":
            plane = plane.astype(np.uint8)
        if target.has_channels and "c" not in axes:
            plane = plane[np.newaxis]
        target.write(number, 0, 0, plane)


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, with its labels and weights."""

    name: str
    source: str  # samples made from one source never stand on both sides of a split
    image: Image
    dataset: str = ""  # where the dataset lies, for errors
    chosen: str | None = None  # the name of the labels, where the user chose them
    field: Field | None = None  # what lists it, where it is one of a collection
    # The animal, patient or well that it belongs to, if that was told; it goes before the source.
    group: str | None = None

    @property
    def path(self) -> str:
        """Where it lies below its dataset or collection."""
        return self.name if self.field is None else self.field.path

    @property
    def position(self) -> dict[str, str]:
        """Row, column and field of a plate, also where it came from one; empty for others."""
        if self.field is not None:
            return self.field.position
        told = self.image.attributes.get("plate")
        return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}

    @property
    def data(self) -> PlaneArray:
        """The pixels."""
        return self.image.data

    @property
    def label_kind(self) -> str | None:
        """`instances`, `classes`, or None where there are no labels."""
        return next((k for k in ("instances", "classes") if k in self.image.labels), None)

    def labels(self, kind: str | None = None) -> PlaneArray:
        """Return the labels of a kind, or of the kind there is."""
        wanted = kind or self.label_kind
        if wanted in self.image.labels:
            return self.image.labels[wanted]
        if self.label_kind is not None:
            raise InputError(
                f"sample {self.name!r} in {base_name(self.dataset or self.image.url)} must have "
                f"labels of the kind {kind!r}, got {self.label_kind}; import masks of {kind}, or "
                f"predict with a model that was trained on {kind}"
            )
        where = f"sample {self.name!r} in {base_name(self.dataset or self.image.url)}"
        others = self.image.other_labels
        if others:
            raise InputError(
                f"{where} must have labels named instances or classes, got {listed_names(others)};"
                f" choose with --labels {others[0]}, or {others[0]}=classes if they are classes"
            )
        what = "labels" if kind is None else f"labels of the kind {kind!r}"
        raise InputError(f"{where} has no {what}; run 'unetkit import' with --labels")

    @property
    def ignore(self) -> PlaneArray | None:
        """The mask of pixels that nothing may be learnt from or scored on, if there is one."""
        return self.image.labels.get("ignore")

    @property
    def weights(self) -> PlaneArray | None:
        """The stored weights, if there are any of these labels."""
        made_for = self.image.weights_attributes.get("labels")
        return self.image.weights if made_for == self.chosen else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if they were given."""
        return self.image.class_names


@dataclass(frozen=True)
class Dataset:
    """What was opened as a dataset: `kind` says what it is on disk."""

    url: str
    kind: str
    samples: tuple[Sample, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def with_pixel_size(self, sizes: Mapping[str, float]) -> Dataset:
        """Return the same with what a user tells of the size of its pixels, in micrometres."""
        images = [
            replace(s.image, pixel_size={**(s.image.pixel_size or {}), **sizes})
            for s in self.samples
        ]
        pairs = zip(self.samples, images, strict=True)
        return replace(self, samples=tuple(replace(s, image=image) for s, image in pairs))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples, in stored order."""
        return tuple(sample.name for sample in self.samples)

    def __getitem__(self, name: str) -> Sample:
        for sample in self.samples:
            if sample.name == name:
                return sample
        raise InputError(
            f"a sample of {self.url} must be one of {', '.join(self.names[:20])}, got {name!r}"
        )


def listed_names(names: Sequence[str], most: int = 8) -> str:
    """List names for a message, the first of them where there are many.

    >>> listed_names(["a", "b"]), listed_names("abcd", most=2)
    ("'a', 'b'", "'a', 'b', …")
    """
    return ", ".join(map(repr, names[:most])) + (", …" if len(names) > most else "")


def open_dataset(
    url: str,
    *,
    axes: str | None = None,
    channels: str | None = None,
    labels: str | None = None,
    trained: str | None = None,
    mixed: bool = False,
    empty: bool = False,
    broken: dict[str, str] | None = None,
) -> Dataset:
    """Open a dataset; an image, a stack, a bare array or a collection counts as one too.

    The samples of a plate are the fields of its wells, such as `A-01-0`; those of one well are of
    one source.

    Parameters
    ----------
    url : str
        A path or URL.
    axes : str, optional
        The axes of a bare array or of a stack's images, where they are not named.
    channels : str, optional
        Which channels, in which order: `0,2` or `DAPI,GFP`; numbers are those of the first sample.
    labels : str, optional
        Which labels, by name; `NAME=classes` where they are no instances.
    trained : str, optional
        The channels that a model was trained on, which are found by name where `channels` says
        nothing else.
    mixed : bool
        Whether samples may differ in their channel counts.
    empty : bool
        Whether there may be none at all.
    broken : dict of str to str, optional
        Takes the images of a collection that can't be read, by their paths, and why; left out,
        the first of them is an error.

    Returns
    -------
    Dataset
        Everything in it was judged, and no pixel was read. Samples that name the same channels in
        different orders have all that of the first.

    Raises
    ------
    MissingError
        If there is nothing.
    InputError
        If it is something else or damaged, if samples differ in their channel counts, or no sample
        has such labels.
    UsageError
        If `axes` or `channels` do not fit.
    """
    refuse_incomplete(url)
    node = node_at(url)
    kind = kind_of(node)
    chosen = partial(find_channels, trained=trained)
    if channels is not None:
        chosen = partial(choose_channels, channels=channels)
    if isinstance(node, ArrayNode):
        images = [bare_image(node, axes=axes)]
    elif kind == "image":
        images = [ome_image(node, axes=axes)]
    elif kind == "stack":
        images = list(stack_images(node, axes=axes))
    else:
        images = []
    alone = tuple(Sample(image.name, image.name, image, dataset=url) for image in images)
    samples = _listed(node) if kind == "dataset" else alone
    if kind in COLLECTIONS and isinstance(node, GroupNode):
        samples = _fields(node, axes=axes, broken=broken)
    if labels is not None:
        samples = _labelled(samples, labels)
    if broken and not samples:
        raise InputError(
            f"{url} must hold an image that can be read, got {len(broken)} that can't:"
            f" {next(iter(broken.values()))}"
        )
    if not (samples or empty):
        raise InputError(f"{url} must hold at least one sample, got none; import images")
    samples = _channels(aligned(samples), chosen, url=url, mixed=mixed, broken=broken)
    return Dataset(url, kind, samples, provenance_marks(node))


def _fields(
    node: GroupNode, *, axes: str | None, broken: dict[str, str] | None
) -> tuple[Sample, ...]:
    """Open the images of a collection, many at a time."""

    def look(field: Field) -> Sample | InputError:
        try:
            group = read_node(inside(node.url, field.path, what="an image's path"))
            if not isinstance(group, GroupNode) or read_multiscale(group) is None:
                raise InputError(
                    f"image {field.path!r} of {node.url} must be there, got none; restore it from"
                    " the original"
                )
            image = ome_image(group, axes=axes)
        except InputError as error:
            return error
        return Sample(field.name, field.source, image, dataset=node.url, field=field)

    listed = list_fields(node, broken=broken)
    samples = []
    for one, found in zip(listed, each_at_once(look, listed), strict=True):
        if isinstance(found, Sample):
            samples.append(found)
        elif broken is None:
            raise found
        else:
            broken[one.path] = str(found)
    return tuple(samples)


def _listed(node: ArrayNode | GroupNode) -> tuple[Sample, ...]:
    if not isinstance(node, GroupNode):
        return ()
    samples = []
    for listed in listed_samples(node):
        name = listed.name
        inside(node.url, name, what="a sample's name")
        group = read_node(join(node.url, name))
        if group is None:
            raise MissingError(
                f"sample {name!r} of {node.url} must be there, got none; take it off the list with "
                f"'{command_line('remove', node.url, name)}', or restore it"
            )
        if not isinstance(group, GroupNode) or kind_of(group) != "image":
            raise InputError(
                f"sample {name!r} of {node.url} must be an OME-Zarr image, got something else; "
                "import the data again"
            )
        image = ome_image(group)
        samples.append(Sample(name, listed.source, image, dataset=node.url, group=listed.group))
    return tuple(samples)


def _labelled(samples: tuple[Sample, ...], chosen: str) -> tuple[Sample, ...]:
    """Choose labels in every sample that has them; the others count as unlabelled."""
    name = chosen.partition("=")[0]
    found = tuple(
        replace(
            sample,
            image=choose_labels(sample.image, chosen),
            chosen=name if name in sample.image.other_labels else None,
        )
        for sample in samples
    )
    if not any(sample.label_kind for sample in found):
        there = {n: None for s in samples for n in (*s.image.labels, *s.image.other_labels)}
        raise InputError(
            f"labels must be among those of the image, got {name!r}; it has"
            f" {listed_names(list(there)) or 'none'}"
        )
    return found


def aligned(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Bring channels into the order of the first sample, where all have names and the same."""
    if not samples:
        return samples
    names = samples[0].image.channel_names
    return tuple(
        replace(sample, image=in_order(sample.image, names))
        if are_named(names) and sorted(sample.image.channel_names) == sorted(names)
        else sample
        for sample in samples
    )


def are_named(channels: Sequence[str]) -> bool:
    """Tell whether channels have names of their own, each another, rather than numbers.

    >>> are_named(["DAPI", "actin"]), are_named(["0", "1"]), are_named(["a", "a"])
    (True, False, False)
    """
    return len(set(channels)) == len(channels) and list(channels) != [
        str(number) for number in range(len(channels))
    ]


def order_remark(channels: Mapping[str, Sequence[str]]) -> str | None:
    """Say which images name other channels than the first, or in another order; None where none.

    `channels` are the names by image; where a side has only numbers there is nothing to compare.
    """
    kinds = {tuple(names): image for image, names in reversed(list(channels.items()))}
    named = [names for names in channels.values() if are_named(names)]
    if not named or len(kinds) < 2:
        return None
    shown = [f"{', '.join(names)} in {kinds[tuple(names)]!r}" for names in channels.values()]
    what = "names" if len({tuple(sorted(names)) for names in kinds}) > 1 else "orders"
    return f"channels have different {what}: {'; '.join(list(dict.fromkeys(shown))[:4])}"


def in_order(image: Image, names: Sequence[str]) -> Image:
    """Return the image with the channels of these names, in this order."""
    numbers = [image.channel_names.index(name) for name in names]
    return replace(image, data=image.data.pick(numbers), channel_names=tuple(names))


def _channels(
    samples: tuple[Sample, ...],
    chosen: Callable[[Image], Image],
    *,
    url: str,
    mixed: bool,
    broken: dict[str, str] | None = None,
) -> tuple[Sample, ...]:
    """Choose channels in every sample, and make sure that they have equally many."""
    found: list[Sample] = []
    for sample in samples:
        one = replace(sample, image=chosen(sample.image))
        first = found[0] if found and not mixed else one
        if one.data.channel_count == first.data.channel_count:
            found.append(one)
            continue
        said = (
            f"samples of {url} must have equally many channels, got "
            f"{first.data.channel_count} in {first.name!r} and {one.data.channel_count} in "
            f"{one.name!r}; choose some with --channels, or import them apart"
        )
        if broken is None or one.field is None:
            raise InputError(said)
        broken[one.path] = said
    return tuple(found)
