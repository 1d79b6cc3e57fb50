"""Find what is compared with what: samples of a prediction and of the truth, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

Pair = tuple["Sample", "Sample"]  # (of the prediction, of the truth)


@dataclass(frozen=True)
class Matched:
    """What a prediction is compared with.

    Attributes
    ----------
    kind : str
        `instances` or `classes`: which labels.
    pairs : list of (Sample, Sample)
        Of the prediction, of the truth.
    class_names : tuple of str
        For classes, where either side has names.
    unlabelled, unpaired : tuple of str
        Samples that are left out: of the truth, because they have no labels, and of the
        prediction, because the truth has no labels for them.
    """

    kind: str
    pairs: list[Pair]
    class_names: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()


def match_samples(
    prediction: str, truth: str, *, axes: str | None = None, progress: Progress = SILENT
) -> Matched:
    """Open both sides and pair their samples by name; two of one sample match whatever its name.

    Parameters
    ----------
    prediction, truth : str
    axes : str, optional
        Of a stack or bare array that does not name them.
    progress : Progress

    Returns
    -------
    Matched

    Raises
    ------
    InputError
        If there are no labels to compare, a labelled sample of the truth has no prediction, or
        sizes, pixel sizes or kinds of labels do not match.
    """
    found, wanted = _open(prediction, axes), _open(truth, axes)
    labelled = [sample for sample in wanted.samples if sample.label_kind is not None]
    kind = _kind_of(wanted, labelled)
    pairs = _pair(found, wanted, labelled)
    class_names = _class_names(pairs, progress) if kind == "classes" else ()
    for ours, theirs in pairs:
        _check(ours, theirs, kind=kind, url=prediction)
    unlabelled = tuple(s.name for s in wanted.samples if s.label_kind is None)
    paired = {ours.name for ours, _ in pairs}
    unpaired = tuple(s.name for s in found.samples if s.name not in paired)
    _note_left_out(unlabelled, unpaired, progress)
    return Matched(kind, pairs, class_names, unlabelled, unpaired)


def _open(url: str, axes: str | None) -> Dataset:
    """Open one side; an OME-Zarr image names its axes itself, whatever the other side needs."""
    return open_dataset(url, axes=axes if detect(url) in ("stack", "array") else None)


def _kind_of(truth: Dataset, labelled: Sequence[Sample]) -> str:
    """Find which labels the truth has, one kind for all samples."""
    if not labelled:
        name = f"sample {truth.samples[0].name!r} in " if truth.samples else ""
        raise InputError(f"{name}{truth.url} has no labels; run 'unetkit import' with --labels")
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


def _check(ours: Sample, theirs: Sample, *, kind: str, url: str) -> None:
    """Make sure that two samples can be compared pixel by pixel."""
    labels = ours.image.labels
    if kind not in labels:
        there = ", ".join(name for name in labels if name != "ignore") or "none"
        raise InputError(
            f"sample {ours.name!r} in {url} must have labels of the truth's kind '{kind}', "
            f"got {there}; predict with a model trained on {kind}"
        )
    found, wanted = labels[kind], theirs.image.labels[kind]
    if _size(found) != _size(wanted):
        raise InputError(
            f"labels of prediction {ours.name!r} and truth {theirs.name!r} must be of one size, "
            f"got {_words(found)} in {found.url} and {_words(wanted)} in {wanted.url}; "
            "predict the image that was annotated"
        )
    _check_pixel_size(ours, theirs)


def _check_pixel_size(ours: Sample, theirs: Sample) -> None:
    """Make sure that pixels are of one size where both sides say it; a hundredth is rounding."""
    found, wanted = ours.image.pixel_size or {}, theirs.image.pixel_size or {}
    for axis in sorted(found.keys() & wanted.keys()):
        if abs(found[axis] - wanted[axis]) > 0.01 * wanted[axis]:
            raise InputError(
                f"pixels of prediction {ours.name!r} and truth {theirs.name!r} must be of one "
                f"size, got {found[axis]:.4g} and {wanted[axis]:.4g} micrometres in {axis}; "
                "import the truth with the --pixel-size of the image"
            )


def _size(labels: PlaneArray) -> tuple[int, int, int]:
    return labels.planes, labels.height, labels.width


def _words(labels: PlaneArray) -> str:
    """Say a size: 512 x 640, or 5 planes of 512 x 640."""
    plane = f"{labels.height} x {labels.width}"
    return plane if labels.planes == 1 else f"{labels.planes} planes of {plane}"


def _class_names(pairs: Sequence[Pair], progress: Progress) -> tuple[str, ...]:
    """Find what the classes are called, and notice when the two sides number them differently."""
    ours = next((a.class_names for a, _ in pairs if a.class_names), ())
    theirs = next((b.class_names for _, b in pairs if b.class_names), ())
    if ours and theirs and ours != theirs:
        if sorted(ours) == sorted(theirs):
            raise InputError(
                f"classes of prediction and truth must be in one order, got {', '.join(ours)} and "
                f"{', '.join(theirs)}; import the truth with --classes {','.join(ours)}"
            )
        progress.note(
            f"Classes are compared by number: the prediction calls them {', '.join(ours)}, "
            f"the truth {', '.join(theirs)}."
        )
    return theirs or ours


def _note_left_out(unlabelled: Sequence[str], unpaired: Sequence[str], progress: Progress) -> None:
    if unlabelled:
        progress.note(f"Left out {len(unlabelled)} samples of the truth that have no labels.")
    if unpaired:
        count = len(unpaired)
        progress.note(f"Left out {count} predicted samples for which the truth has no labels.")


# Which channel of a prediction says how surely a pixel is inside an object.
INSIDE = ("interior", "inside", "foreground")


@dataclass(frozen=True)
class Map:
    """A stored probability map.

    Parameters
    ----------
    array : PlaneArray
        One channel a label.
    labels : tuple of int
        Which class each channel speaks of; 1 is the foreground of instances.
    names : tuple of str
        What the channels are called.
    scale : float
        What a stored number is multiplied with.
    foreground : bool
        Whether it speaks of the foreground of instances.
    """

    array: PlaneArray
    labels: tuple[int, ...]
    names: tuple[str, ...]
    scale: float
    foreground: bool

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
        """Read probabilities of a box, 0 to 1, shape (L, Y, X)."""
        return np.asarray(self.array.read(plane, y0, y1, x0, x1) * self.scale)


def map_of(image: Image, kind: str) -> Map | None:
    """Find the probability map that an image of predicted labels stands for.

    Parameters
    ----------
    image : Image
    kind : str
        Which labels are compared.

    Returns
    -------
    Map or None
        None where the image is no map of that kind.
    """
    names = tuple(image.channel_names)
    scale = float(image.attributes.get("scale", 1.0))
    if kind == "instances":
        place = next((names.index(name) for name in INSIDE if name in names), None)
        if place is None:
            return None
        return Map(image.data.pick([place]), (1,), (names[place],), scale, True)
    classes = tuple(range(1, image.data.channel_count))
    if "prediction" not in image.attributes or not classes:
        return None
    return Map(image.data.pick(classes), classes, names[1:], scale, False)
