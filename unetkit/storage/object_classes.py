"""The class of each object of stored instances: a table beside their pixels.

It is an array of two rows, ids and classes, in the group of the labels, so that a slide of a
million objects is no burden to whoever opens it. Viewers that show OME-Zarr's `properties` of
labels get these as well, where objects are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.storage.nodes import (
    ArrayNode,
    GroupNode,
    create_array,
    read_node,
    replace_attributes,
)
from unetkit.storage.ome import ome, provenance_marks
from unetkit.storage.outputs import discard
from unetkit.storage.planes import plane_array
from unetkit.storage.urls import exists, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

KEY = "object_classes"  # of the array, and of the names in the attributes
# So many objects are told to viewers: a document of a megabyte. Our own choice.
TOLD = 10_000
CHUNK = 2**20
# Up to this id classes are looked up in a list of all numbers.
DENSE = 2**22
MOST_NAMES = 255  # with the boundary there are 256 classes to learn


@dataclass(frozen=True, eq=False)
class ObjectClasses:
    """Which class each object is of; an object that is not listed is of none."""

    ids: NDArray[np.uint64]  # shape (N,), from low to high
    numbers: NDArray[np.int64]  # shape (N,), from 1 up: places among the names
    names: tuple[str, ...]  # the first is what lies in no object

    @classmethod
    def of_objects(cls, ids: ArrayLike, numbers: ArrayLike, names: Sequence[str]) -> ObjectClasses:
        """Sort objects by id; each may stand there more than once, with one class."""
        ids, first = np.unique(np.asarray(ids, np.uint64), return_index=True)
        return cls(ids, np.asarray(numbers, np.int64)[first], tuple(names))

    def of(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Give the class of each id, 0 for background and what is not listed."""
        if not len(self.ids):
            return np.zeros(np.shape(ids), np.int64)
        wanted = np.asarray(ids).astype(np.uint64)
        if self._dense is not None:
            return np.asarray(self._dense[np.minimum(wanted, len(self._dense) - 1)])
        place = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.asarray(np.where(self.ids[place] == wanted, self.numbers[place], 0))

    @cached_property
    def _dense(self) -> NDArray[np.int64] | None:
        """The class of every number up to one beyond the highest id, where these are small."""
        if int(self.ids[-1]) > DENSE:
            return None
        found = np.zeros(int(self.ids[-1]) + 2, np.int64)
        found[self.ids] = self.numbers
        return found

    def is_same(self, other: ObjectClasses | None) -> bool:
        """Tell whether another table says the same."""
        return (
            other is not None
            and self.names == other.names
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.numbers, other.numbers)
        )


def write_object_classes(labels: PlaneArray, classes: ObjectClasses) -> None:
    """Store the classes of the objects of labels that are written, in the place of earlier ones."""
    url = _group_of(labels)
    node, place = read_node(url), join(url, KEY)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be labels to have classes of objects, got none there")
    if exists(place):
        discard(place)
    count = len(classes.ids)
    if count:
        rows = np.stack([classes.ids, classes.numbers.astype(np.uint64)])
        dtype = np.result_type(np.uint32, np.min_scalar_type(int(classes.ids[-1])))
        array = create_array(
            place,
            shape=(2, count),
            axes="yx",
            dtype=dtype,
            chunks=(2, CHUNK),
            zarr_format=node.zarr_format,
        )
        plane_array(array, axes="yx", has_channels=False).write(0, 0, 0, rows.astype(dtype))
    attributes: dict[str, Any] = {"unetkit": {**provenance_marks(node), KEY: list(classes.names)}}
    if count <= TOLD:
        told = {**ome(node).get("image-label", {}), "properties": _properties(classes)}
        document = {"image-label": told}
        attributes |= {"ome": {**ome(node), **document}} if node.zarr_format == 3 else document
    replace_attributes(url, attributes)


def _properties(classes: ObjectClasses) -> list[dict[str, Any]]:
    return [
        {"label-value": number, "class": classes.names[place]}
        for number, place in zip(classes.ids.tolist(), classes.numbers.tolist(), strict=True)
    ]


def _group_of(labels: PlaneArray) -> str:
    return labels.url.rpartition("/")[0]


def object_class_names(image: Image) -> tuple[str, ...]:
    """Return what the classes of an image's objects are called, () where objects have none."""
    names = image.label_attributes.get("instances", {}).get(KEY)
    if names is None or "instances" not in image.labels:
        return ()
    fits = isinstance(names, list) and 1 < len(names) <= MOST_NAMES
    if not fits or not all(isinstance(name, str) for name in names):
        url = _group_of(image.labels["instances"])
        raise InputError(f"{KEY} of {url} must be 2 to {MOST_NAMES} names, got {names!r:.100}")
    return tuple(names)


def read_object_classes(image: Image) -> ObjectClasses | None:
    """Read the class of each object of an image's instances, None where objects have none."""
    names = object_class_names(image)
    if not names:
        return None
    url = join(_group_of(image.labels["instances"]), KEY)
    node = read_node(url)
    if node is None:
        return ObjectClasses(np.zeros(0, np.uint64), np.zeros(0, np.int64), names)
    rule = f"{url} must be rows of ids and of classes below {len(names)}"
    if not isinstance(node, ArrayNode) or len(node.shape) != 2 or node.shape[0] != 2:
        raise InputError(f"{rule}, got something else; restore it from the original")
    rows = plane_array(node, axes="yx", has_channels=False).read(0, 0, 2, 0, node.shape[1])
    ids, numbers = rows.astype(np.uint64)
    if (ids[1:] <= ids[:-1]).any() or (numbers < 1).any() or (numbers >= len(names)).any():
        raise InputError(f"{rule}, each id once, got others; restore it from the original")
    return ObjectClasses(ids, numbers.astype(np.int64), names)


def renumbered(classes: ObjectClasses, names: Sequence[str]) -> ObjectClasses:
    """Give the same by the numbers that its classes have among other names."""
    numbers = np.array([0, *(names.index(name, 1) for name in classes.names[1:])])
    return ObjectClasses(classes.ids, numbers[classes.numbers], tuple(names))
