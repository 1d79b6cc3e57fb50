"""Find what is compared with what: samples of a prediction and of the truth, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.progress import SILENT, Progress, warn
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect
from unetkit.storage.object_classes import object_class_names, read_object_classes, renumbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.object_classes import ObjectClasses
    from unetkit.storage.planes import PlaneArray

Pair = tuple["Sample", "Sample"]  # (of the prediction, of the truth)


@dataclass(frozen=True)
class MatchedSamples:
    """What a prediction is compared with."""

    kind: str  # `instances` or `classes`: which labels
    pairs: list[Pair]
    class_names: tuple[str, ...] = ()  # for classes, where either side has names
    # For instances whose objects have classes on either side: those of each pair, numbered alike.
    object_names: tuple[str, ...] = ()
    object_classes: tuple[tuple[ObjectClasses, ObjectClasses], ...] = ()
    # Samples that are left out: of the truth, because they have no labels, and of the prediction,
    # because the truth has no labels for them.
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each pair, which is what the truth says; none where it has no groups.

        What is of none stands for itself.
        """
        truths = [true for _, true in self.pairs]
        told = any(true.group is not None for true in truths)
        return tuple(true.group or true.source for true in truths) if told else ()


def match_samples(
    prediction: str,
    truth: str,
    *,
    axes: str | None = None,
    labels: str | None = None,
    progress: Progress = SILENT,
) -> MatchedSamples:
    """Open both sides and pair their samples by name; two of one sample match whatever its name.

    Refuses what cannot be compared: no labels, a labelled sample of the truth without prediction,
    sizes, pixel sizes or kinds of labels that do not match.
    """
    found, wanted = _open(prediction, axes), _open(truth, axes, labels)
    if labels is not None and not any(sample.label_kind for sample in found.samples):
        found = _open(prediction, axes, labels)
    labelled = [sample for sample in wanted.samples if sample.label_kind is not None]
    kind = _kind_of(wanted, labelled)
    pairs = _pair(found, wanted, labelled)
    class_names = _class_names(pairs, progress) if kind == "classes" else ()
    for pair in pairs:
        _check(*pair, kind=kind, url=prediction)
    object_names = _object_names(pairs, progress) if kind == "instances" else ()
    classes = [_object_classes(pair, object_names) for pair in pairs] if object_names else []
    unlabelled = tuple(s.name for s in wanted.samples if s.label_kind is None)
    paired = {predicted.name for predicted, _ in pairs}
    unpaired = tuple(s.name for s in found.samples if s.name not in paired)
    if unlabelled:
        warn(progress, f"Left out {len(unlabelled)} samples of the truth that have no labels.")
    if unpaired:
        warn(
            progress,
            f"Left out {len(unpaired)} predicted samples for which the truth has no labels.",
        )
    return MatchedSamples(
        *(kind, pairs, class_names, object_names, tuple(classes), unlabelled, unpaired)
    )


def _open(url: str, axes: str | None, labels: str | None = None) -> Dataset:
    """Open one side; an OME-Zarr image names its axes itself, whatever the other side needs."""
    axes = axes if detect(url) in ("stack", "array") else None
    return open_dataset(url, axes=axes, labels=labels, mixed=True)


def _kind_of(truth: Dataset, labelled: Sequence[Sample]) -> str:
    """Find which labels the truth has, one kind for all samples."""
    if not labelled:
        # The error that any sample without labels gives.
        truth.samples[0].labels()
    first = labelled[0]
    for sample in labelled:
        if sample.label_kind != first.label_kind:
            raise InputError(
                f"labels of {truth.url} must be of one kind, got {first.label_kind} in "
                f"{first.name!r} and {sample.label_kind} in {sample.name!r}; import them apart"
            )
    return str(first.label_kind)


def _pair(prediction: Dataset, truth: Dataset, labelled: Sequence[Sample]) -> list[Pair]:
    """Find the predicted sample of each labelled one."""
    if len(prediction.samples) == len(truth.samples) == 1:
        return [(prediction.samples[0], labelled[0])]
    by_name = {sample.name: sample for sample in prediction.samples}
    missing = [sample.name for sample in labelled if sample.name not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{prediction.url} must have every labelled sample of {truth.url}, got none named "
            f"{', '.join(map(repr, missing[:3]))}{more}; predict the whole dataset"
        )
    return [(by_name[sample.name], sample) for sample in labelled]


