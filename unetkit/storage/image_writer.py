"""New OME-Zarr images, labels and weights; level 0 first, the pyramid when it is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.atomic import sync_documents, waits_once, write_json, write_jsons
from unetkit.storage.image_file import AXES, are_axes
from unetkit.storage.nodes import (
    GroupNode,
    create_array,
    create_group,
    read_node,
    replace_attributes,
    with_attributes,
)
from unetkit.storage.ome import (
    FORMATS,
    UNCERTAINTY,
    NewGroup,
    OmeVersion,
    Placement,
    label_names,
    ome,
    ome_part,
    omero,
    placement_of,
    provenance_marks,
    read_multiscale,
)
from unetkit.storage.planes import PlaneArray, plane_array
from unetkit.storage.urls import base_name, children, exists, is_segment, join, stem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike

# Up to so many channels lie in one chunk, because they are read together.
CHANNELS_A_CHUNK = 8


def create_image(
    url: str,
    *,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    chunk: int = 512,
    channel_names: Sequence[str] = (),
    pixel_size: Mapping[str, float] | None = None,
    placement: Placement | None = None,
    attributes: Mapping[str, Any] | None = None,
    fill_value: float = 0,
    name: str | None = None,
    ome_version: OmeVersion = "0.5",
) -> PlaneArray:
    """Create an OME-Zarr image where nothing is yet, and return its level 0, to be written.

    `axes` are letters in the order t, c, z, y, x; `pixel_size` is in micrometres along y, x and
    perhaps z, unless the `placement` of another image says more; `attributes` go under `unetkit`.
    Viewers know integers to 32 bits and float32, and some only OME-Zarr 0.4. Labels and weights
    follow the version of their image.
    """
    _check_axes_order(axes, len(shape))
    count = shape[axes.index("c")] if "c" in axes else 1
    if channel_names and len(channel_names) != count:
        raise UsageError(
            f"channel names must be {count} for {base_name(url)}, got {len(channel_names)}; "
            "give one name a channel"
        )
    own = dict(attributes or {})
    extra: dict[str, Any] = {}
    if channel_names:
        own["channel_names"] = list(channel_names)
    if channel_names and "c" in axes and np.dtype(dtype) == np.uint8:
        extra["omero"] = omero(channel_names)
    where = placement or placement_of(pixel_size)
    return _create(
        url,
        NewGroup("image", name or stem(url), axes, where, own, extra, FORMATS[ome_version]),
        shape=shape,
        dtype=dtype,
        chunk=chunk,
        fill_value=fill_value,
    )


def create_labels(
    url_of_image: str,
    name: str,
    *,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    chunk: int = 512,
    attributes: Mapping[str, Any] | None = None,
    listed: bool = True,
) -> PlaneArray:
    """Create labels of an image, of its axes without c, and list them with the image's labels.

    They lie where the image lies. Names other than `instances`, `classes` and `ignore` are kept
    but not read. Those that are not `listed` count once `list_labels` was called for them, after
    `sync_documents`.
    """
    _check_axes_order(axes, len(shape))
    zarr_format, placement = _image_group(url_of_image)
    if np.dtype(dtype).kind not in "ui" or "c" in axes:
        raise LabelError(f"labels must be integers without a c axis, got {np.dtype(dtype)}, {axes}")
    if not is_segment(name):
        raise UsageError(f"the name of labels must be a plain folder name, got {name!r}")
    extra = {"image-label": {"version": "0.5", "source": {"image": "../../"}}}
    folder = join(url_of_image, "labels")
    group = NewGroup("labels", name, axes, placement, attributes or {}, extra, zarr_format)
    array = _create(join(folder, name), group, shape=shape, dtype=dtype, chunk=chunk)
    if not listed:
        return array
    if read_node(folder) is not None:
        # What is listed must be there, even after a power cut.
        sync_documents(join(folder, name))
    list_labels(url_of_image, name)
    return array


def list_labels(url_of_image: str, *names: str) -> None:
    """List labels with those of an image; of none it is made sure that there is a list."""
    if (changed := _listing(url_of_image, names)) is not None:
        write_json(*changed)


def list_new_labels(urls_of_images: Sequence[str], name: str) -> None:
    """List labels that many images got, once all that was created is safe on the disk."""
    changed = {url: _listing(url, (name,)) for url in urls_of_images}
    documents = dict(filter(None, changed.values()))
    if not waits_once(len(documents)):
        for url, document in changed.items():
            if document is not None:
                sync_documents(join(url, "labels", name))
    write_jsons(documents)


def _listing(url_of_image: str, names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the path and the content of a list with more names; None where it says all.

    Where there is no list yet it is created.
    """
    folder = join(url_of_image, "labels")
    listing = read_node(folder)
    before = label_names(listing)
    listed: dict[str, Any] = {"labels": list(dict.fromkeys([*before, *names]))}
    if isinstance(listing, GroupNode):
        if listed["labels"] == before:
            return None
        # The version of another writer stays.
        zarr_format = listing.zarr_format
        kept = ome(listing) if zarr_format == 3 and "ome" in listing.attributes else {}
        return with_attributes(folder, ome_part({**kept, **listed}, zarr_format=zarr_format))
    image = read_node(url_of_image)
    zarr_format = 3 if image is None else image.zarr_format
    create_group(folder, ome_part(listed, zarr_format=zarr_format), zarr_format=zarr_format)
    return None


