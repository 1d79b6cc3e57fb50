"""Make a larger dataset of a small one: each sample, and deformed copies of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.commands.augment.copies import (
    DEFAULTS,
    Copy,
    Strengths,
    make_copy,
    replayed,
    write_preview,
)
from unetkit.engine.jobs import run_jobs
from unetkit.errors import InputError, UsageError
from unetkit.kernel_cache import FIRST_USE, is_compiled
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.outputs import check_output, staged
from unetkit.storage.pixel_size import recorded
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.storage.datasets import Dataset

MOST_COPIES = 999


@dataclass(frozen=True)
class AugmentReport:
    """What `augment` wrote.

    Attributes
    ----------
    output : str
        The dataset.
    originals : int
        How many samples were taken over unchanged.
    copies : int
        How many deformed ones stand beside them.
    seed : int
        What all random numbers came from.
    preview : str, optional
        The contact sheet, where one was asked for.
    """

    output: str
    originals: int
    copies: int
    seed: int
    preview: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def augment(
    source: str,
    output: str,
    *,
    copies: int = DEFAULTS["copies"].value,
    grid: int = DEFAULTS["grid"].value,
    sigma: float | str = DEFAULTS["sigma"].value,
    shift: float = DEFAULTS["shift"].value,
    rotation: float = DEFAULTS["rotation"].value,
    flips: bool = DEFAULTS["flips"].value,
    grey: float = DEFAULTS["grey"].value,
    allow_folds: bool = False,
    replay: str | None = None,
    seed: int = 0,
    preview: str | None = None,
    scheduler: str = "threads",
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> AugmentReport:
    """Write each sample of a dataset, and copies of it that are moved and deformed at random.

    Labels, ignore masks and weights move along by the same coordinates; no id is invented, and
    beyond the border everything is mirrored. Copies are named ``NAME-aug001`` and so on, and keep
    the source of their sample, by which training tells what may not validate what. The planes of a
    stack are deformed alike. A large image is deformed tile by tile, with the bits of the whole: a
    few tiles a worker are in memory.

    Parameters
    ----------
    source : str
        A dataset.
    output : str
        The dataset to write; it appears complete or not at all.
    copies : int
        Copies of each sample, 1 to 999, beside the sample itself.
    grid : int
        Points a side of the elastic grid.
    sigma : float or str
        Standard deviation of the displacements at its points, in pixels or, as in ``"2um"``, in a
        unit; 0 for none. With a unit it follows the pixel size of each sample, along y and x.
    shift : float
        Largest shift along each axis, in pixels.
    rotation : float
        Largest rotation, in degrees to either side.
    flips : bool
        Draw flips and quarter turns; an odd number of turns swaps height and width.
    grey : float
        Strength of the grey-value variation, as a part of the image's range; 0 for none.
    allow_folds : bool
        Keep movements that fold an image over itself; else others are drawn in their place.
    replay : str, optional
        An augmented sample, such as ``more.zarr/a-aug003``: instead of drawing, make that copy
        again from what it has recorded.
    seed : int
        Same seed, same bytes, whatever the workers.
    preview : str, optional
        A PNG to write: originals beside deformed copies with their grid drawn.
    scheduler, workers
        As in `unetkit.engine.jobs.run_jobs`.
    overwrite : bool
        Replace an earlier output.
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
    NumbersError
        If an image has NaN or Inf.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.1. `DEFAULTS` says where each default
    comes from.
    """
    length = recorded(sigma, name="sigma")
    strengths = Strengths(grid, length, shift, rotation, flips, grey, allow_folds)
    _check(copies, seed, strengths)
    dataset = open_dataset(source)
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
        progress.start("augmenting", total=len(jobs))
        run_jobs(
            make_copy,
            jobs,
            scheduler=scheduler,
            workers=workers,
            on_done=lambda job, result: progress.advance(status=job.name),
        )
        writer.finish()
    if preview is not None:
        write_preview(preview, source=dataset, output=open_dataset(output), copies=jobs)
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
        progress.note(
            f"{missing} of {len(dataset.samples)} samples have no labels; training skips "
            "their copies too."
        )
    if not is_compiled("warp_kernels"):
        progress.note(FIRST_USE)


def _provenance(**more: Any) -> dict[str, Any]:
    return {"command": "augment", "unetkit_version": __version__, **more}


def _copies(
    dataset: Dataset, writer: DatasetWriter, copies: int, *, strengths: Strengths, seed: int
) -> Iterator[Copy]:
    """List the samples and their copies in the order of the new dataset."""
    for index, sample in enumerate(dataset.samples):
        original, *augmented = _names(sample.name, copies)
        place = writer.reserve(original, source=sample.source)
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
            place = writer.reserve(name, source=sample.source)
            yield Copy(sample, name, place, attributes, deformation, appearance)
