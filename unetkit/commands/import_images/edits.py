"""Corrected labels of a prediction: read window by window, whatever program drew them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unetkit.arrays.masks import MaskSurvey
from unetkit.commands.import_images.masks import fitting_mask, make_labels, mask_numbers, open_mask
from unetkit.commands.import_images.pairing import Pair
from unetkit.commands.import_images.rules import check_drawn
from unetkit.commands.import_images.shapes import (
    check_overlaps,
    find_regions,
    pair_shapes,
    survey_shapes,
)
from unetkit.commands.import_images.windows import Window, cropped, joined_windows, window_of
from unetkit.errors import InputError, LabelError
from unetkit.progress import warn
from unetkit.storage.annotations import annotation_files
from unetkit.storage.atomic import is_stored
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.object_classes import (
    ObjectClasses,
    object_class_names,
    read_object_classes,
)
from unetkit.storage.ome import listed_samples, provenance_marks
from unetkit.storage.readers import open_stored
from unetkit.storage.urls import join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.commands.import_images.rules import MaskRules
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.image_file import ImageFile
    from unetkit.storage.images import Image

# Where a prediction does not say how much of its surroundings its network needs.
CONTEXT = 96


@dataclass(frozen=True)
class Predicted:
    """What was corrected."""

    sample: Sample
    dataset: Dataset  # that it lies in, or it alone

    @property
    def kind(self) -> str:
        """Say what its labels are, as `import` calls it."""
        kind = "instances" if "instances" in self.sample.image.labels else self.sample.label_kind
        return f"{kind or 'instances'}{'+classes' if self.object_names else ''}"

    @property
    def object_names(self) -> tuple[str, ...]:
        """What the classes of its objects are called."""
        return object_class_names(self.sample.image)

    @property
    def classes(self) -> dict[str, Any]:
        """What is known of classes, for the rules of labels."""
        if self.kind == "classes":
            names = self.sample.class_names
            return {"names": names, "mapping": {n: n for n in range(len(names))}}
        return {"names": self.object_names or None}

    @property
    def overlap(self) -> int:
        """How many pixels around a place its network read."""
        found = self._told("prediction", {}).get("overlap")
        return found if isinstance(found, int) and found > 0 else CONTEXT

    def normalization(self, image: Image) -> Any:
        """How its network saw the intensities of the whole image, if one network says it.

        None too where it saw other channels than are chosen of the image, or in another order.
        """
        found, count = self._told("normalization", None), image.data.size("c")
        seen = self._told("picked_channels", list(range(count)))
        same = seen == list(image.data.picked or range(count))
        return found if same and isinstance(found, dict) else None

    def _told(self, key: str, default: Any) -> Any:
        for attributes in (self.sample.image.attributes, self.dataset.attributes):
            if attributes.get(key):
                return attributes[key]
        return default

    def read(self, kind: str, plane: int, window: Window) -> NDArray[Any] | None:
        """Read what it says of a plane of a window, None where it is of another size."""
        labels = self.sample.image.labels.get(kind)
        (y0, y1), (x0, x1) = window["y"], window["x"]
        if labels is None or plane >= labels.planes or y1 > labels.height or x1 > labels.width:
            return None
        return labels.read(plane, y0, y1, x0, x1)


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """The image that was predicted."""

    image: Image
    file: ImageFile
    predicted: Predicted

    @property
    def sizes(self) -> dict[str, int]:
        """Its sides by axis."""
        return {axis: self.file.size(axis) for axis in "tzyx"}

    @cached_property
    def kin(self) -> tuple[str, str | None]:
        """What it was made from and belongs to, as its dataset says, so that it stays together."""
        sample = self.predicted.sample
        if sample.field is not None:
            return sample.source, sample.group
        parent, _, name = self.image.url.rstrip("/").rpartition("/")
        node = read_node(parent) if parent else None
        if isinstance(node, GroupNode) and provenance_marks(node).get("kind") == "dataset":
            for one in listed_samples(node):
                if one.name == name:
                    return one.source, one.group
        return self.image.name, None


class EditCounts(NamedTuple):
    """What was done to the predicted objects, as far as they lie where it was judged."""

    objects: int = 0  # that are drawn
    changed: int = 0  # of these, those that were not predicted so
    removed: int = 0  # predicted ones of which no pixel is drawn any more


@dataclass(frozen=True, eq=False)
class Correction:
    """One window, ready to be stored."""

    name: str
    window: Window  # what was judged
    seen: Window  # with its surroundings
    labels: NDArray[Any]  # (N, Y, X), its planes one after the other
    judged: NDArray[np.bool_]  # (N, Y, X)
    counts: EditCounts
    kind: str = "instances"
    classes: ObjectClasses | None = None

    @property
    def sentence(self) -> str:
        """What a user should know of it."""
        if self.kind == "classes":
            return f"{self.name}: {int(self.judged.sum()):,} pixels"
        objects, changed, removed = self.counts
        gone = f", {removed:,} removed" if removed else ""
        told = (
            f"{self.name}: {objects:,} objects, {changed:,} of them new, or of another outline by a"
        )
        return f"{told} pixel or more{gone}"


@dataclass(frozen=True, eq=False)
class Edit:
    """The corrected labels: a mask, or shapes on a canvas of the rules."""

    path: str
    source: PredictedImage
    rules: MaskRules  # with the regions that were judged, and the canvas where there is one
    mask: ImageFile | None = None
    table: ObjectClasses | None = None  # the classes of a mask's objects
    windows: tuple[Window, ...] = ()
    survey: MaskSurvey = field(default_factory=MaskSurvey)

    def correction(self, window: Window, *, context: int) -> Correction:
        """Read one window with its surroundings."""
        source, kind = self.source, self.rules.kind
        seen = window.grown(context, source.sizes)
        numbers = self._drawn(seen)
        region = self.rules.regions[source.image.name]
        judged = np.zeros(numbers.shape, bool)
        (y0, y1), (x0, x1) = window.within(seen)["y"], window.within(seen)["x"]
        for own, plane in zip(judged, seen.planes(source.sizes["z"]), strict=True):
            own[y0:y1, x0:x1] = region.paint(plane, window["y"], window["x"]) > 0
        classes = None
        if kind == "classes":
            labels = np.where(judged, numbers, 0)
        else:
            labels, ids = _renumbered(numbers, judged)
            classes = self._classes(ids)
        counts = self._count(labels, judged, seen) if kind == "instances" else EditCounts()
        name = self._name(window)
        return Correction(name, window, seen, labels, judged, counts, kind, classes)

    def _name(self, window: Window) -> str:
        """Call a window after its image, and its first plane, row and column."""
        planes = [a for a in "tz" if window.size(a) < self.source.sizes[a]]
        parts = [f"{axis}{window[axis][0]}" for axis in (*planes, "y", "x")]
        return "-".join([self.source.image.name, *parts])

    def _drawn(self, seen: Window) -> NDArray[Any]:
        """Return what was drawn, as numbers (N, Y, X)."""
        source = self.source
        planes = seen.planes(source.sizes["z"])
        if self.mask is None:
            canvas = self.rules.canvases[source.image.name]
            return np.stack([canvas.paint(n, seen["y"], seen["x"]) for n in planes])
        # A mask may have a page for each object of one plane.
        whole = {a: self.mask.size(a) != source.file.size(a) for a in "tz"}
        sides = {a: (0, self.mask.size(a)) if whole.get(a) else seen[a] for a in "tzyx"}
        part = cropped(self.mask, Window(tuple(sides.values())))
        numbers, _ = mask_numbers(part, cropped(source.file, seen), None)
        numbers = numbers.reshape(len(planes), seen.size("y"), seen.size("x"))
        if self.rules.kind == "classes":
            self._check_values(numbers)
            return make_labels(numbers, self.rules)[0]
        own = MaskSurvey()
        own.add(str(seen.sides), numbers, pieces=True)
        self.survey.join(own)
        return make_labels(numbers, self.rules)[0]

    def _check_values(self, numbers: NDArray[Any]) -> None:
        names = self.rules.names or ()
        lost = [value for value in np.unique(numbers).tolist() if value >= len(names)]
        if lost:
            listed = ", ".join(f"{n} ({name})" for n, name in enumerate(names))
            raise LabelError(
                f"corrected labels must be of the prediction's classes, {listed}, got the value"
                f" {lost[0]} in {self.path!r}; draw with these numbers"
            )

    def _classes(self, ids: NDArray[Any]) -> ObjectClasses | None:
        """Give each object, numbered from 1, the class that it had by its id."""
        if not self.rules.classed:
            return None
        canvas = self.rules.canvases.get(self.source.image.name)
        table = self.table if canvas is None else canvas.object_classes
        names = self.rules.names or ()
        numbers = np.zeros(len(ids), np.int64) if table is None else table.of(ids)
        if not numbers.all():
            lost = int(ids[numbers == 0][0])
            raise LabelError(
                f"corrected objects must have a class, got none for the object {lost} of"
                f" {self.path!r}, which the prediction does not know; draw outlines with classes,"
                " such as QuPath's GeoJSON"
            )
        return ObjectClasses.of_objects(np.arange(1, len(ids) + 1), numbers, names)

    def _count(self, labels: NDArray[Any], judged: NDArray[np.bool_], seen: Window) -> EditCounts:
        """Count what was done to the objects where they were judged."""
        objects = changed = removed = 0
        for own, inside, plane in zip(
            labels, judged, seen.planes(self.source.sizes["z"]), strict=True
        ):
            sizes = _sizes(own[inside])
            objects += len(sizes)
            before = self.source.predicted.read("instances", plane, seen)
            if before is None:
                changed += len(sizes)
                continue
            old, pairs = _sizes(before[inside]), np.stack([own[inside], before[inside]])
            both, counts = np.unique(pairs.astype(np.int64), axis=1, return_counts=True)
            changed += len(sizes) - sum(
                sizes.get(a) == count == old.get(b)
                for (a, b), count in zip(both.T.tolist(), counts.tolist(), strict=True)
            )
            removed += len(old.keys() - set(both[1, both[0] > 0].tolist()))
        return EditCounts(objects, changed, removed)

    def check(self, corrections: Sequence[Correction]) -> None:
        """Refuse labels of which one number stands for many objects, and windows of no pixel."""
        if self.mask is not None and self.rules.split:
            self.survey.check_binary()
        elif self.mask is not None and self.rules.kind == "instances":
            drawn = [value for value in self.survey.found if value]
            if len(drawn) == 1 and self.survey.pieces > self.survey.objects:
                raise LabelError(
                    "corrected labels must give every object its own number, got the one number"
                    f" {drawn[0]} for {self.survey.pieces} separate pieces in {self.path!r}; say"
                    " --connected-components to number the pieces"
                )
        if self.mask is None and self.rules.overlaps == "refuse":
            check_overlaps(self.rules.canvases[self.source.image.name], self.path)
        if not any(one.judged.any() for one in corrections):
            raise LabelError(
                f"regions that were judged must hold pixels, got none in {self.path!r}; draw them"
                " larger"
            )


def read_edit(
    path: str, source: PredictedImage, rules: MaskRules, *, labels: str | None, progress: Progress
) -> Edit:
    """Open what was corrected, and find the windows."""
    name, file = source.image.name, source.file
    drawn = [] if is_stored(path) else annotation_files(path, beside=file.path)
    check_drawn(rules, drawn=bool(drawn))
    if drawn:
        pairs = [Pair(name, file.path)]
        _, drawings, remarks = pair_shapes(pairs, drawn, rules, progress=progress)
        for remark in remarks:
            warn(progress, remark)
        if name not in drawings:
            raise InputError(
                f"outlines must be of the image {name!r}, got none of it in {path!r}; name its own"
            )
        rules = survey_shapes([(name, drawings[name], file)], rules)
        rules = find_regions([(name, drawings[name], file)], rules)
        return Edit(path, source, rules, windows=_windows(rules, source))
    mask, table = _open_mask(path, source, labels)
    rules = find_regions([(name, None, file)], rules)
    return Edit(path, source, rules, mask, table, _windows(rules, source))


def _open_mask(
    path: str, source: PredictedImage, labels: str | None
) -> tuple[ImageFile, ObjectClasses | None]:
    """Open a labels layer, and the classes of its objects: its own, or those by id of before."""
    file, before = source.file, source.predicted.sample.image
    table = read_object_classes(before) if source.predicted.object_names else None
    if not is_stored(path):
        return open_mask(path, file), table
    plain = file.axes.replace("c", "")
    if detect(path) == "array":
        return fitting_mask(open_stored(path, axes=plain), file), table
    (*several, found) = open_dataset(path, labels=labels, mixed=True).samples
    if several:
        raise InputError(
            f"corrected labels must be of one image, got {len(several) + 1} in {path}; name one of"
            f" them, such as {join(path, found.path)}"
        )
    kind = found.label_kind
    if kind is None and found.image.other_labels and labels is None:
        found.labels()  # the error that names them
    if kind is None:
        return fitting_mask(open_stored(path), file), table
    chosen = found.image.labels["instances" if "instances" in found.image.labels else kind]
    if object_class_names(found.image):
        table = read_object_classes(found.image)
    return fitting_mask(open_stored(chosen.url.rpartition("/")[0]), file), table


def _windows(rules: MaskRules, source: PredictedImage) -> tuple[Window, ...]:
    """Find the boxes of what was judged, joined where they overlap."""
    region, sizes = rules.regions[source.image.name], source.sizes
    found = []
    for plane, polygons in enumerate(region.polygons):
        boxes = polygons.boxes
        for number in range(len(region.values[plane])):
            parts = boxes[polygons.shapes == number]
            box = (*parts[:, :2].min(axis=0), *parts[:, 2:].max(axis=0))
            found.append(window_of(box, plane=plane, sizes=sizes))
    # A rectangle is on every plane.
    for y0, y1, x0, x1 in rules.rectangles:
        found.append(window_of((x0, y0, x1, y1), plane=None, sizes=sizes))
    return tuple(joined_windows(found))


def _sizes(labels: NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each object."""
    ids, sizes = np.unique(labels, return_counts=True)
    return {n: size for n, size in zip(ids.tolist(), sizes.tolist(), strict=True) if n}


def _renumbered(
    numbers: NDArray[Any], judged: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Count the judged objects up by their first pixels, and give their ids before.

    The others are left out: nobody looked at them, and what was drawn there may differ from one
    way of drawing to another.
    """
    found = np.zeros(numbers.shape, np.uint32)
    ids: list[NDArray[Any]] = []
    count = 0
    for out, plane, inside in zip(found, numbers, judged, strict=True):
        own, first = np.unique(plane, return_index=True)
        kept = np.isin(own, plane[inside]) & (own > 0)
        own, first = own[kept], first[kept]
        if not len(own):
            continue
        rank = np.empty(len(own), np.uint32)
        rank[np.argsort(first)] = np.arange(count + 1, count + 1 + len(own))
        place = np.minimum(np.searchsorted(own, plane), len(own) - 1)
        out[:] = np.where(own[place] == plane, rank[place], 0)
        ids.append(own[np.argsort(first)])
        count += len(own)
    return found, np.concatenate(ids) if ids else np.zeros(0, np.uint32)
