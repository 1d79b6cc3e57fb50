"""The way in to images: detect what lies at a path, and open it judged whole."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import InputError, LabelError, UsageError, command_line
from unetkit.storage.collections import COLLECTIONS, kind_of_collection, list_fields
from unetkit.storage.image_file import AXES, are_axes
from unetkit.storage.journal import Journal
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.ome import (
    UNCERTAINTY,
    Multiscale,
    Placement,
    array_below,
    axis_letter,
    channel_names,
    check_axes,
    label_names,
    listed_samples,
    provenance_marks,
    read_multiscale,
    told_pixel_size,
)
from unetkit.storage.planes import IndexedPlanes, PlaneArray, plane_array
from unetkit.storage.urls import (
    base_name,
    children,
    exists,
    inside,
    is_remote,
    is_segment,
    join,
    missing,
    read,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

# Images of a collection that are looked at for one to be named.
LOOKED_AT = 20
Kind = Literal["dataset", "image", "stack", "array", "plate", "well", "series"]

# What an import reads without a plugin.
IMAGE_SUFFIXES = (".tif", ".tiff", ".tf2", ".tf8", ".btf", ".png", ".jpg", ".jpeg")


def detect(url: str) -> Kind:
    """Tell what kind of store lies at a path or URL; nothing is created, whatever is there."""
    refuse_incomplete(url)
    return kind_of(node_at(url))


def refuse_incomplete(url: str) -> None:
    """Refuse to read the folder in which an output is still being made, or was when it ended."""
    name = base_name(url)
    if name.startswith(".") and name.endswith(".unetkit-partial") and exists(url):
        parts = sum(not key.startswith("//") for key in Journal(url).done())
        raise InputError(
            f"{url} must be a finished output, got an incomplete one with {parts} parts done; run "
            "the command that writes it again, where it has it with --resume"
        )


def node_at(url: str) -> ArrayNode | GroupNode:
    """Read the metadata of a store, or say what there is instead of one."""
    node = read_node(url)
    if node is None:
        raise _no_store(url)
    return node


def kind_of(node: ArrayNode | GroupNode) -> Kind:
    """Tell what kind of store a node is, as `detect` does."""
    if isinstance(node, ArrayNode):
        return "array"
    if provenance_marks(node).get("kind") == "dataset":
        return "dataset"
    if read_multiscale(node) is not None:
        return "image"
    if isinstance(read_node(join(node.url, "images")), ArrayNode):
        return "stack"
    collection = kind_of_collection(node)
    if collection is not None:
        return collection
    raise InputError(
        f"{node.url} must be a dataset, an OME-Zarr image, a stack with an array 'images' or an "
        "array, got another Zarr group; name what lies inside it, or run 'unetkit import'"
    )


def _no_store(url: str) -> InputError:
    """Say why something is no store, and what would make it one."""
    if not exists(url):
        return missing(url)
    line = command_line("import", url, f"{stem(url) or 'data'}.zarr")
    if is_remote(url):
        return InputError(f"{url} must be a Zarr store, got none there; check the URL")
    path = Path(url)
    if path.is_dir():
        pictures = [name for name in children(url) if name.lower().endswith(IMAGE_SUFFIXES)]
        if pictures:
            return InputError(
                f"{url} must be a Zarr store, got a folder of {len(pictures)} image files; "
                f"run '{line}'"
            )
        return InputError(f"{url} must be a Zarr store, got a folder without one; check the path")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        name = base_name(url)
        line = command_line("import", url, f"{name.removesuffix(path.suffix)}.zarr")
        return InputError(f"{url} must be a Zarr store, got an image file; run '{line}'")
    if path.suffix == ".safetensors":
        return InputError(
            f"{url} must be a Zarr store, got a model file; name it with --model where one is read"
        )
    if path.suffix in (".zip", ".ozx") or _begins_with(url, b"PK\x03\x04"):
        return InputError(f"{url} must be a Zarr store in a folder, got a zip file; unpack it")
    return InputError(f"{url} must be a Zarr store, got a file; run 'unetkit import' with an image")


def _begins_with(url: str, start: bytes) -> bool:
    with suppress(OSError):
        return Path(url).is_file() and read(url, stop=len(start)) == start
    return False


LABELS = ("instances", "classes", "ignore")


@dataclass(frozen=True)
class Image:
    """An image with what belongs to it: channel names, pixel size, labels, weights.

    ``np.asarray(image)`` reads its pixels, `to_dask` gives them lazily; both have the axes `axes`.
    """

    url: str
    name: str  # the last part of the URL without `.zarr`; in a stack, the sample's number
    data: PlaneArray  # the pixels of level 0
    channel_names: tuple[str, ...] = ()  # numbers where the store has no names
    pixel_size: dict[str, float] | None = None  # micrometres along y, x and perhaps z
    placement: Placement | None = None  # what the store says of where its pixels lie
    levels: int = 1  # 1 without a pyramid
    attributes: dict[str, Any] = field(default_factory=dict)  # what this library wrote
    labels: dict[str, PlaneArray] = field(default_factory=dict)  # those of `LABELS` there are
    label_attributes: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each of them
    weights: PlaneArray | None = None
    weights_attributes: dict[str, Any] = field(default_factory=dict)  # how they were computed
    other_labels: tuple[str, ...] = ()  # names of labels that this library does not read
    uncertainty: PlaneArray | None = None  # of a prediction, 0 to 255
    uncertainty_attributes: dict[str, Any] = field(default_factory=dict)  # its scale, and of what

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of a class map, background first; empty if they were not given."""
        names = self.label_attributes.get("classes", {}).get("class_names")
        if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
            raise InputError(
                f"class_names of {self.labels['classes'].url} must be names, got {names!r:.100};"
                " write the labels again with the tool that made them"
            )
        return tuple(names or ())

    @property
    def axes(self) -> str:
        """One letter of t, c, z, y, x for each axis, as they are stored."""
        return self.data.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along `axes`, along c the number of chosen channels."""
        return IndexedPlanes(self.data).shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels."""
        return self.data.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Read all pixels; NumPy asks so."""
        return self.data.__array__(dtype, copy)

    def to_dask(self, chunks: Any = None) -> Any:
        """Return the pixels as a lazy Dask array; see `PlaneArray.to_dask`."""
        return self.data.to_dask(chunks)


def bare_image(node: ArrayNode, *, axes: str | None) -> Image:
    """See an array without OME metadata as an image."""
    letters = array_axes(node, ndim=len(node.shape), axes=axes)
    data = plane_array(node, axes=letters, has_channels=True)
    names = tuple(str(number) for number in range(data.channel_count))
    return Image(url=node.url, name=stem(node.url), data=data, channel_names=names)


def array_axes(node: ArrayNode, *, ndim: int, axes: str | None) -> str:
    """Find the axes of the last `ndim` dimensions of an array: as told, by name, or y, x."""
    found = check_axes(axes, ndim, url=node.url) if axes is not None else named_axes(node, ndim)
    if found is None:
        example = "cyx" if ndim == 3 else AXES[-ndim:]
        raise InputError(
            f"{node.url} must name its {ndim} dimensions, got shape {node.shape} and names "
            f"{list(node.dimension_names or ())}; add --axes, such as --axes {example}"
        )
    return found


def named_axes(node: ArrayNode, ndim: int) -> str | None:
    """Return what the names of the last `ndim` dimensions say; two without names are y, x."""
    names = [axis_letter(name) for name in (node.dimension_names or ())[-ndim:]]
    if all(len(name) == 1 for name in names) and are_axes("".join(names), ndim):
        return "".join(names)
    return "yx" if ndim == 2 else None


def ome_image(node: GroupNode, *, axes: str | None = None) -> Image:
    """Read an OME-Zarr image with its labels and weights."""
    multiscale = _multiscale(node)
    if axes is not None and axes.lower() != multiscale.axes:
        raise UsageError(
            f"axes must be {multiscale.axes!r} as {node.url} says itself, got {axes!r}; "
            "leave --axes out"
        )
    data = _level_0(multiscale, has_channels=True)
    labels, label_attributes, others = _labels(node.url, data)
    weights, weights_attributes = _beside(node.url, "weights", data, kinds="f")
    uncertainty, uncertainty_attributes = _uncertainty(node.url, data)
    return Image(
        url=node.url,
        name=stem(node.url),
        data=data,
        channel_names=channel_names(node, data.channel_count),
        pixel_size=told_pixel_size(node) or multiscale.pixel_size,
        placement=multiscale.placement,
        levels=len(multiscale.paths),
        attributes=provenance_marks(node),
        labels=labels,
        label_attributes=label_attributes,
        weights=weights,
        weights_attributes=weights_attributes,
        other_labels=others,
        uncertainty=uncertainty,
        uncertainty_attributes=uncertainty_attributes,
    )


def _multiscale(node: GroupNode) -> Multiscale:
    multiscale = read_multiscale(node)
    if multiscale is None:
        raise InputError(f"{node.url} must be an OME-Zarr image, got another Zarr group")
    return multiscale


def _level_0(multiscale: Multiscale, *, has_channels: bool) -> PlaneArray:
    array = array_below(multiscale.paths[0])
    if len(array.shape) != len(multiscale.axes):
        raise InputError(
            f"{array.url} must have the axes {multiscale.axes!r} of its metadata, got shape "
            f"{array.shape}; write the store again with the tool that made it"
        )
    return plane_array(array, axes=multiscale.axes, has_channels=has_channels)


def _labels(
    url: str, data: PlaneArray
) -> tuple[dict[str, PlaneArray], dict[str, dict[str, Any]], tuple[str, ...]]:
    """Open the labels that this library knows by name, and name the others."""
    folder = join(url, "labels")
    names = label_names(read_node(folder))
    for name in names:
        if not isinstance(name, str) or not all(map(is_segment, name.split("/"))):
            inside(folder, name, what="a label's name")
    arrays, attributes = {}, {}
    for name in LABELS:
        if name in names:
            arrays[name], attributes[name] = _labels_at(url, name, data)
    return arrays, attributes, tuple(dict.fromkeys(n for n in names if n not in LABELS))


def _labels_at(url: str, name: str, data: PlaneArray) -> tuple[PlaneArray, dict[str, Any]]:
    place = inside(join(url, "labels"), name, what="a label's name")
    return _part(place, data, kinds="uib")


def choose_labels(image: Image, chosen: str) -> Image:
    """Return the image with the labels that `--labels` names as its only ones, ignored ones apart.

    Of a name that other writers gave, only the user knows what it means: instances, or classes
    where `=classes` follows it.
    """
    name, _, meaning = chosen.partition("=")
    kind = meaning or (name if name in image.labels else "instances")
    if kind not in ("instances", "classes") or (name in LABELS and kind != name):
        raise UsageError(
            f"labels must be a name such as cells, or cells=classes, got {chosen!r}; 'unetkit info'"
            " lists the names"
        )
    kept = {key: labels for key, labels in image.labels.items() if key == "ignore"}
    if name in image.labels:
        return replace(image, labels={name: image.labels[name], **kept})
    if name not in image.other_labels:
        return replace(image, labels=kept)
    array, attributes = _labels_at(image.url, name, image.data)
    told = {**image.label_attributes, kind: attributes}
    return replace(image, labels={kind: array, **kept}, label_attributes=told)


def _beside(
    url: str, name: str, data: PlaneArray, *, kinds: str
) -> tuple[PlaneArray | None, dict[str, Any]]:
    place = join(url, name)
    if read_node(place) is None:
        return None, {}
    return _part(place, data, kinds=kinds)


def _uncertainty(url: str, data: PlaneArray) -> tuple[PlaneArray | None, dict[str, Any]]:
    """Open the layer of ours; what others may have of that name is none."""
    node = read_node(join(url, UNCERTAINTY))
    own = isinstance(node, GroupNode) and provenance_marks(node).get("kind") == UNCERTAINTY
    return _beside(url, UNCERTAINTY, data, kinds="u") if own else (None, {})


def _part(url: str, data: PlaneArray, *, kinds: str) -> tuple[PlaneArray, dict[str, Any]]:
    """Open labels or weights, which must have the image's axes without c, and its sizes."""
    node = node_at(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be an OME-Zarr image, got a bare array; import it again")
    part = _level_0(_multiscale(node), has_channels=False).over(data)
    check_part(part, data, kinds=kinds)
    return part, provenance_marks(node)


def check_part(part: PlaneArray, data: PlaneArray, *, kinds: str) -> None:
    """Make sure that labels or weights are of some kinds (numpy's letters) and fit their image."""
    if part.dtype.kind not in kinds:
        rule = "be integers" if "u" in kinds else "be floats"
        raise LabelError(f"{part.url} must {rule}, got {part.dtype}; import it again")
    for axis in "tzyx":
        if part.size(axis) != data.size(axis) or part.size("c") != 1:
            raise InputError(
                f"{part.url} must be as large as its image, got {part.shape} for the image's "
                f"{data.shape} ({data.axes}); import image and labels again"
            )


def choose_channels(image: Image, channels: str | None) -> Image:
    """Return the image with the channels that `--channels` names, in that order."""
    if channels is None:
        return image
    numbers = channel_numbers(channels, image.channel_names, of=image.url)
    names = tuple(image.channel_names[number] for number in numbers)
    return replace(image, data=image.data.pick(numbers), channel_names=names)


def find_channels(image: Image, trained: str | None) -> Image:
    """Return the image with the channels that a model was `trained` on, in that order.

    They are found by name; in an image whose channels have no names they are where they are.
    """
    if trained is None:
        return image
    numbers = all(word.strip().isdecimal() for word in trained.split(","))
    bare = image.channel_names == tuple(map(str, range(len(image.channel_names))))
    if bare and not numbers:
        return image
    try:
        return choose_channels(image, trained)
    except UsageError as error:
        raise InputError(
            f"{base_name(image.url)} must have the channels that the model was trained on, got"
            f" {', '.join(image.channel_names)} where it was trained on {trained}; if they go by"
            " other names, say which with --channels, in that order"
        ) from error


def channel_numbers(channels: str, names: Sequence[str], *, of: str) -> list[int]:
    """Turn what `--channels` names into numbers; a name counts before a number.

    Capitals make a difference only where two names differ in nothing else.

    >>> channel_numbers("gfp,0", ["DAPI", "GFP"], of="slide.zarr")
    [1, 0]
    """
    numbers: list[int] = []
    plain = [name.casefold() for name in names]
    for word in (word.strip() for word in channels.split(",")):
        if word in names:
            number = list(names).index(word)
        elif plain.count(word.casefold()) == 1:
            number = plain.index(word.casefold())
        elif word.isdecimal() and int(word) < len(names):
            number = int(word)
        else:
            there = ", ".join(f"{i} ({n})" if n != str(i) else repr(n) for i, n in enumerate(names))
            raise UsageError(
                f"channels must be among those of {base_name(of)}, got {word!r}; it has "
                f"{'channel' if len(names) == 1 else 'channels'} {there}"
            )
        if number in numbers:
            raise UsageError(
                f"channels must name each channel once, got {channels!r}; name the others"
            )
        numbers.append(number)
    return numbers


def stack_images(node: GroupNode, *, axes: str | None = None) -> tuple[Image, ...]:
    """See each entry along the first axis of a stack as an image, named 0000, 0001, ...

    The labels are instances, unless the attribute `unetkit.label_kind` says `classes`. `axes` are
    those of one image, needed where they have more than y and x and no names.
    """
    images = read_node(join(node.url, "images"))
    if not isinstance(images, ArrayNode) or len(images.shape) < 3:
        raise InputError(f"images of {node.url} must be an array (N, Y, X) or more, got another")
    letters = array_axes(images, ndim=len(images.shape) - 1, axes=(axes or "").lstrip("nN") or None)
    plain = "".join(axis for axis in letters if axis != "c")
    kind = provenance_marks(node).get("label_kind", "instances")
    if kind not in ("instances", "classes"):
        raise InputError(f"label_kind of {node.url} must be instances or classes, got {kind!r}")
    parts = {name: _part_of(node, name, images, axes=plain) for name in ("labels", "weights")}
    found = []
    for item in range(images.shape[0]):
        data = plane_array(images, axes=letters, has_channels=True, item=item)
        labels = _item(parts["labels"], item, data, axes=plain, kinds="uib")
        found.append(
            Image(
                url=node.url,
                name=f"{item:04d}",
                data=data,
                channel_names=tuple(str(number) for number in range(data.channel_count)),
                labels={} if labels is None else {kind: labels},
                label_attributes={} if labels is None else {kind: provenance_marks(node)},
                weights=_item(parts["weights"], item, data, axes=plain, kinds="f"),
            )
        )
    return tuple(found)


def _part_of(node: GroupNode, name: str, images: ArrayNode, *, axes: str) -> ArrayNode | None:
    part = read_node(join(node.url, name))
    if not isinstance(part, ArrayNode):
        return None
    if part.shape[0] != images.shape[0] or len(part.shape) != len(axes) + 1:
        raise InputError(
            f"{part.url} must have one entry (N, {', '.join(axes).upper()}) for each of "
            f"{images.shape[0]} images, got shape {part.shape}; write the stack again"
        )
    return part


def _item(
    part: ArrayNode | None, item: int, data: PlaneArray, *, axes: str, kinds: str
) -> PlaneArray | None:
    if part is None:
        return None
    planes = plane_array(part, axes=axes, has_channels=False, item=item)
    check_part(planes, data, kinds=kinds)
    return planes


def open_image(url: str, *, axes: str | None = None, channels: str | None = None) -> Image:
    """Open an image: OME-Zarr 0.5 or 0.4, a bare array, or a store with one image.

    Parameters
    ----------
    url : str
        A path or URL.
    axes : str, optional
        The axes of a bare array with more than two dimensions and no dimension names.
    channels : str, optional
        Which channels, in which order: `0,2` or `DAPI,GFP`; names count before numbers.

    Returns
    -------
    Image

    Raises
    ------
    MissingError
        If there is nothing.
    InputError
        If it is no image, damaged, or its parts do not fit together.
    UsageError
        If `axes` or `channels` do not fit the image.
    """
    node = node_at(url)
    kind = kind_of(node)
    if isinstance(node, ArrayNode):
        image = bare_image(node, axes=axes)
    elif kind == "image":
        image = ome_image(node, axes=axes)
    else:
        image = _only_image(node, axes=axes, kind=kind)
    return choose_channels(image, channels)


def _only_image(node: GroupNode, *, axes: str | None, kind: str) -> Image:
    """Return the image of a dataset or stack that has one."""
    if kind == "stack":
        images = stack_images(node, axes=axes)
        if len(images) == 1:
            return images[0]
        raise InputError(f"{node.url} must hold one image, got a stack of {len(images)}")
    if kind in COLLECTIONS:
        return _only_field(node, axes=axes, kind=kind)
    places = [join(node.url, sample.name) for sample in listed_samples(node)]
    if len(places) == 1:
        inside(node.url, base_name(places[0]), what="a sample's name")
        return open_image(places[0], axes=axes)
    hint = f"name one, such as {places[0]}" if places else "run 'unetkit import' first"
    raise InputError(f"{node.url} must hold one image, got a dataset of {len(places)}; {hint}")


def _only_field(node: GroupNode, *, axes: str | None, kind: str) -> Image:
    """Return the image of a collection that lists one."""
    fields = list_fields(node, broken={})
    places = (join(node.url, field.path) for field in fields[:LOOKED_AT])
    found = next((place for place in places if isinstance(read_node(place), GroupNode)), None)
    if len(fields) == 1 and found:
        inside(node.url, fields[0].path, what="an image's path")
        return open_image(found, axes=axes)
    hint = f"name one, such as {found}" if found else "restore them from the original"
    raise InputError(f"{node.url} must hold one image, got a {kind} of {len(fields)}; {hint}")
