"""The way in to images: detect what lies at a path, open it judged whole, create new ones."""

from __future__ import annotations

from unetkit.errors import InputError
from unetkit.storage.detection import detect, kind_of, node_at
from unetkit.storage.metadata import listed_samples
from unetkit.storage.nodes import ArrayNode, GroupNode
from unetkit.storage.opening import Image, bare_image, choose_channels, ome_image
from unetkit.storage.pyramids import add_pyramid
from unetkit.storage.stacks import stack_images
from unetkit.storage.writing import (
    create_image,
    create_labels,
    create_weights,
    update_attributes,
)

__all__ = [
    "Image",
    "add_pyramid",
    "create_image",
    "create_labels",
    "create_weights",
    "detect",
    "open_image",
    "update_attributes",
]


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
    places = [place for _, _, place in listed_samples(node)]
    if len(places) == 1:
        return open_image(places[0], axes=axes)
    hint = f"name one, such as {places[0]}" if places else "run 'unetkit import' first"
    raise InputError(f"{node.url} must hold one image, got a dataset of {len(places)}; {hint}")
