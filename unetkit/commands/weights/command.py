"""Write the weight of every pixel beside the labels of a dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unetkit.arrays.meanings import OF_IDS, check_target
from unetkit.arrays.weight_map import TOLERANCE, choose_preset
from unetkit.commands.weights.run import SampleWeights, Weighing, alone
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import InputError, UsageError
from unetkit.options import check_resume
from unetkit.progress import SILENT, Progress, collects_warnings, warn
from unetkit.signals import stoppable
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect
from unetkit.storage.outputs import check_output
from unetkit.storage.partial import Partial
from unetkit.storage.pixel_size import pixel_of, recorded, split_length
from unetkit.storage.urls import join
from unetkit.version import __version__
from unetkit.views.pictures import weight_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.arrays.weight_map import Preset
    from unetkit.options import (
        BreakLock,
        LabelName,
        Opt,
        Preview,
        Resume,
        SchedulerName,
        Store,
        Workers,
    )
    from unetkit.storage.datasets import Dataset, Sample

# Pixels a side of what a preview shows: a gap of one pixel is still seen.
PREVIEW = 512
UNUSED = (
    "These maps weigh two things: pixels in narrow gaps between objects, and rare classes."
    " 'unetkit train' uses the first; it uses the second, too, with --recipe-set balance=1 or"
    " --recipe paper."
)


@dataclass(frozen=True)
class WeightsReport:
    """What `weights` wrote."""

    output: str  # the dataset, which now holds the weights
    preset: str
    w0: float
    sigma: float | str
    target: str
    samples: int  # how many got weights
    unlabelled: tuple[str, ...]  # those that have no labels and got none
    class_weight: dict[str, float]  # w_c by class; empty where a preset balances by no frequency
    tiles_total: int  # of all planes
    tiles_reused: int  # that an earlier run had done
    preview: str | None = None
    # Of each sample, where asked for: objects, pairs that touch, share of pixels between objects.
    report: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        lists = ("unlabelled", "report", "warnings")
        return {**asdict(self), **{name: list(getattr(self, name)) for name in lists}}


@collects_warnings
def weights(
    source: Store,
    *,
    preset: Literal["paper2015", "freiburg2019"] = "paper2015",
    w0: Annotated[float | None, Opt(min=0, default="by the preset")] = None,
    sigma: Annotated[
        float | str | None,
        Opt(default="by the preset", check="unetkit.storage.pixel_size:check_length"),
    ] = None,
    target: Literal[
        "foreground", "foreground+boundary", "foreground+distance", "boundary", "classes"
    ] = "foreground",
    labels: LabelName = None,
    report: bool = False,
    preview: Preview = None,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    resume: Resume = False,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_weights")
    ] = False,
    break_lock: BreakLock = False,
    progress: Progress = SILENT,
) -> WeightsReport:
    """Weight every pixel: more in narrow gaps between objects, balanced over the classes.

    The weights are stored beside the labels: each labelled sample gets a group ``weights``,
    complete or not at all. The balance w_c is that of all annotated pixels of the dataset, after
    gaps are cut; the default recipe of `train` leaves it out.

    Parameters
    ----------
    source : str
        A dataset with labels, or an image with labels; it is written into.
    preset : {"paper2015", "freiburg2019"}
        Which published weights: those of the paper (w0 10, sigma 5), or of the Fiji plugin of
        Freiburg (w0 50, sigma 6, background 0.1).
    w0 : float, optional
        Weight in a gap of zero width.
    sigma : float or str, optional
        Width of the fall-off, in pixels, or with a unit as ``0.5um``: then all distances are
        measured by the height and width of each sample's pixels.
    target : str
        What the network will learn: foreground, foreground+boundary, foreground+distance or
        boundary. Class maps are learned as they are.
    labels : str, optional
        Which labels to weight, by name, or ``NAME=classes`` for class maps of other writers.
    report : bool
        Also count objects, touching pairs and border pixels.
    preview : str, optional
        Also draw a PNG picture to look at: the first labelled sample and its weights.
    scheduler : str
        Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH. The
        result is the same to the bit.
    workers : int, optional
        How many work at once.
    resume : bool
        Go on where a run stopped.
    overwrite : bool
        Replace weights that are there.
    break_lock : bool
        Take the result over from another job that is known to be dead.
    progress : Progress
        Told of each tile.

    Returns
    -------
    WeightsReport

    Raises
    ------
    InputError
        If no sample has labels, the input is no OME-Zarr, or there is no pixel size where a unit
        asks for one.
    OutputError
        If weights are there already, another job is at work on them, or an earlier run was stopped
        or had other settings.
    StoppedError
        If a signal came; what was done is kept for `resume`.
    UsageError
        If a number or name can't be used.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 2.
    """
    check_resume(resume, overwrite=overwrite)
    check_target(target)
    _numbers(preset, w0, sigma)
    _check_kind(source)
    dataset = open_dataset(source, labels=labels, mixed=True)
    labelled = _labelled(dataset, progress)
    learned = _target(labelled, target)
    presets = [_numbers(preset, w0, sigma, sample) for sample in labelled]
    if preview is not None:
        check_output(preview, overwrite=overwrite or resume)
    _note(learned, progress, balanced=presets[0].background is None)
    allowed: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "break_lock": break_lock}
    partials = [Partial(join(s.image.url, "weights"), title="", **allowed) for s in labelled]
    with (
        stoppable() as stop,
        alone(partials) as previous,
        open_scheduler(scheduler, workers) as workforce,
    ):
        each = zip(labelled, presets, partials, previous, strict=True)
        parts = [SampleWeights(*one) for one in each]
        run = Weighing(parts, learned, workforce=workforce, stop=stop, progress=progress)
        attributes: dict[str, Any] = {
            "command": "weights",
            "preset": preset,
            "tolerance": TOLERANCE,
        }
        attributes |= {"target": learned, "unetkit_version": __version__}
        if any(sample.chosen for sample in labelled):
            attributes["labels"] = labelled[0].chosen
        done = run.make(attributes, report=report)
    if preview is not None:
        _preview(preview, open_dataset(source, labels=labels, mixed=True)[labelled[0].name])
    return WeightsReport(
        output=source,
        preset=preset,
        w0=presets[0].w0,
        sigma=presets[0].sigma if sigma is None else recorded(sigma, name="sigma"),
        target=learned,
        samples=len(labelled),
        unlabelled=tuple(s.name for s in dataset.samples if s.label_kind is None),
        preview=preview,
        **done,
    )


def _note(target: str, progress: Progress, *, balanced: bool) -> None:
    """Say what may surprise."""
    if target == "classes":
        warn(progress, "Class maps name no single cells: weights are the class balance alone.")
    if target == "classes" or balanced:
        warn(progress, UNUSED)


def _numbers(
    name: str, w0: float | None, sigma: float | str | None, sample: Sample | None = None
) -> Preset:
    """Return the numbers for a sample's pixels; without a sample they are only judged."""
    if sigma is None:
        return choose_preset(name, w0=w0)
    number, physical = split_length(sigma, name="sigma")
    chosen = choose_preset(name, w0=w0, sigma=number)
    if not physical or sample is None:
        return chosen
    pixel = pixel_of(sample.image.pixel_size, name="sigma", sample=sample.name)
    return choose_preset(name, w0=w0).measured(number, pixel)


def _check_kind(source: str) -> None:
    """Refuse a stack, whose weights would be one array that all samples share, and no job owns."""
    if detect(source) == "stack":
        raise InputError(
            f"{source} must be a dataset or an OME-Zarr image to get weights beside its "
            "labels, got a stack of arrays; 'unetkit augment' makes a dataset of it"
        )


def _labelled(dataset: Dataset, progress: Progress) -> list[Sample]:
    labelled = [sample for sample in dataset.samples if sample.label_kind is not None]
    if not labelled:
        # The error that any sample without labels gives.
        dataset.samples[0].labels()
    missing = len(dataset.samples) - len(labelled)
    if missing:
        warn(progress, f"{missing} of {len(dataset.samples)} samples have no labels; left out.")
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
    if target not in OF_IDS:
        raise UsageError(f"target must be one of {', '.join(OF_IDS)} for instances, got {target!r}")
    return target


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
