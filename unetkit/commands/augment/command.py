"""Make a larger dataset of a small one: each sample, and deformed copies of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from unetkit.commands.augment.copies import (
    Copy,
    Strengths,
    make_copy,
    replayed,
    write_preview,
)
from unetkit.engine.jobs import run_jobs
from unetkit.errors import InputError, UsageError
from unetkit.progress import SILENT, Progress, collects_warnings, warn, warnings_of
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.outputs import check_output, staged
from unetkit.storage.pixel_size import recorded
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.options import Axes, Opt, Overwrite, Preview, SchedulerName, Seed, Store, Workers
    from unetkit.storage.datasets import Dataset

MOST_COPIES = 999


@dataclass(frozen=True)
class AugmentReport:
    """What `augment` wrote."""

    output: str
    originals: int  # samples that were taken over unchanged
    copies: int  # deformed ones beside them
    seed: int
    preview: str | None = None  # the contact sheet
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "warnings": list(self.warnings)}


@collects_warnings
def augment(
    source: Store,
    output: Annotated[str, Opt(check="unetkit.storage.outputs:check_new")],
    *,
    copies: Annotated[int, Opt(min=1, max=999)] = 10,
    grid: Annotated[int, Opt(min=2, max=64, panel="Change")] = 3,
    sigma: Annotated[
        float | str, Opt(panel="Change", check="unetkit.storage.pixel_size:check_length")
    ] = 10.0,
    shift: Annotated[float, Opt(min=0, panel="Change")] = 10.0,
    rotation: Annotated[float, Opt(min=0, panel="Change")] = 15.0,
    flips: Annotated[bool, Opt(panel="Change")] = True,
    grey: Annotated[float, Opt(min=0, max=10, panel="Change")] = 0.1,
    allow_folds: Annotated[bool, Opt(panel="Change")] = False,
    replay: Annotated[str | None, Opt(metavar="SAMPLE")] = None,
    axes: Axes = None,
    seed: Seed = 0,
    preview: Preview = None,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> AugmentReport:
    """Add elastically deformed copies of every sample, labels and weights along with the image.

    Labels and ignore masks move along by the same coordinates; no id is invented, and beyond the
    border everything is mirrored. Weights of `weights` are computed anew from the moved labels, and
    those of others move along. Copies are named ``NAME-aug001`` and so on, and keep the source and
    group of their sample, by which training tells what may not validate what. The planes of a stack
    are deformed alike. A large image is deformed tile by tile, with the bits of the whole: a few
    tiles a worker are in memory.

    Parameters
    ----------
    source : str
        A dataset.
    output : str
        The dataset to write; it appears complete or not at all.
    copies : int
        Deformed copies of each sample beside the sample itself, at most 999; our own choice: the
        paper deforms anew in every step.
    grid : int
        Displaced points along each side; the paper: 3.
    sigma : float or str
        Standard deviation of their displacements, in pixels, or with a unit as ``2um``, which
        follows the pixel size of each sample; 0 for none; the paper: 10.
    shift : float
        Largest shift along each axis, in pixels; asked for by the paper, its size our own choice.
    rotation : float
        Largest rotation to either side, in degrees; asked for by the paper, its size our own
        choice.
    flips : bool
        Also mirror and turn by quarters; an odd number of turns swaps height and width; our own
        choice: few microscopes know an up or a left.
    grey : float
        Variation of grey values, as a part of their range, 0 for none; asked for by the paper, its
        size our own choice.
    allow_folds : bool
        Keep movements that fold an image over itself; else others are drawn in their place.
    replay : str, optional
        Make one copy again from its record: ``more.zarr/NAME-aug001``.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    seed : int
        Same seed, same result, whatever the workers.
    preview : str, optional
        Also draw a PNG picture to look at: originals beside copies with their grid drawn.
    scheduler : str
        Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH.
    workers : int, optional
        How many work at once.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told of each copy.

    Returns
    -------
    AugmentReport

    Raises
    ------
    UsageError
        If a strength or a number can't be used.
    InputError
        If the source is no dataset, holds augmented samples already, or has no pixel size where a
        unit asks for one; or if what is to be replayed has recorded nothing.
    OutputError
        If the output exists, or is the source.
    NonFiniteError
        If an image has NaN or Inf.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.1.
    """
    length = recorded(sigma, name="sigma")
    strengths = Strengths(grid, length, shift, rotation, flips, grey, allow_folds)
    _check(copies, seed, strengths)
    dataset = open_dataset(source, axes=axes, mixed=True)
    if replay is None:
        _check_names(dataset, copies)
    if preview is not None:
        check_output(preview, inputs=[source], overwrite=overwrite)
    options = {"copies": copies, "seed": seed, **asdict(strengths)}
    with staged(output, inputs=[source], overwrite=overwrite) as partial:
        writer = DatasetWriter(partial, attributes=_provenance(options=options))
        if replay is None:
            jobs = list(_copies(dataset, writer, copies, strengths=strengths, seed=seed))
        else:
            jobs = replayed(replay, dataset, writer)
        _note(dataset, progress)
        _note_folds(jobs, progress)
        progress.start("augmenting", total=len(jobs))
        run_jobs(
            make_copy,
            jobs,
            scheduler=scheduler,
            workers=workers,
            on_done=lambda job, result: progress.advance(status=job.name),
        )
        writer.finish(warnings=warnings_of(progress))
    if preview is not None:
        write_preview(preview, source=dataset, output=open_dataset(output, mixed=True), copies=jobs)
    copies = sum(job.deformation is not None for job in jobs)
    return AugmentReport(output, len(jobs) - copies, copies, seed, preview)


def _check(copies: int, seed: int, strengths: Strengths) -> None:
    if not 1 <= copies <= MOST_COPIES:
        raise UsageError(f"copies must be 1 to {MOST_COPIES}, got {copies}; the default is 10")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, got {seed}")
    strengths.check()


def _names(name: str, copies: int) -> list[str]:
    """Name the original and its copies."""
    return [name, *(f"{name}-aug{number:03d}" for number in range(1, copies + 1))]


def _check_names(dataset: Dataset, copies: int) -> None:
    counts = Counter(name for sample in dataset.names for name in _names(sample, copies))
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{dataset.url} must hold originals only, got {name!r}, which is augmented already; "
            "augment the dataset that it was made from, with more --copies"
        )


def _note(dataset: Dataset, progress: Progress) -> None:
    """Say what may surprise."""
    missing = sum(sample.label_kind is None for sample in dataset.samples)
    if missing:
        warn(
            progress,
            f"{missing} of {len(dataset.samples)} samples have no labels; training skips "
            "their copies too.",
        )


def _note_folds(jobs: Sequence[Copy], progress: Progress) -> None:
    """Say where movements are weaker than asked for, since those that fold were drawn again."""
    moved = [(job.deformation, job.folded) for job in jobs if job.deformation is not None]
    again = sum(folded is not None for _, folded in moved)
    if not again:
        return
    kept = np.mean([np.square(drawn.grid) for drawn, _ in moved])
    asked = np.mean([np.square((folded or drawn).grid) for drawn, folded in moved])
    warn(
        progress,
        f"{again} of {len(moved)} movements would have folded their image over itself and were"
        f" drawn again: displacements are {np.sqrt(kept / asked):.0%} of what --sigma asks for."
        " --allow-folds keeps them.",
    )


def _provenance(**more: Any) -> dict[str, Any]:
    return {"command": "augment", "unetkit_version": __version__, **more}


def _copies(
    dataset: Dataset, writer: DatasetWriter, copies: int, *, strengths: Strengths, seed: int
) -> Iterator[Copy]:
    """List the samples and their copies in the order of the new dataset."""
    for index, sample in enumerate(dataset.samples):
        original, *augmented = _names(sample.name, copies)
        kin = {"source": sample.source, "group": sample.group}
        place = writer.reserve(original, **kin)
        yield Copy(sample, original, place, sample.image.attributes)
        for number, name in enumerate(augmented, start=1):
            deformation, appearance = strengths.draw(seed, (index, number), sample)
            attributes = _provenance(
                source=sample.source,
                original=sample.name,
                seed=seed,
                deformation=deformation.to_dict(),
                appearance=appearance.to_dict(),
            )
            place = writer.reserve(name, **kin)
            folded = strengths.folded(seed, (index, number), sample)
            yield Copy(sample, name, place, attributes, deformation, appearance, folded)
