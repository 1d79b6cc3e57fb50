"""A stack: one group with an array `images` (N, ...), and perhaps `labels` and `weights`."""

from __future__ import annotations

from unetkit.errors import InputError
from unetkit.storage.metadata import marks
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.opening import Image, array_axes, check_part
from unetkit.storage.planes import PlaneArray, plane_array
from unetkit.storage.urls import join


def stack_images(node: GroupNode, *, axes: str | None = None) -> tuple[Image, ...]:
    """See each entry along the first axis of a stack as an image.

    Parameters
    ----------
    node : GroupNode
        The stack. Its labels are instances, unless its attribute `unetkit.label_kind` says
        `classes`.
    axes : str, optional
        The axes of one image, needed where they have more than y and x and no names.

    Returns
    -------
    tuple of Image
        Named 0000, 0001, ...

    Raises
    ------
    InputError
        If axes are not named, or labels or weights do not fit the images.
    """
    images = read_node(join(node.url, "images"))
    if not isinstance(images, ArrayNode) or len(images.shape) < 3:
        raise InputError(f"images of {node.url} must be an array (N, Y, X) or more, got another")
    letters = array_axes(images, ndim=len(images.shape) - 1, axes=(axes or "").lstrip("nN") or None)
    plain = "".join(axis for axis in letters if axis != "c")
    kind = marks(node).get("label_kind", "instances")
    if kind not in ("instances", "classes"):
        raise InputError(f"label_kind of {node.url} must be instances or classes, got {kind!r}")
    parts = {name: _part(node, name, images, axes=plain) for name in ("labels", "weights")}
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
                label_attributes={} if labels is None else {kind: marks(node)},
                weights=_item(parts["weights"], item, data, axes=plain, kinds="f"),
            )
        )
    return tuple(found)


def _part(node: GroupNode, name: str, images: ArrayNode, *, axes: str) -> ArrayNode | None:
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
