"""What is decided about a training before any data is opened."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.arrays.instances import has_instances, object_class
from unetkit.arrays.meanings import TARGETS, check_target, default_target, meaning_of, target_names
from unetkit.arrays.normalization import METHODS
from unetkit.arrays.weight_map import PRESETS, class_weights
from unetkit.engine.label_tiles import (
    CLASSES,
    TILE,
    ClassifiedLabels,
    TileJob,
    TileJobs,
    count_tile,
    measured,
)
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Tile, cover
from unetkit.models import hardware
from unetkit.models.build import models, parse_options
from unetkit.options import complete, options_of
from unetkit.progress import parse_duration, warn
from unetkit.storage.datasets import are_named
from unetkit.storage.object_classes import object_class_names, read_object_classes
from unetkit.training.recipes import RECIPES, Recipe, choose_recipe
from unetkit.training.sampler import ClassCounts
from unetkit.training.split import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from unetkit.models.model_header import ModelHeader
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.training.split import Fold, Region

# Threads that draw tiles: more than a fast GPU needs would only hold memory.
MOST_WORKERS = 8
# The network that is trained where none is named.
USUAL = "unet"
# Updates of a network where neither their number nor a time is named.
STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `train` of the same names that say how each network is trained."""

    model: str | None
    options: Sequence[str]
    recipe: str
    recipe_set: Sequence[str]
    loss: str | None
    steps: int | None
    time_budget: str | None
    target: str | None
    normalization: str | None
    tensorboard: str | None
    freeze_encoder: int
    seed: int
    channels: str | None
    device: str
    precision: str
    workers: int | None
    nonfinite: Literal["error", "fill"]
    accumulate: int
    keep_state: bool
    keep_old: bool


@dataclass(frozen=True)
class Plan:
    """How to train."""

    model: str
    options: dict[str, Any]  # all that the model has
    recipe: str
    numbers: Recipe  # the recipe of that name, with what was changed of it
    steps: int  # with a budget a first guess
    budget: float | None  # seconds
    seed: int
    channels: str | None
    device: str
    precision: str
    workers: int  # threads that draw tiles
    freeze_encoder: int = 0  # steps at the start in which the encoder does not learn
    normalization: str = METHODS[0]
    most_steps: int | None = None  # beside a budget
    accumulate: int = 1  # parts in which a batch is computed
    fold: Fold | None = None

    @property
    def changed(self) -> dict[str, Any]:
        """What was changed of the recipe besides its loss."""
        usual, now = asdict(RECIPES[self.recipe]), asdict(self.numbers)
        return {key: value for key, value in now.items() if key != "loss" and value != usual[key]}


def make_plan(
    given: TrainOptions,
    *,
    start: ModelHeader | None = None,
    fold: Fold | None = None,
    sides: int = 1,
) -> Plan:
    """Judge the options of `train`, and choose what is left to choose.

    What is left out is as in `start`, where there is an earlier model to begin with. A step learns
    from a tile of each of the `sides` that are mixed, unless the number of tiles was set.
    """
    least = {"steps": (given.steps, 1), "seed": (given.seed, 0), "workers": (given.workers, 0)}
    least |= {"freeze-encoder": (given.freeze_encoder, 0), "accumulate": (given.accumulate, 1)}
    for name, (value, bound) in least.items():
        if value is not None and value < bound:
            raise UsageError(f"{name} must be at least {bound}, got {value}; use {bound} or more")
    numbers = choose_recipe(given.recipe, given.recipe_set, loss=given.loss)
    if not any(text.partition("=")[0].strip() == "batch" for text in given.recipe_set):
        # Batch normalization over one kind of image at a time does not suit either: measured, it
        # unlearned the old kind and did not learn the new one.
        numbers = replace(numbers, batch=max(numbers.batch, sides))
    name, options = _network(given.model, given.options, start, usual=numbers.options)
    method = given.normalization or (METHODS[0] if start is None else start.normalization)
    if method not in METHODS:
        raise UsageError(f"normalization must be one of {', '.join(METHODS)}, got {method!r}")
    device = hardware.pick_device(given.device)
    workers = given.workers
    share = 1 if fold is None else fold.count
    return Plan(
        model=name,
        options=options,
        recipe=given.recipe,
        numbers=numbers,
        steps=given.steps or STEPS,
        budget=None if given.time_budget is None else parse_duration(given.time_budget) / share,
        seed=given.seed,
        channels=given.channels,
        device=str(device),
        precision=_precision(given.precision, device),
        workers=min(MOST_WORKERS, hardware.thread_count()) if workers is None else workers,
        freeze_encoder=given.freeze_encoder,
        normalization=method,
        most_steps=given.steps if given.time_budget else None,
        accumulate=given.accumulate,
        fold=fold,
    )


def _precision(requested: str, device: torch.device) -> str:
    if requested == "auto":
        return hardware.low_precision(device) or "float32"
    if requested not in hardware.PRECISIONS:
        known = ", ".join(("auto", *hardware.PRECISIONS))
        raise UsageError(f"precision must be one of {known}, got {requested!r}")
    return requested


