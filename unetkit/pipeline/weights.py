"""Write the weight of every pixel beside the labels of a dataset."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.targets import TARGETS, check_target, target_names
from unetkit.arrays.weightmap import TOLERANCE, choose_preset, class_weights
from unetkit.engine.jobs import run_jobs
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import InputError, UsageError
from unetkit.pipeline.weights_tiles import CLASSES, TileJob, TileJobs, count_tile, weigh_tile
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import open_dataset
from unetkit.storage.files import check_output, staged
from unetkit.storage.images import create_weights, update_attributes
from unetkit.storage.urls import join
from unetkit.views.pictures import weight_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.weightmap import Preset
    from unetkit.engine.schedulers import Scheduler
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.planes import PlaneArray

CHUNK = 512  # pixels a side; tiles are whole chunks
# Pixels a side of what a preview shows: a gap of one pixel is still seen.
PREVIEW = 512


@dataclass(frozen=True)
class WeightsReport:
    """What `weights` wrote.

    Attributes
    ----------
    output : str
        The dataset, which now holds the weights.
    preset, w0, sigma, target
        How the weights were computed.
    samples : int
        How many samples got weights.
    unlabelled : tuple of str
        Those that have no labels and got none.
    class_weight : dict of str to float
        w_c by the name of the class; empty where the preset does not balance by frequency.
    preview : str, optional
        The picture, where one was asked for.
    """

    output: str
    preset: str
    w0: float
    sigma: float
    target: str
    samples: int
    unlabelled: tuple[str, ...]
    class_weight: dict[str, float]
    preview: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "unlabelled": list(self.unlabelled)}


def weights(
    source: str,
    *,
    preset: str = "paper2015",
    w0: float | None = None,
    sigma: float | None = None,
    target: str = "foreground",
    preview: str | None = None,
    scheduler: str = "threads",
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> WeightsReport:
    """Weight every pixel by the balance of classes and the narrowness of gaps between cells.

    Each labelled sample gets a group ``weights``, complete or not at all. The balance w_c is that
    of all annotated pixels of the dataset, after gaps are cut.

    Parameters
    ----------
    source : str
        A dataset or an image with labels; the one input of a command that is written into.
    preset : str
        ``paper2015`` (w0 10, sigma 5) or ``freiburg2019`` (w0 50, sigma 6, background 0.1).
    w0, sigma : float, optional
        Other numbers for the border term: its height, and its width in pixels.
    target : str
        What the network will learn from instances: ``foreground``, ``foreground+boundary`` or
        ``boundary``. Class maps are learned as they are.
    preview : str, optional
        A PNG to write: the first labelled sample and its weights.
    scheduler, workers
        As in `unetkit.engine.jobs.run_jobs`. They change no bit of the result.
    overwrite : bool
        Replace weights that are there.
    progress : Progress
        Told of each tile.

    Returns
    -------
    WeightsReport

    Raises
    ------
    InputError
        If no sample has labels, or the input is no OME-Zarr.
    OutputError
        If weights are there already.
    UsageError
        If a number or name can't be used.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 2.
    """
    numbers = choose_preset(preset, w0=w0, sigma=sigma)
    check_target(target)
    dataset = open_dataset(source)
    labelled = _labelled(dataset, progress)
    target = _target(labelled, target)
    if target == "classes":
        progress.note("Class maps name no single cells: weights are the class balance alone.")
    places = [join(sample.image.url, "weights") for sample in labelled]
    for place in places:
        check_output(place, overwrite=overwrite)
    if preview is not None:
        check_output(preview, overwrite=overwrite)
    with ExitStack() as stack, open_scheduler(scheduler, workers) as workforce:
        outputs = []
        for sample, place in zip(labelled, places, strict=True):
            partial = stack.enter_context(staged(place, overwrite=overwrite))
            outputs.append(_create(sample, partial, _attributes(preset, numbers, target)))
        jobs = TileJobs(labelled, outputs, preset=numbers, target=target)
        balance = _balance(jobs, workforce, progress)
        progress.start("weighing", total=jobs.total)
        run_jobs(
            weigh_tile,
            jobs.tiles(balance),
            scheduler=workforce,
            on_done=lambda job, result: progress.advance(),
        )
        names = target_names(target, _class_names(labelled, len(balance)))
        by_name = dict(zip(names, balance, strict=False))
        for output in outputs:
            update_attributes(_group(output), class_weight=by_name)
    if preview is not None:
        _preview(preview, open_dataset(source)[labelled[0].name])
    return WeightsReport(
        output=source,
        preset=preset,
        w0=numbers.w0,
        sigma=numbers.sigma,
        target=target,
        samples=len(labelled),
        unlabelled=tuple(s.name for s in dataset.samples if s.label_kind is None),
        class_weight=by_name,
        preview=preview,
    )


def _labelled(dataset: Dataset, progress: Progress) -> list[Sample]:
    labelled = [sample for sample in dataset.samples if sample.label_kind is not None]
    if not labelled:
        # The error that any sample without labels gives.
        dataset.samples[0].labels()
    missing = len(dataset.samples) - len(labelled)
    if missing:
        progress.note(f"{missing} of {len(dataset.samples)} samples have no labels; left out.")
    return labelled


def _target(labelled: Sequence[Sample], target: str) -> str:
    """Return what is learned from the kind of labels there is."""
    kinds = {sample.label_kind for sample in labelled}
    if len(kinds) > 1:
        raise InputError(
            "samples must have labels of one kind to be balanced together, got instances and "
            "classes; import them into two datasets"
        )
    if kinds == {"classes"}:
        return "classes"
    if target == "classes":
        raise UsageError(
            f"target must be one of {', '.join(TARGETS[:3])} for instances, got 'classes'"
        )
    return target


def _attributes(preset: str, numbers: Preset, target: str) -> dict[str, Any]:
    return {
        "command": "weights",
        "preset": preset,
        **asdict(numbers),
        "tolerance": TOLERANCE,
        "target": target,
        "unetkit_version": version("unetkit"),
    }


def _create(sample: Sample, partial: str, attributes: dict[str, Any]) -> PlaneArray:
    labels = sample.labels()
    axes = "".join(axis for axis in "tzyx" if axis in sample.data.axes)
    return create_weights(
        sample.image.url,
        shape=[labels.size(axis) for axis in axes],
        axes=axes,
        chunk=CHUNK,
        attributes=attributes,
        pixel_size=sample.image.pixel_size,
        at=partial,
    )


def _group(output: PlaneArray) -> str:
    """Name the group of an array that is its level 0."""
    return output.url.rsplit("/", 1)[0]


def _balance(jobs: TileJobs, workforce: Scheduler, progress: Progress) -> tuple[float, ...]:
    """Count the classes of the whole dataset, and weigh them; nothing where that is not used."""
    if not jobs.balanced:
        return ()
    counts = np.zeros(CLASSES, np.int64)

    def add(job: TileJob, found: NDArray[np.int64]) -> None:
        counts[:] += found
        progress.advance()

    progress.start("counting classes", total=jobs.total)
    run_jobs(count_tile, jobs.tiles(), scheduler=workforce, on_done=add)
    classes = len(target_names(jobs.target, _class_names(jobs.samples)))
    highest = int(counts.nonzero()[0].max(initial=0))
    return class_weights(counts[: max(classes, highest + 1)].tolist())


def _class_names(labelled: Sequence[Sample], count: int = 0) -> tuple[str, ...]:
    """Name the classes as the first sample does; those without a name by their number."""
    names = labelled[0].class_names
    return (*names, *(str(number) for number in range(len(names), count)))


def _preview(path: str, sample: Sample) -> None:
    """Show the middle of a sample's middle plane."""
    labels, weights_there = sample.labels(), sample.weights
    if weights_there is None:
        raise InputError(f"sample {sample.name!r} must have weights to be shown, got none")
    boxes = []
    for size in (labels.height, labels.width):
        start = max(0, (size - PREVIEW) // 2)
        boxes += [start, min(size, start + PREVIEW)]
    plane = labels.planes // 2
    weight_picture(
        path,
        sample.data.read(plane, *boxes),
        labels.read(plane, *boxes),
        weights=weights_there.read(plane, *boxes),
        title=sample.name,
    )
