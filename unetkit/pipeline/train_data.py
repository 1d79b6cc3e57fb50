"""From a dataset to what training draws from: targets, weights, normalization, split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.arrays.instances import SEEDS
from unetkit.arrays.normalization import fit
from unetkit.arrays.targets import TARGETS, check_target, default_target, make_target, target_names
from unetkit.arrays.weightmap import PRESETS, class_weights
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Tile
from unetkit.pipeline.weights_tiles import CLASSES, TileJob, TileJobs, count_tile, tile_weights
from unetkit.training.sampler import Material
from unetkit.training.split import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.planes import PlaneArray

# A gap is cut by looking at the eight neighbours, and a boundary by looking at those of the gap.
CONTEXT = 2
PRESET = PRESETS["paper2015"]


@dataclass(frozen=True)
class Lesson:
    """What a dataset teaches.

    Parameters
    ----------
    samples : tuple of Sample
        Those with labels.
    unlabelled : int
        How many have none.
    target : str
        What is learned.
    class_names : tuple of str
        What the network tells apart.
    """

    samples: tuple[Sample, ...]
    unlabelled: int
    target: str
    class_names: tuple[str, ...]

    @property
    def background(self) -> int:
        """The class that is not foreground."""
        return 1 if self.target == "boundary" else 0

    @property
    def instances(self) -> bool:
        """Whether objects are predicted."""
        return self.target in SEEDS

    def origins(self) -> list[Origin]:
        """Say where the samples come from."""
        return [
            Origin(
                name=sample.name,
                source=sample.source,
                augmented=sample.image.attributes.get("command") == "augment",
                height=sample.data.height,
                width=sample.data.width,
            )
            for sample in self.samples
        ]


def choose_lesson(dataset: Dataset, target: str | None, progress: Progress) -> Lesson:
    """Find what there is to learn.

    Raises
    ------
    InputError
        If no sample has labels, or they are of two kinds.
    UsageError
        If the target does not go with the labels.
    """
    samples = tuple(sample for sample in dataset.samples if sample.label_kind is not None)
    if not samples:
        # The error that any sample without labels gives.
        dataset.samples[0].labels()
    unlabelled = len(dataset.samples) - len(samples)
    if unlabelled:
        progress.note(f"{unlabelled} of {len(dataset.samples)} samples have no labels; left out.")
    kinds = sorted({str(sample.label_kind) for sample in samples})
    if len(kinds) > 1:
        raise InputError(
            "samples to train on must have labels of one kind, got classes and instances; "
            "import them into two datasets"
        )
    chosen = default_target(kinds[0]) if target is None else target
    check_target(chosen)
    if (chosen == "classes") != (kinds[0] == "classes"):
        fitting = "classes" if kinds[0] == "classes" else ", ".join(TARGETS[:3])
        raise UsageError(f"target must be {fitting} for labels of {kinds[0]}, got {chosen!r}")
    names = target_names(chosen, samples[0].class_names)
    return Lesson(samples, unlabelled, chosen, names)


def count_classes(lesson: Lesson, progress: Progress) -> Lesson:
    """Count the annotated pixels of each class, and refuse what can't be learned.

    Returns
    -------
    Lesson
        With a name for every class that occurs.

    Raises
    ------
    InputError
        If there is no foreground, or a class beyond those that have names.
    """
    counts = _counts(lesson, progress)
    present = int((counts > 0).sum())
    if present < 2:
        what = "foreground" if counts.argmax() == lesson.background else "background"
        raise InputError(
            f"labels to train on must hold background and foreground, got no {what} in any of "
            f"{len(lesson.samples)} samples; look at them, or annotate some more"
        )
    highest = int(counts.nonzero()[0].max())
    names = lesson.class_names
    if not names:
        names = tuple(str(number) for number in range(highest + 1))
    elif highest >= len(names):
        raise InputError(
            f"classes must have a name each, got class {highest} beside {len(names)} names; "
            "import the masks again with --classes"
        )
    return replace(lesson, class_names=names)


def balance_of(lesson: Lesson, progress: Progress) -> tuple[float, ...]:
    """Return w_c over the annotated pixels of the dataset."""
    return class_weights(_counts(lesson, progress)[: len(lesson.class_names)].tolist())


def _counts(lesson: Lesson, progress: Progress) -> NDArray[np.int64]:
    jobs = _jobs(lesson)
    progress.start("counting classes", total=jobs.total)
    counts = np.zeros(CLASSES, np.int64)
    for job in jobs.tiles():
        counts += count_tile(job)
        progress.advance()
    return counts


def _jobs(lesson: Lesson) -> TileJobs:
    labels = [sample.labels() for sample in lesson.samples]
    return TileJobs(lesson.samples, labels, preset=PRESET, target=lesson.target)


def materials(
    lesson: Lesson,
    names: Sequence[str],
    *,
    normalization: str,
    nonfinite: Literal["error", "fill"],
    progress: Progress,
) -> dict[str, Material]:
    """Prepare samples for training: fit their normalization, and choose their weights.

    Stored weights are used; where a sample has none they are computed when they are first read.
    """
    chosen = [sample for sample in lesson.samples if sample.name in set(names)]
    missing = [sample for sample in chosen if not _has_weights(sample, lesson.target)]
    balance: tuple[float, ...] = ()
    if missing:
        balance = balance_of(lesson, progress)
        progress.note(
            f"{len(missing)} of {len(chosen)} samples have no stored weights; computed as "
            "'unetkit weights' does by default."
        )
    progress.start("looking at intensities", total=len(chosen))
    found = {}
    for sample in chosen:
        stored = _has_weights(sample, lesson.target)
        where = f"sample {sample.name!r}"
        found[sample.name] = Material(
            image=sample.data,
            target=Targets(sample.labels(), lesson.target),
            weights=sample.weights
            if stored and sample.weights
            else _Weights(sample.labels(), sample.ignore, lesson.target, balance),
            normalization=fit(
                sample.data.blocks, method=normalization, where=where, nonfinite=nonfinite
            ),
            class_weight=_stored_balance(sample, lesson) if stored else balance,
            background=lesson.background,
            fill=nonfinite == "fill",
        )
        progress.advance()
    return found


def _has_weights(sample: Sample, target: str) -> bool:
    """Say whether a sample's stored weights belong to this target; older ones don't say."""
    return sample.weights is not None and (
        sample.image.weights_attributes.get("target", target) == target
    )


def _stored_balance(sample: Sample, lesson: Lesson) -> tuple[float, ...]:
    """Return the balance that is part of stored weights; nothing where there is none."""
    by_name: dict[str, Any] = sample.image.weights_attributes.get("class_weight") or {}
    if set(by_name) != set(lesson.class_names):
        return ()
    return tuple(float(by_name[name]) for name in lesson.class_names)


@dataclass(frozen=True)
class Targets:
    """Labels read as what the network learns; gaps are cut as on the whole plane."""

    labels: PlaneArray
    target: str

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.labels.height

    @property
    def width(self) -> int:
        """Columns of a plane."""
        return self.labels.width

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return self.labels.planes

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        """Read a box of a plane as classes."""
        top, left = max(y0 - CONTEXT, 0), max(x0 - CONTEXT, 0)
        bottom, right = min(y1 + CONTEXT, self.height), min(x1 + CONTEXT, self.width)
        target = make_target(self.labels.read(plane, top, bottom, left, right), self.target)
        return target[y0 - top : y1 - top, x0 - left : x1 - left]


@dataclass(frozen=True)
class _Weights:
    """Labels read as the weights of the paper."""

    labels: PlaneArray
    ignore: PlaneArray | None
    target: str
    balance: tuple[float, ...]

    @property
    def height(self) -> int:
        return self.labels.height

    @property
    def width(self) -> int:
        return self.labels.width

    @property
    def planes(self) -> int:
        return self.labels.planes

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float32]:
        halo = PRESET.halo
        tile = Tile(0, y0, x0, y1, x1, y0 - halo, x0 - halo, y1 + halo, x1 + halo)
        return tile_weights(
            TileJob(
                labels=self.labels,
                ignore=self.ignore,
                plane=plane,
                tile=tile,
                target=self.target,
                preset=PRESET,
                balance=self.balance,
            )
        )
