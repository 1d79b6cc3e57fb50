"""Carry out what `weights` settled: count the classes, then weigh tile by tile."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.targets import target_names
from unetkit.arrays.weight_map import class_weights
from unetkit.engine.jobs import run_jobs
from unetkit.engine.label_tiles import (
    CLASSES,
    Survey,
    TileJob,
    TileJobs,
    count_tile,
    stored_checksum,
    survey_tile,
    weigh_tile,
)
from unetkit.storage.image_writer import create_weights
from unetkit.storage.partial import Partial, begun
from unetkit.storage.urls import join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.weight_map import Preset
    from unetkit.engine.pools import Scheduler
    from unetkit.engine.signals import Stop
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray


def survey(
    samples: Sequence[Sample],
    presets: Sequence[Preset],
    *,
    target: str,
    scheduler: Scheduler,
    progress: Progress,
) -> tuple[dict[str, Any], ...]:
    """Count the objects of each sample, the pairs that touch, and the pixels between them.

    Returns
    -------
    tuple of dict
        One a sample; without objects for class maps, which name none.
    """
    if target == "classes":
        return tuple({"sample": sample.name} for sample in samples)
    labels = [sample.labels() for sample in samples]
    jobs = TileJobs(samples, labels, preset=presets[0], target=target, presets=presets)
    progress.start("surveying", total=jobs.total)
    found = {sample.labels().url: _Sums() for sample in samples}

    def add(job: TileJob, survey: Survey) -> None:
        found[job.labels.url].add(job.plane, survey)
        progress.advance()

    run_jobs(survey_tile, jobs.tiles(), scheduler=scheduler, on_done=add)
    return tuple(
        {"sample": sample.name, **found[sample.labels().url].to_dict()} for sample in samples
    )


class _Sums:
    """What is known of a sample; ids of one plane are others than those of the next."""

    def __init__(self) -> None:
        self._ids: dict[int, NDArray[Any]] = {}
        self._pairs: dict[int, NDArray[Any]] = {}
        self._border = self._annotated = 0

    def add(self, plane: int, survey: Survey) -> None:
        """Add a tile."""
        for known, new in ((self._ids, survey.ids), (self._pairs, survey.pairs)):
            old = known.get(plane, new[:0])
            known[plane] = np.unique(np.concatenate([old, new]), axis=0)
        self._border += survey.border
        self._annotated += survey.annotated

    def to_dict(self) -> dict[str, Any]:
        """Return the sums."""
        share = self._border / self._annotated if self._annotated else 0.0
        return {
            "objects": sum(map(len, self._ids.values())),
            "touching_pairs": sum(map(len, self._pairs.values())),
            "border_share": share,
        }


CHUNK = 512  # pixels a side; tiles are whole chunks


@dataclass(frozen=True)
class Weighed:
    """What came of it; the fields of `WeightsReport` with these names."""

    class_weight: dict[str, float]
    tiles_total: int
    tiles_reused: int
    report: tuple[dict[str, Any], ...]


class Weighing:
    """The weights of some samples, balanced together.

    Parameters
    ----------
    samples : sequence of Sample
        Those with labels.
    presets : sequence of Preset
        The numbers of each.
    target : str
        What the network will learn.
    workforce : Scheduler
        Runs the tiles.
    stop : Stop
        Asked after each tile.
    progress : Progress
        Told of each tile.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        presets: Sequence[Preset],
        target: str,
        *,
        workforce: Scheduler,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._samples, self._presets, self._target = samples, presets, target
        self._workforce, self._stop, self._progress = workforce, stop, progress
        labels = [sample.labels() for sample in samples]
        self._jobs = self._tiles(samples, labels, presets)

    def make(
        self, attributes: dict[str, Any], *, report: bool, resume: bool, overwrite: bool
    ) -> Weighed:
        """Count, weigh, and look at the objects where that is asked for.

        Parameters
        ----------
        attributes : dict
            What is stored with the weights, beside the numbers.
        report : bool
            Whether to look at the objects.
        resume, overwrite : bool
            As for `weights`.
        """
        balance = self._balance()
        names = target_names(self._target, _class_names(self._samples, len(balance)))
        named = dict(zip(names, balance, strict=False))
        settings = {**attributes, "class_weight": named}
        reused = self._write(balance, settings, resume=resume, overwrite=overwrite)
        found = self._survey(named) if report else ()
        return Weighed(named, self._jobs.total, reused, found)

    def _balance(self) -> tuple[float, ...]:
        """Count the classes of all samples, and weigh them; nothing where that is not used."""
        if not self._jobs.balanced:
            return ()
        counts = np.zeros(CLASSES, np.int64)

        def add(job: TileJob, found: NDArray[np.int64]) -> None:
            counts[:] += found
            self._advance()

        self._progress.start("counting classes", total=self._jobs.total)
        run_jobs(count_tile, self._jobs.tiles(), scheduler=self._workforce, on_done=add)
        classes = len(target_names(self._target, _class_names(self._samples)))
        highest = int(counts.nonzero()[0].max(initial=0))
        return class_weights(counts[: max(classes, highest + 1)].tolist())

    def _write(
        self,
        balance: tuple[float, ...],
        attributes: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
    ) -> int:
        """Write the weights of all samples, and return how many tiles were there already."""
        with ExitStack() as stack:
            partials: list[Partial | None] = []
            for sample, preset in zip(self._samples, self._presets, strict=True):
                settings = {**attributes, **asdict(preset)}
                context = begun(
                    join(sample.image.url, "weights"),
                    fingerprint=_fingerprint(sample, settings, balance),
                    create=partial(_create, sample, settings),
                    resume=resume,
                    overwrite=overwrite,
                )
                partials.append(stack.enter_context(context))
            return self._weigh(partials, balance)

    def _survey(self, class_weight: dict[str, float]) -> tuple[dict[str, Any], ...]:
        """Look at the objects of each sample, and say what the classes weigh."""
        found = survey(
            self._samples,
            self._presets,
            target=self._target,
            scheduler=self._workforce,
            progress=self._progress,
        )
        return tuple({**row, "class_weight": class_weight} for row in found)

    def _weigh(self, partials: Sequence[Partial | None], balance: tuple[float, ...]) -> int:
        """Weigh every tile that is not done, or no longer as it was written."""
        self._progress.start("weighing", total=self._jobs.total)
        left = {p.output.url: p for p in partials if p is not None}
        chosen = [
            (sample, p.output, preset)
            for sample, p, preset in zip(self._samples, partials, self._presets, strict=True)
            if p is not None
        ]
        samples, outputs, presets = zip(*chosen, strict=True) if chosen else ((), (), ())
        jobs = self._tiles(samples, outputs, presets)
        done = 0

        def missing() -> Iterator[TileJob]:
            for job in jobs.tiles(balance):
                before = left[_url(job)].before
                if job.key in before and stored_checksum(job) == before[job.key]:
                    self._progress.advance()
                else:
                    yield job

        def finish(job: TileJob, checksum: int) -> None:
            nonlocal done
            left[_url(job)].journal.record(job.key, checksum=checksum)
            done += 1
            self._advance()

        run_jobs(weigh_tile, missing(), scheduler=self._workforce, on_done=finish)
        return self._jobs.total - done

    def _tiles(
        self,
        samples: Sequence[Sample],
        outputs: Sequence[PlaneArray],
        presets: Sequence[Preset],
    ) -> TileJobs:
        first = self._presets[0]
        return TileJobs(samples, outputs, preset=first, target=self._target, presets=presets)

    def _advance(self) -> None:
        self._progress.advance()
        number = self._stop.signal
        name = signal.Signals(number).name if number else ""
        self._stop.check(
            f"weights must go on to their end, got {name}; give the same command with --resume"
        )


def _class_names(samples: Sequence[Sample], count: int = 0) -> tuple[str, ...]:
    """Name the classes as the first sample does; those without a name by their number."""
    names = samples[0].class_names
    return (*names, *(str(number) for number in range(len(names), count)))


def _url(job: TileJob) -> str:
    return "" if job.output is None else job.output.url


def _create(sample: Sample, attributes: dict[str, Any], place: str) -> PlaneArray:
    labels = sample.labels()
    axes = "".join(axis for axis in "tzyx" if axis in sample.data.axes)
    return create_weights(
        sample.image.url,
        shape=[labels.size(axis) for axis in axes],
        axes=axes,
        chunk=CHUNK,
        attributes=attributes,
        pixel_size=sample.image.pixel_size,
        at=place,
    )


def _fingerprint(
    sample: Sample, settings: dict[str, Any], balance: tuple[float, ...]
) -> dict[str, Any]:
    """Return what the bytes of the weights depend on; the balance stands for the labels."""
    labels = sample.labels()
    return {
        "settings": settings,
        "balance": list(balance),
        "labels": {"shape": list(labels.shape), "dtype": str(labels.dtype)},
    }