def _check(predicted: Sample, true: Sample, *, kind: str, url: str) -> None:
    """Make sure that two samples can be compared pixel by pixel."""
    labels = predicted.image.labels
    if kind not in labels:
        there = ", ".join(name for name in labels if name != "ignore") or "none"
        raise InputError(
            f"sample {predicted.name!r} in {url} must have labels of the truth's kind '{kind}', "
            f"got {there}; predict with a model trained on {kind}"
        )
    found, wanted = labels[kind], true.image.labels[kind]
    if _size(found) != _size(wanted):
        raise InputError(
            f"labels of prediction {predicted.name!r} and truth {true.name!r} must be of one size, "
            f"got {_words(found)} in {found.url} and {_words(wanted)} in {wanted.url}; "
            "predict the image that was annotated"
        )
    _check_pixel_size(predicted, true)


def _check_pixel_size(predicted: Sample, true: Sample) -> None:
    """Make sure that pixels are of one size where both sides say it; a hundredth is rounding."""
    found, wanted = predicted.image.pixel_size or {}, true.image.pixel_size or {}
    for axis in sorted(found.keys() & wanted.keys()):
        if abs(found[axis] - wanted[axis]) > 0.01 * wanted[axis]:
            raise InputError(
                f"pixels of prediction {predicted.name!r} and truth {true.name!r} must be of one "
                f"size, got {found[axis]:.4g} and {wanted[axis]:.4g} micrometres in {axis}; "
                "run 'unetkit import' for the truth with the --pixel-size of the image"
            )


def _size(labels: PlaneArray) -> tuple[int, int, int]:
    return labels.planes, labels.height, labels.width


def _words(labels: PlaneArray) -> str:
    """Say a size: 512 x 640, or 5 planes of 512 x 640."""
    plane = f"{labels.height} x {labels.width}"
    return plane if labels.planes == 1 else f"{labels.planes} planes of {plane}"


def _class_names(pairs: Sequence[Pair], progress: Progress) -> tuple[str, ...]:
    """Find what the classes are called, and notice when the two sides number them differently."""
    found = next((a.class_names for a, _ in pairs if a.class_names), ())
    wanted = next((b.class_names for _, b in pairs if b.class_names), ())
    if found and wanted and found != wanted:
        if sorted(found) == sorted(wanted):
            numbers = ", ".join(f"{number} to {name}" for number, name in enumerate(found))
            raise InputError(
                f"classes of prediction and truth must be in one order, got {', '.join(found)} and "
                f"{', '.join(wanted)}; give the masks of the truth the prediction's numbers,"
                f" {numbers}, and import them again"
            )
        warn(
            progress,
            f"Classes are compared by number: the prediction calls them {', '.join(found)}, "
            f"the truth {', '.join(wanted)}.",
        )
    return wanted or found


def _object_names(pairs: Sequence[Pair], progress: Progress) -> tuple[str, ...]:
    """List the classes that objects of either side have, () where a side has none.

    They go by name: those of the truth come first.
    """
    every = [[object_class_names(side.image) for side in pair] for pair in pairs]
    found, wanted = zip(*every, strict=True)
    if not all(found) or not all(wanted):
        if all(wanted) or all(found):
            side = "the prediction" if all(wanted) else "the truth"
            warn(progress, f"Objects are compared without their classes: {side} has none of them.")
        return ()
    listed = dict.fromkeys(name for names in (*wanted, *found) for name in names[1:])
    return (wanted[0][0], *listed)


def _object_classes(pair: Pair, names: tuple[str, ...]) -> tuple[ObjectClasses, ObjectClasses]:
    """Read the classes of the objects of both sides, by their numbers among all names."""
    found, wanted = (
        renumbered(classes, names)
        for side in pair
        if (classes := read_object_classes(side.image)) is not None
    )
    return found, wanted


# Which channel of a prediction says how surely a pixel is inside an object.
INSIDE = ("interior", "inside", "foreground")


@dataclass(frozen=True)
class ProbabilityMap:
    """A stored map with one channel a label."""

    array: PlaneArray
    labels: tuple[int, ...]  # which class each channel speaks of; 1 is the foreground of instances
    names: tuple[str, ...]
    scale: float  # what a stored number is multiplied with
    foreground: bool  # whether it speaks of the foreground of instances

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
        """Read probabilities of a box, 0 to 1, shape (L, Y, X)."""
        return np.asarray(self.array.read(plane, y0, y1, x0, x1) * self.scale)


def probability_map(image: Image, kind: str) -> ProbabilityMap | None:
    """Find the map that an image of predicted labels of a kind stands for, if it is one."""
    names = tuple(image.channel_names)
    scale = float(image.attributes.get("scale", 1.0))
    if kind == "instances":
        place = next((names.index(name) for name in INSIDE if name in names), None)
        if place is None:
            return None
        return ProbabilityMap(image.data.pick([place]), (1,), (names[place],), scale, True)
    classes = tuple(range(1, image.data.channel_count))
    if "prediction" not in image.attributes or not classes:
        return None
    return ProbabilityMap(image.data.pick(classes), classes, names[1:], scale, False)