def _network(
    model: str | None,
    options: Sequence[str],
    start: ModelHeader | None,
    *,
    usual: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Name the network and all of its options; `usual` are for networks that have such options."""
    if start is None:
        name = model or USUAL
        known = options_of(models().get(name))
        base = {key: value for key, value in usual.items() if key in known}
    else:
        # Names of our own can't be taken by others, and are shown as they are.
        name = start.model if start.distribution == "unetkit" else start.full_name
        base = start.options
        if model is not None and models().entry(model).full_name != start.full_name:
            raise UsageError(
                f"model must be that of init, {name!r}, or be left out, got {model!r}; weights of"
                " one network mean nothing in another"
            )
    given = {**base, **parse_options(options, name)}
    return name, complete(given, models().get(name), model=name)


# Of the weights that are computed where a dataset has none.
PRESET = PRESETS["paper2015"]


@dataclass(frozen=True)
class LearningTask:
    """What a dataset teaches."""

    samples: tuple[Sample, ...]  # those with labels
    unlabelled: int  # how many have none
    target: str
    class_names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] = ()  # annotated pixels of each class, for each sample
    class_counts: tuple[ClassCounts, ...] = field(default=(), compare=False)

    @property
    def background(self) -> int:
        """The class that is not foreground."""
        return int(self.instances and object_class(self.target) == 0)

    @property
    def instances(self) -> bool:
        """Whether objects are predicted."""
        return has_instances(self.target)

    @property
    def score(self) -> str:
        """What people call the score that the kept network has the highest of."""
        return "AP" if self.instances else "Dice"

    @property
    def balance(self) -> tuple[float, ...]:
        """w_c over the annotated pixels of all samples."""
        return class_weights(np.sum(self.counts, axis=0).tolist())

    def origins(self) -> list[Origin]:
        """Say where the samples come from, and which have foreground."""
        return [
            Origin(
                name=sample.name,
                source=sample.source,
                augmented=sample.image.attributes.get("command") == "augment",
                height=sample.data.height,
                width=sample.data.width,
                foreground=sum(counts) > counts[self.background],
                group=sample.group,
            )
            for sample, counts in zip(self.samples, self.counts, strict=True)
        ]

    def has_foreground(self, region: Region) -> bool:
        """Say whether a region holds any annotated foreground."""
        sample = next(sample for sample in self.samples if sample.name == region.sample)
        for plane in range(sample.labels().planes):
            for part in cover(region.height, region.width, tile=TILE):
                start = region.y0 + part.y0, region.x0 + part.x0
                stop = region.y0 + part.y1, region.x0 + part.x1
                context = meaning_of(self.target).context
                seen = (*(v - context for v in start), *(v + context for v in stop))
                job = TileJob(
                    sample.labels(),
                    ignore=sample.ignore,
                    plane=plane,
                    tile=Tile(0, *start, *stop, *seen),
                    target=self.target,
                    preset=PRESET,
                )
                counts = count_tile(job)
                if counts.sum() > counts[self.background]:
                    return True
        return False


def check_channels(dataset: Dataset, channels: str | None, progress: Progress) -> None:
    """Make sure that a channel is the same in all samples, and say where its place is not.

    `channels` is what was asked for, which `open_dataset` has done, by name where it could.
    """
    first, other = dataset.samples[0], _otherwise_named(dataset)
    names = first.image.channel_names
    if len({sample.data.picked for sample in dataset.samples}) > 1:
        progress.note(f"Channels are taken by name, as {', '.join(names)}: their order differs.")
    if other is None or (channels is None and first.data.channel_count == 1):
        return
    others = other.image.channel_names
    got = f"{', '.join(names)} in {first.name!r} and {', '.join(others)} in {other.name!r}"
    if channels is not None:
        plain = [[name.casefold() for name in some] for some in (names, others)]
        if plain[0] != plain[1] and not any(map(str.isdecimal, (*names, *others))):
            warn(progress, f"Channels are chosen by number, and are called otherwise: {got}.")
        return
    if are_named(names) and are_named(others):
        raise InputError(
            f"samples to train on must have the same channels, got {got}; choose those that mean"
            " the same with --channels"
        )
    warn(progress, f"Channels are taken by their order, since not all have names: {got}.")


def _otherwise_named(dataset: Dataset) -> Sample | None:
    """Return a sample whose channels have other names than those of the first one."""
    names = dataset.samples[0].image.channel_names
    return next((one for one in dataset.samples if one.image.channel_names != names), None)


def channels_of(dataset: Dataset, channels: str | None) -> str | None:
    """Name the channels that are learned from, for the model file, or say what was asked for."""
    names = dataset.samples[0].image.channel_names
    written = ",".join(names)
    if are_named(names) and _otherwise_named(dataset) is None and written.count(",") < len(names):
        return written
    return channels


def choose_task(dataset: Dataset, target: str | None, progress: Progress) -> LearningTask:
    """Find what there is to learn, and count the annotated pixels of each class."""
    samples = tuple(sample for sample in dataset.samples if sample.label_kind is not None)
    if not samples:
        # The error that any sample without labels gives.
        dataset.samples[0].labels()
    unlabelled = len(dataset.samples) - len(samples)
    if unlabelled:
        warn(progress, f"{unlabelled} of {len(dataset.samples)} samples have no labels; left out.")
    chosen = _target(samples, target)
    if meaning_of(chosen).classed:
        of_objects = _object_class_names(samples)
        samples = tuple(map(_classified, samples))
        names = target_names(chosen, of_objects)
    else:
        names = target_names(chosen, _class_names(samples))
    samples = measured(samples, chosen, scheduler="threads", progress=progress)
    return _counted(LearningTask(samples, unlabelled, chosen, names), progress)


def _target(samples: tuple[Sample, ...], wanted: str | None) -> str:
    """Choose what is learned from the one kind of labels."""
    kinds = sorted({str(sample.label_kind) for sample in samples})
    if len(kinds) > 1:
        raise InputError(
            "samples to train on must have labels of one kind, got classes and instances; "
            "import them into two datasets"
        )
    classed = all(object_class_names(sample.image) for sample in samples)
    chosen = default_target(kinds[0], classed=classed) if wanted is None else wanted
    check_target(chosen)
    if (chosen == "classes") != (kinds[0] == "classes"):
        of_objects = [target for target in TARGETS if has_instances(target)]
        fitting = "classes" if kinds[0] == "classes" else ", ".join(of_objects)
        raise UsageError(f"target must be {fitting} for labels of {kinds[0]}, got {chosen!r}")
    return chosen


def _class_names(samples: tuple[Sample, ...]) -> tuple[str, ...]:
    """Return the names that all samples give their classes: one number must mean one thing."""
    first = samples[0]
    for sample in samples:
        if sample.class_names != first.class_names:
            raise InputError(
                "samples to train on must have the same names of classes, got "
                f"{_listed(first)} and {_listed(sample)}; run 'unetkit import' again with --classes"
            )
    return first.class_names


def _object_class_names(samples: tuple[Sample, ...]) -> tuple[str, ...]:
    """Return what all samples call the classes of their objects."""
    first = object_class_names(samples[0].image)
    for sample in samples:
        names = object_class_names(sample.image)
        if not names or names != first:
            shown = [", ".join(one[1:]) or "none" for one in (first, names)]
            raise InputError(
                "objects to train on must have classes, the same in all samples, got"
                f" {shown[0]} in {samples[0].name!r} and {shown[1]} in {sample.name!r}; run"
                " 'unetkit import' again with --kind instances+classes"
            )
    return first


def _classified(sample: Sample) -> Sample:
    """See the labels of a sample with the class of each object."""
    classes = read_object_classes(sample.image)
    if classes is None:
        return sample
    labels = ClassifiedLabels.of(sample.labels("instances"), classes)
    told = {**sample.image.labels, "instances": labels}
    return replace(sample, image=replace(sample.image, labels=told))


def _listed(sample: Sample) -> str:
    return f"{', '.join(sample.class_names) or 'none'} in {sample.name!r}"


def _counted(task: LearningTask, progress: Progress) -> LearningTask:
    """Count the annotated pixels, and refuse what can't be learned."""
    class_counts = _count_classes(task, progress)
    found = np.stack([one.counts.sum(axis=0) for one in class_counts])
    total = found.sum(axis=0)
    if (total > 0).sum() < 2:
        what = "foreground" if total.argmax() == task.background else "background"
        raise InputError(
            f"labels to train on must hold background and foreground, got no {what} in any of "
            f"{len(task.samples)} samples; look at them, or annotate some more"
        )
    highest = int(total.nonzero()[0].max())
    names = task.class_names or tuple(str(number) for number in range(highest + 1))
    if highest >= len(names):
        raise InputError(
            f"classes must have a name each, got class {highest} beside {len(names)} names; "
            "run 'unetkit import' again with --classes"
        )
    counts = tuple(tuple(row) for row in found[:, : len(names)].tolist())
    cut = tuple(ClassCounts(one.boxes, one.counts[:, : len(names)].copy()) for one in class_counts)
    return replace(task, class_names=names, counts=counts, class_counts=cut)


def _count_classes(task: LearningTask, progress: Progress) -> list[ClassCounts]:
    """Count the annotated pixels of every tile of every sample, of 256 classes."""
    every = [
        TileJobs([sample], [sample.labels()], preset=PRESET, target=task.target)
        for sample in task.samples
    ]
    progress.start("counting classes", total=sum(jobs.total for jobs in every))
    found = []
    for jobs in every:
        boxes = np.zeros((jobs.total, 5), np.int64)
        counts = np.zeros((jobs.total, CLASSES), np.int64)
        for number, job in enumerate(jobs.tiles()):
            tile = job.tile
            boxes[number] = job.plane, tile.y0, tile.x0, tile.y1, tile.x1
            counts[number] = count_tile(job)
            progress.advance()
        found.append(ClassCounts(boxes, counts))
    return found
