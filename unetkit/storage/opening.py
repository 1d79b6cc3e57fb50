"""An image with all that belongs to it, read from OME-Zarr metadata or from a bare array."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, LabelError, UsageError
from unetkit.storage.detection import node_at
from unetkit.storage.metadata import (
    AXES,
    Multiscale,
    are_axes,
    array_below,
    channel_names,
    check_axes,
    marks,
    ome,
    read_multiscale,
)
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.planes import PlaneArray, plane_array
from unetkit.storage.urls import base_name, inside, join, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = ("instances", "classes", "ignore")


@dataclass(frozen=True)
class Image:
    """An image with what belongs to it: channel names, pixel size, labels, weights.

    Parameters
    ----------
    url : str
        Where it lies.
    name : str
        The last part of the URL without `.zarr`; in a stack, the sample's number.
    data : PlaneArray
        The pixels of level 0.
    channel_names : tuple of str
        One a channel; its number where the store has no name for it.
    pixel_size : dict of str to float, optional
        Micrometres along y, x and perhaps z.
    levels : int
        How many pyramid levels there are; 1 without a pyramid.
    attributes : dict
        What this library wrote about it.
    labels : dict of str to PlaneArray
        Those of `instances`, `classes` and `ignore` that are there.
    label_attributes : dict of str to dict
        What this library wrote about each of them, such as class names.
    weights : PlaneArray, optional
        Weights of the pixels.
    weights_attributes : dict
        How they were computed.
    other_labels : tuple of str
        Names of labels that this library does not read.
    """

    url: str
    name: str
    data: PlaneArray
    channel_names: tuple[str, ...] = ()
    pixel_size: dict[str, float] | None = None
    levels: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, PlaneArray] = field(default_factory=dict)
    label_attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: PlaneArray | None = None
    weights_attributes: dict[str, Any] = field(default_factory=dict)
    other_labels: tuple[str, ...] = ()


def bare_image(node: ArrayNode, *, axes: str | None) -> Image:
    """See an array without OME metadata as an image."""
    letters = array_axes(node, ndim=len(node.shape), axes=axes)
    data = plane_array(node, axes=letters, has_channels=True)
    names = tuple(str(number) for number in range(data.channel_count))
    return Image(url=node.url, name=stem(node.url), data=data, channel_names=names)


def array_axes(node: ArrayNode, *, ndim: int, axes: str | None) -> str:
    """Find the axes of the last `ndim` dimensions of an array: as told, by name, or y, x.

    Raises
    ------
    InputError
        If nothing says what they are; the error names `--axes`.
    """
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
    names = [name.lower() for name in (node.dimension_names or ())[-ndim:]]
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
    weights, weights_attributes = _weights(node.url, data)
    return Image(
        url=node.url,
        name=stem(node.url),
        data=data,
        channel_names=channel_names(node, data.channel_count),
        pixel_size=multiscale.pixel_size,
        levels=len(multiscale.paths),
        attributes=marks(node),
        labels=labels,
        label_attributes=label_attributes,
        weights=weights,
        weights_attributes=weights_attributes,
        other_labels=others,
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
    listing = read_node(folder)
    names = ome(listing).get("labels", []) if isinstance(listing, GroupNode) else []
    if not isinstance(names, list):
        raise InputError(f"labels of {url} must be a list of names, got {names!r:.100}")
    places = {name: inside(folder, name, what="a label's name") for name in map(_text, names)}
    arrays, attributes = {}, {}
    for name in LABELS:
        if name in places:
            arrays[name], attributes[name] = _part(places[name], data, kinds="uib")
    return arrays, attributes, tuple(name for name in places if name not in LABELS)


def _text(name: object) -> str:
    # A path that is no text is made one that `inside` refuses.
    return name if isinstance(name, str) else f"/{name!r}"


def _weights(url: str, data: PlaneArray) -> tuple[PlaneArray | None, dict[str, Any]]:
    place = join(url, "weights")
    if read_node(place) is None:
        return None, {}
    return _part(place, data, kinds="f")


def _part(url: str, data: PlaneArray, *, kinds: str) -> tuple[PlaneArray, dict[str, Any]]:
    """Open labels or weights, which must have the image's axes without c, and its sizes."""
    node = node_at(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be an OME-Zarr image, got a bare array; import it again")
    part = _level_0(_multiscale(node), has_channels=False)
    check_part(part, data, kinds=kinds)
    return part, marks(node)


def check_part(part: PlaneArray, data: PlaneArray, *, kinds: str) -> None:
    """Make sure that labels or weights fit their image.

    Raises
    ------
    LabelError
        If the numbers are of another kind than `kinds` (numpy's letters).
    InputError
        If an axis is of another size.
    """
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
    """Return the image with the channels that `--channels` names, in that order.

    Raises
    ------
    UsageError
        If a channel is not there or named twice.
    """
    if channels is None:
        return image
    numbers = channel_numbers(channels, image.channel_names, of=image.url)
    names = tuple(image.channel_names[number] for number in numbers)
    return replace(image, data=image.data.pick(numbers), channel_names=names)


def channel_numbers(channels: str, names: Sequence[str], *, of: str) -> list[int]:
    """Turn what `--channels` names into numbers; a name counts before a number.

    >>> channel_numbers("GFP,0", ["DAPI", "GFP"], of="slide.zarr")
    [1, 0]

    Parameters
    ----------
    channels : str
        Names or numbers, separated by commas.
    names : sequence of str
        The names of the channels that there are.
    of : str
        What has them, for the error.

    Raises
    ------
    UsageError
        If a channel is not there or named twice.
    """
    numbers: list[int] = []
    for word in (word.strip() for word in channels.split(",")):
        if word in names:
            number = list(names).index(word)
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
