"""Carry out what `weights` settled: count the classes, then weigh tile by tile."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.meanings import target_names
from unetkit.arrays.weight_map import class_weights
from unetkit.engine.jobs import run_jobs
from unetkit.engine.label_tiles import (
    CLASSES,
    Survey,
    TileJob,
    TileJobs,
    count_tile,
    measured,
    stored_checksum,
    survey_tile,
    weigh_tile,
)
from unetkit.progress import warnings_of
from unetkit.storage.image_writer import create_weights
from unetkit.storage.images import open_image
from unetkit.storage.partial import stop_message
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.weight_map import Preset
    from unetkit.engine.pools import Scheduler
    from unetkit.progress import Progress
    from unetkit.signals import Stop
    from unetkit.storage.datasets import Sample
    from unetkit.storage.journal import Journal
    from unetkit.storage.partial import Partial, PreviousRun
    from unetkit.storage.planes import PlaneArray


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


@contextmanager
def alone(partials: Sequence[Partial]) -> Iterator[list[PreviousRun | None]]:
    """Be the only job on the weights of some samples; yield what earlier runs left of each."""
    with ExitStack() as stack:
        for one in partials:
            one.check_writable()
            if not is_remote(one.output):
                stack.enter_context(one.locked())
        yield [one.recheck() for one in partials]


@dataclass(frozen=True)
class SampleWeights:
    """The weights of one sample in the making, and what an earlier run left of them."""

    sample: Sample
    preset: Preset
    partial: Partial
    previous: PreviousRun | None

    def fingerprint(self, settings: dict[str, Any], balance: tuple[float, ...]) -> dict[str, Any]:
        """Return what the bytes of the weights depend on; the balance stands for the labels."""
        labels = self.sample.labels()
        return {
            "settings": {**settings, **asdict(self.preset)},
            "balance": list(balance),
            "labels": {"shape": list(labels.shape), "dtype": str(labels.dtype)},
        }

    def array(self, settings: dict[str, Any]) -> PlaneArray:
        """Open what is written, which is created where no earlier run did."""
        if self.previous is not None:
            return replace(open_image(self.partial.folder).data, has_channels=False)
        labels = self.sample.labels()
        axes = "".join(axis for axis in "tzyx" if axis in self.sample.data.axes)
        return create_weights(
            self.sample.image.url,
            shape=[labels.size(axis) for axis in axes],
            axes=axes,
            chunk=CHUNK,
            attributes={**settings, **asdict(self.preset)},
            at=self.partial.folder,
        )


class Weighing:
    """The weights of some samples, balanced together."""

    def __init__(
        self,
        parts: Sequence[SampleWeights],
        target: str,
        *,
        workforce: Scheduler,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._target = target
        self._workforce, self._stop, self._progress = workforce, stop, progress
        samples = measured(
            *([part.sample for part in parts], target),
            scheduler=workforce,
            progress=progress,
            advance=self._advance,
        )
        parts = [replace(part, sample=one) for part, one in zip(parts, samples, strict=True)]
        self._parts = parts
        self._jobs = self._tiles(parts, [part.sample.labels() for part in parts])

    def make(self, attributes: dict[str, Any], *, report: bool) -> dict[str, Any]:
        """Count, weigh, and look at the objects where that is asked for; return fields to report.

        The attributes are stored with the weights, beside the numbers.
        """
        balance = self._balance()
        names = target_names(self._target, self._class_names(len(balance)))
        named = dict(zip(names, balance, strict=False))
        done = self._write(balance, {**attributes, "class_weight": named})
        return {
            "class_weight": named,
            "tiles_total": self._jobs.total,
            "tiles_reused": self._jobs.total - done,
            "report": self._survey(named) if report else (),
        }

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
        classes = len(target_names(self._target, self._class_names()))
        highest = int(counts.nonzero()[0].max(initial=0))
        return class_weights(counts[: max(classes, highest + 1)].tolist())

    def _write(self, balance: tuple[float, ...], settings: dict[str, Any]) -> int:
        """Write the weights of all samples, and return how many tiles were not there yet."""
        for part in self._parts:
            if part.previous is not None:
                part.previous.check(part.fingerprint(settings, balance))
        left = [p for p in self._parts if p.previous is None or not p.previous.finished]
        # Outside of what removes its work after an error: what can't be read is refused and stays.
        begun = {id(part): part.array(settings) for part in left if part.previous is not None}
        # Unlike the settings, no byte of the weights depends on them.
        warnings = warnings_of(self._progress)
        told = {**settings, "warnings": warnings} if warnings else settings
        arrays: list[PlaneArray] = []
        journals: dict[str, Journal] = {}
        with ExitStack() as stack:
            for part in left:
                # What was begun is not lost for what can't be read now.
                lost = (BaseException,) if part.previous is None else ()
                making = part.partial.opened(fresh=part.previous is None, lost=lost)
                journal = stack.enter_context(making)
                arrays.append(begun.get(id(part)) or part.array(told))
                part.partial.write_fingerprint(part.fingerprint(settings, balance))
                journals[arrays[-1].url] = journal
            return self._weigh(self._tiles(left, arrays).tiles(balance), journals)

    def _weigh(self, jobs: Iterable[TileJob], journals: dict[str, Journal]) -> int:
        """Weigh every tile that is not done, or no longer as it was written."""
        self._progress.start("weighing", total=self._jobs.total)
        done = 0

        def missing() -> Iterator[TileJob]:
            for job in jobs:
                if journals[_url(job)].is_done(job.key, partial(stored_checksum, job)):
                    self._progress.advance()
                else:
                    yield job

        def finish(job: TileJob, checksum: int) -> None:
            nonlocal done
            journals[_url(job)].record(job.key, checksum=checksum)
            done += 1
            self._advance()

        run_jobs(weigh_tile, missing(), scheduler=self._workforce, on_done=finish)
        return done

    def _survey(self, class_weight: dict[str, float]) -> tuple[dict[str, Any], ...]:
        """Look at the objects of each sample, and say what the classes weigh.

        Class maps name no objects.
        """
        samples = [part.sample for part in self._parts]
        if self._target == "classes":
            return tuple({"sample": s.name, "class_weight": class_weight} for s in samples)
        self._progress.start("surveying", total=self._jobs.total)
        found = {sample.labels().url: _Sums() for sample in samples}

        def add(job: TileJob, survey: Survey) -> None:
            found[job.labels.url].add(job.plane, survey)
            self._progress.advance()

        run_jobs(survey_tile, self._jobs.tiles(), scheduler=self._workforce, on_done=add)
        return tuple(
            {"sample": s.name, **found[s.labels().url].to_dict(), "class_weight": class_weight}
            for s in samples
        )

    def _tiles(self, parts: Sequence[SampleWeights], arrays: Sequence[PlaneArray]) -> TileJobs:
        samples, presets = [part.sample for part in parts], [part.preset for part in parts]
        first = self._parts[0].preset
        return TileJobs(samples, arrays, preset=first, target=self._target, presets=presets)

    def _class_names(self, count: int = 0) -> tuple[str, ...]:
        """Name the classes as the first sample does; those without a name by their number."""
        names = self._parts[0].sample.class_names
        return (*names, *(str(number) for number in range(len(names), count)))

    def _advance(self) -> None:
        self._progress.advance()
        self._stop.check(stop_message("weights must go on to their end", self._stop.signal))


def _url(job: TileJob) -> str:
    return "" if job.output is None else job.output.url