def create_weights(
    url_of_image: str,
    *,
    shape: Sequence[int],
    axes: str,
    chunk: int = 512,
    attributes: Mapping[str, Any] | None = None,
    at: str | None = None,
) -> PlaneArray:
    """Create float32 weights of an image, an OME-Zarr image of its own, of its axes without c.

    They lie at `weights` below the image, or `at` a partial that takes their place when complete.
    """
    _check_axes_order(axes, len(shape))
    zarr_format, placement = _image_group(url_of_image)
    place = at or join(url_of_image, "weights")
    group = NewGroup("weights", "weights", axes, placement, attributes or {}, {}, zarr_format)
    return _create(place, group, shape=shape, dtype=np.float32, chunk=chunk)


def create_uncertainty(
    url_of_image: str,
    *,
    shape: Sequence[int],
    axes: str,
    chunk: int = 512,
    attributes: Mapping[str, Any] | None = None,
) -> PlaneArray:
    """Create a uint8 layer of how sure a prediction is, an OME-Zarr image of its axes without c.

    It lies at `uncertainty` below the prediction. Unlike a label it has means in smaller levels.
    """
    _check_axes_order(axes, len(shape))
    zarr_format, placement = _image_group(url_of_image)
    group = NewGroup(UNCERTAINTY, UNCERTAINTY, axes, placement, attributes or {}, {}, zarr_format)
    place = join(url_of_image, UNCERTAINTY)
    return _create(place, group, shape=shape, dtype=np.uint8, chunk=chunk)


def update_attributes(url: str, **unetkit: Any) -> None:
    """Merge values that JSON can hold into a group's own attributes, and keep all others."""
    node = read_node(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be a Zarr group, got none there; check the path")
    replace_attributes(url, {"unetkit": {**provenance_marks(node), **unetkit}})


def _create(
    url: str,
    group: NewGroup,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    chunk: int,
    fill_value: float = 0,
) -> PlaneArray:
    """Create a group and its level 0; a partial may hold a journal already."""
    if exists(url) and set(children(url)) - {".unetkit"}:
        raise OutputError(f"{url} must not exist yet, got something there; add --overwrite")
    if min(shape) < 1:
        raise InputError(f"an image must have no axis of size 0, got shape {tuple(shape)}")
    axes, zarr_format = group.axes, group.zarr_format
    sides = {"y": chunk, "x": chunk, "c": CHANNELS_A_CHUNK}
    if "c" in axes and shape[axes.index("c")] > CHANNELS_A_CHUNK:
        sides["c"] = 1
    create_group(url, group.attributes(), zarr_format=zarr_format)
    node = create_array(
        join(url, "0"),
        shape=shape,
        axes=axes,
        dtype=np.dtype(dtype),
        chunks=[sides.get(axis, 1) for axis in axes],
        fill_value=fill_value,
        zarr_format=zarr_format,
    )
    return plane_array(node, axes=axes, has_channels=group.kind == "image")


def _check_axes_order(axes: str, ndim: int) -> None:
    if not are_axes(axes, ndim) or "".join(sorted(axes, key=AXES.index)) != axes:
        raise UsageError(
            f"axes of an image must be {ndim} letters in the order t, c, z, y, x, got {axes!r}; "
            "turn the array first"
        )


def _image_group(url: str) -> tuple[Literal[2, 3], Placement]:
    node = read_node(url)
    multiscale = read_multiscale(node) if isinstance(node, GroupNode) else None
    if node is None or multiscale is None:
        raise InputError(
            f"{url} must be an OME-Zarr image to get labels or weights, got something else; "
            "run 'unetkit import' first"
        )
    return node.zarr_format, multiscale.placement
