"""From samples to what training reads of them: normalized images, targets, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from unetkit.arrays.meanings import meaning_of
from unetkit.arrays.normalization import Normalization, fit
from unetkit.arrays.weight_map import stored_balance, stored_preset
from unetkit.commands.train.plan import PRESET
from unetkit.engine.input_shift import limited, typical_of
from unetkit.engine.label_tiles import TileJob, context_of, tile_weights
from unetkit.geometry.tiles import Tile
from unetkit.progress import warn
from unetkit.training.sampler import TrainingSample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from unetkit.arrays.boxes import Plane
    from unetkit.arrays.weight_map import Preset
    from unetkit.commands.train.plan import LearningTask
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray
    from unetkit.training.split import Region


def training_samples(
    task: LearningTask,
    names: Iterable[str],
    *,
    balance: float,
    normalization: str,
    nonfinite: Literal["error", "fill"],
    progress: Progress,
) -> dict[str, TrainingSample]:
    """Prepare samples for training: fit their normalization, and choose their weights.

    Stored weights are used; where a sample has none for the target of the lesson, or weights that
    were moved along with its labels, they are computed when they are first read. Either way the
    part w_c of them is raised to a power.
    """
    wanted = set(names)
    chosen = [sample for sample in task.samples if sample.name in wanted]
    missing = sum(not _has_weights(sample, task.target) for sample in chosen)
    if missing:
        warn(
            progress,
            f"{missing} of {len(chosen)} samples have no stored weights; computed as "
            "'unetkit weights' does by default.",
        )
    progress.start("reading intensities", total=len(chosen))
    damped = tuple(weight**balance for weight in task.balance)
    class_counts = dict(zip((s.name for s in task.samples), task.class_counts, strict=True))
    found = {}
    for sample in chosen:
        weights = _stored_weights(sample, task, balance) or Weights(
            sample.labels(), sample.ignore, task.target, damped
        )
        found[sample.name] = TrainingSample(
            image=sample.data,
            target=Targets(sample.labels(), sample.ignore, task.target),
            weights=weights,
            normalization=_stored_normalization(sample, normalization)
            or fit(
                sample.data.blocks,
                method=normalization,
                where=f"sample {sample.name!r}",
                boxes=sample.data.boxes,
                nonfinite=nonfinite,
            ),
            class_counts=class_counts[sample.name],
            background=task.background,
            replace_nonfinite=nonfinite == "fill",
        )
        progress.advance()
    return found


def _stored_normalization(sample: Sample, method: str) -> Normalization | None:
    """Return what was fitted on the whole image of which a corrected window is a part."""
    told = sample.image.attributes
    if told.get("command") != "correct" or sample.data.picked is not None:
        return None
    try:
        found = Normalization.from_dict(told["image_normalization"])
    except (KeyError, TypeError, ValueError):
        return None
    fits = found.method == method and len(found.offset) == sample.data.channel_count
    return found if fits else None


def intensity_summary(
    known: Mapping[str, TrainingSample], regions: Iterable[Region]
) -> dict[str, Any]:
    """Say what the images look like that are learned from, for the model file."""
    chosen = [known[name] for name in sorted({region.sample for region in regions})]
    images = [(cast("PlaneArray", one.image), one.normalization) for one in chosen]
    return typical_of(images, replace_nonfinite=chosen[0].replace_nonfinite).to_dict()


def with_limits(
    known: Mapping[str, TrainingSample], intensities: dict[str, Any], learned: Iterable[Region]
) -> dict[str, TrainingSample]:
    """Normalize those that are not learned from as a prediction will."""
    names = {region.sample for region in learned}
    return {
        name: one
        if name in names
        else replace(
            one,
            normalization=limited(
                *(one.normalization, cast("PlaneArray", one.image), [intensities]),
                replace_nonfinite=one.replace_nonfinite,
            ),
        )
        for name, one in known.items()
    }


def _stored_weights(sample: Sample, task: LearningTask, balance: float) -> Plane | None:
    """Return the stored weights with their balance changed; None where there are none."""
    if sample.weights is None or not _has_weights(sample, task.target):
        return None
    attributes = sample.image.weights_attributes
    stored = stored_balance(attributes, task.class_names) or ()
    damped = tuple(weight**balance for weight in stored)
    derived = sample.labels(), sample.ignore, task.target
    preset = stored_preset(attributes)
    moved = sample.image.attributes.get("command") == "augment" and not attributes.get("made_from")
    if moved and preset is not None and (stored or preset.background is not None):
        # An earlier version moved weights between pixels and labels to the nearest one.
        return Weights(*derived, damped, preset)
    if damped == stored:
        return sample.weights
    return Rebalanced(*derived, weights=sample.weights, stored=stored, balance=damped)


def _has_weights(sample: Sample, target: str) -> bool:
    """Say whether a sample's stored weights belong to this target; foreign ones don't say."""
    return sample.weights is not None and (
        sample.image.weights_attributes.get("target", target) == target
    )


@dataclass(frozen=True)
class _Derived:
    """Something that is computed from stored labels whenever a box of it is read."""

    labels: PlaneArray
    ignore: PlaneArray | None  # not 0 where nobody annotated
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

    def _job(self, plane: int, box: tuple[int, int, int, int], *, context: int) -> TileJob:
        """Look at a box as the command `weights` does."""
        y0, y1, x0, x1 = box
        seen = (y0 - context, x0 - context, y1 + context, x1 + context)
        return TileJob(
            labels=self.labels,
            ignore=self.ignore,
            plane=plane,
            tile=Tile(0, y0, x0, y1, x1, *seen),
            target=self.target,
            preset=PRESET,
        )


@dataclass(frozen=True)
class Targets(_Derived):
    """Labels read as what the network learns; gaps are cut as on the whole plane."""

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        """Read a box of a plane as classes."""
        context = meaning_of(self.target).context
        job = self._job(plane, (y0, y1, x0, x1), context=context)
        block, inner = job.read()
        return job.make_target(block)[inner]


@dataclass(frozen=True)
class Weights(_Derived):
    """Labels read as the weights of the paper; 0 where pixels are ignored."""

    balance: tuple[float, ...]  # w_c, one a class
    preset: Preset = PRESET

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float32]:
        """Compute a box of a plane, the same whatever the box."""
        context = context_of(self.target, self.preset)
        job = self._job(plane, (y0, y1, x0, x1), context=context)
        return tile_weights(replace(job, balance=self.balance, preset=self.preset))


@dataclass(frozen=True)
class Rebalanced(_Derived):
    """Stored weights whose part w_c is another, where they are not 0."""

    weights: PlaneArray
    stored: tuple[float, ...]  # w_c of what is stored, one a class
    balance: tuple[float, ...]  # w_c of what is read

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float32]:
        """Read a box of a plane."""
        box = (plane, y0, y1, x0, x1)
        weights = self.weights.read(*box).astype(np.float32)
        targets = Targets(self.labels, self.ignore, self.target).read(*box)
        now, before = (np.asarray(w, np.float32)[targets] for w in (self.balance, self.stored))
        # Labels that were changed after they were weighed may belong to another class by now.
        return np.where(weights > 0, np.maximum(weights - before, 0) + now, np.float32(0))
