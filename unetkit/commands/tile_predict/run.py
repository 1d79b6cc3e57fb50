"""Carry a plan out in a partial, stage by stage; what is done survives an end at any time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.instances import has_instances, object_class
from unetkit.commands.tile_predict.audit import audit
from unetkit.commands.tile_predict.blocks import (
    BatchDone,
    ImageTask,
    TileBatch,
    TileJob,
    batches,
    predict_batch,
    tile_checksum,
)
from unetkit.commands.tile_predict.finished import TakeOverJob, take_over
from unetkit.commands.tile_predict.instances import (
    ImageObjects,
    NumberedObjects,
    Separation,
    number_small,
)
from unetkit.commands.tile_predict.magnification import Magnified, at_own_size, magnify
from unetkit.commands.tile_predict.plan import ABSENT_LIST, LEFT_OUT_LIST, list_absent
from unetkit.engine.jobs import run_jobs
from unetkit.progress import Portion, noted_if_slow, warn
from unetkit.storage.atomic import write_text
from unetkit.storage.drawings import BACKGROUND
from unetkit.storage.image_writer import list_new_labels
from unetkit.storage.images import open_image
from unetkit.storage.journal import FOLDER
from unetkit.storage.object_classes import ObjectClasses, write_object_classes
from unetkit.storage.partial import stop_message
from unetkit.storage.urls import join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unetkit.commands.tile_predict.blocks import InferenceConfig, TileDone
    from unetkit.commands.tile_predict.finished import FinishedPrediction
    from unetkit.commands.tile_predict.output import PredictionStore, SampleOutput
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.progress import Progress
    from unetkit.signals import Stop
    from unetkit.storage.journal import Journal

# No sample can be named so: a name has no slash.
LEFT_OUT, FILLED = "//left out/", "//filled/"
TAKEN_OVER = "//taken over/"
# In which the making of the smaller levels is told.
LEVEL_PARTS = 100


@dataclass(frozen=True)
class PredictionResult:
    """What came of a run."""

    tiles_reused: int  # done by an earlier run
    tiles_taken_over: int  # of which a finished prediction has the probabilities
    objects: int | None  # in all samples; None where the target has none
    filled: int  # NaN and Inf values that were read as 0
    retries: int  # how often a disk or a network refused for a moment
    tiles_constant: int  # of one value, copied from another tile of that value
    tiles_left_out: int  # as empty; the output lists them
    audit: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Return what the report takes over."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass
class PredictionRun:
    """One prediction on its way: what to do, where, by whom, and who is asked and told."""

    plan: Plan
    store: PredictionStore
    inference: InferenceConfig
    scheduler: Scheduler
    stop: Stop
    progress: Progress
    finished: FinishedPrediction | None = None  # has the probabilities of the plan
    retries: int = field(default=0, init=False)
    batch: int = field(init=False)

    def __post_init__(self) -> None:
        self.batch = self.plan.batch

    def run(self, journal: Journal) -> PredictionResult:
        """Do what is left of all stages; afterwards the partial is ready to be published."""
        outputs = self.store.outputs()
        for output in outputs:
            output.create()
        tasks = [self._task(output) for output in outputs]
        self.store.partial.write_fingerprint(self.plan.fingerprint())
        self._list_absent()
        there, taken = self._take_over(tasks, journal)
        reused, constant = self._predict(tasks, journal, there=there)
        done = journal.done()
        left_out = self._list_left_out(done)
        filled = sum(count or 0 for key, count in done.items() if key.startswith(FILLED))
        with_objects = has_instances(self.plan.model.header.target)
        found = self._find_instances(outputs) if with_objects else []
        counts = [one.count for one in found] or [0] * len(outputs)
        counts = self._magnify(outputs, counts)
        self._write_object_classes(outputs, found)
        objects = sum(counts) if with_objects else None
        if filled:
            warn(self.progress, f"{filled} values of the input were NaN or Inf and read as 0")
        self._add_pyramids(max(LEVEL_PARTS, len(outputs)))
        audited = self._audit(tasks, left_out) if self.plan.options.audit else None
        with noted_if_slow(self.progress, "listing what was written, with checksums"):
            self.store.complete(audit=audited, probabilities_from=self._taken_from(journal))
        return PredictionResult(
            *(reused - taken, taken, objects, filled),
            *(self.retries, constant, len(left_out), audited),
        )

    def _task(self, output: SampleOutput) -> ImageTask:
        return ImageTask(
            name=output.sample.name,
            inference=self.inference,
            data=output.sample.data.with_absolute_url(),
            probabilities=output.probabilities(),
            classes=output.classes(),
            normalizations=output.normalizations,
            threshold=self.plan.options.threshold,
            target=self.plan.model.header.target,
            nonfinite=self.plan.options.nonfinite,
            skip_below=self.plan.options.skip_below,
            mask=self._mask(),
            uncertainty=output.uncertainty(),
        )

    def _mask(self) -> Mask | None:
        mask = self.plan.mask
        return None if mask is None else replace(mask, data=mask.data.with_absolute_url())

    def _take_over(self, tasks: list[ImageTask], journal: Journal) -> tuple[frozenset[str], int]:
        """Stage 1 of what is decided again: every tile that the finished prediction has.

        Tells which tiles are there, with those of earlier runs, and how many were taken.
        """
        if self.finished is None:
            return frozenset(), 0
        finished, record = self.finished, TAKEN_OVER + json.dumps(self.finished.record)
        arrays = {task.name: finished.arrays(task) for task in tasks}
        self.progress.start("decide again", total=self.plan.tiles_total)
        there: set[str] = set()
        taken = 0

        def left() -> Iterator[TakeOverJob]:
            for job in self._tile_jobs(tasks):
                if journal.is_done(job.key, partial(tile_checksum, job)):
                    there.add(job.key)
                    self._advance()
                else:
                    known = [finished.chunks(array, job) for array in arrays[job.task.name]]
                    yield TakeOverJob(job, tuple(known), left_out=job.key in finished.left_out)

        def finish(one: TakeOverJob, result: TileDone | None) -> None:
            nonlocal taken
            if result is not None:
                if not taken:
                    journal.record(record, checksum=None)
                taken += 1
                there.add(one.job.key)
                self._record(journal, one.job, result)
            self._advance()

        run_jobs(take_over, left(), scheduler=self.scheduler, on_done=finish)
        if lost := self.plan.tiles_total - len(there):
            self.progress.note(
                f"{lost} {'tile' if lost == 1 else 'tiles'} of {finished.url} can't be used, since "
                "they are not as they were published, and are predicted anew"
            )
        return frozenset(there), taken

    @staticmethod
    def _record(journal: Journal, job: TileJob, one: TileDone) -> None:
        if one.left_out:
            journal.record(LEFT_OUT + job.key, checksum=None)
        if one.filled:
            journal.record(FILLED + job.key, checksum=one.filled)
        journal.record(job.key, checksum=one.checksum)

    @staticmethod
    def _taken_from(journal: Journal) -> dict[str, Any] | None:
        """Return what is known of where probabilities are from, in this run or an earlier one."""
        found = (key for key in journal.done() if key.startswith(TAKEN_OVER))
        text = next(found, None)
        return None if text is None else json.loads(text.removeprefix(TAKEN_OVER))

    def _predict(
        self, tasks: list[ImageTask], journal: Journal, *, there: frozenset[str]
    ) -> tuple[int, int]:
        """Stage 1: every tile that is not done, or no longer as it was written."""
        total = self.plan.tiles_total
        if len(there) == total:
            return total, 0
        self.progress.start("predict", total=total)
        reused, done, constant = 0, 0, 0

        def known(job: TileJob) -> TileJob:
            nonlocal reused
            if job.key not in there and not journal.is_done(job.key, lambda: tile_checksum(job)):
                return job
            reused += 1
            self.progress.advance()
            return replace(job, there=True)

        def left() -> Iterator[TileBatch]:
            for some in batches(self._tile_jobs(tasks), self.inference.max_batch):
                batch = TileBatch(tuple(known(job) for job in some))
                if not all(job.there for job in batch.jobs):
                    yield batch

        def finish(batch: TileBatch, result: BatchDone) -> None:
            nonlocal done, constant
            new = [(job, one) for job, one in zip(batch.jobs, result.tiles, strict=True) if one]
            for job, one in new:
                self._record(journal, job, one)
                constant += one.constant
            done += len(new)
            self.retries += result.retries
            self._say_if_fewer(result.batch)
            for _ in new:
                self._advance(f"{done + reused} of {total} tiles")

        run_jobs(predict_batch, left(), scheduler=self.scheduler, on_done=finish)
        return reused, constant

    def _say_if_fewer(self, batch: int) -> None:
        """Say once for each number how many tiles memory is enough for."""
        if batch < self.batch:
            self.batch = batch
            self.progress.note(
                f"memory was too small for {self.plan.batch} tiles at once, so that a worker takes "
                f"{batch} from now on"
            )

    def _audit(self, tasks: list[ImageTask], left_out: frozenset[str]) -> dict[str, Any]:
        """Stage 7: predict a few windows once more, before anything is published."""
        self.progress.start("audit", total=self.plan.options.audit)
        found = audit(
            self.plan,
            tasks,
            left_out=left_out,
            scheduler=self.scheduler,
            advance=self._advance,
        )
        self.progress.note(
            f"predicted again, {found['flipped']} of {found['pixels']} labels are others, and "
            f"probabilities differ by at most {found['largest_difference']:.2g}"
        )
        return found

    def _list_left_out(self, done: Mapping[str, int | None]) -> frozenset[str]:
        """Write down the tiles that are left out, with those of earlier runs."""
        keys = [key.removeprefix(LEFT_OUT) for key in done if key.startswith(LEFT_OUT)]
        if keys:
            lines = "".join(json.dumps(key) + "\n" for key in sorted(keys))
            write_text(join(self.store.url, FOLDER, LEFT_OUT_LIST), lines)
        return frozenset(keys)

    def _list_absent(self) -> None:
        path = join(self.store.url, FOLDER, ABSENT_LIST)
        list_absent(path, self.plan.samples, self.plan.inventories)

    def _tile_jobs(self, tasks: list[ImageTask]) -> Iterator[TileJob]:
        for task, sample in zip(tasks, self.plan.samples, strict=True):
            for plane in range(sample.data.planes):
                for tile in self.plan.tiles(sample):
                    yield TileJob(task, plane, tile)

    def _find_instances(self, outputs: tuple[SampleOutput, ...]) -> list[NumberedObjects]:
        """Stages 2 to 4 for each sample; they are short beside the first and begin anew."""
        images = [self._objects(number, output) for number, output in enumerate(outputs)]
        self.progress.start("number objects", total=sum(image.parts for image in images))
        found: dict[int, NumberedObjects] = {}

        def keep(image: ImageObjects, one: NumberedObjects) -> None:
            found[image.number] = one
            self._advance(parts=image.parts)

        small = (image for image in images if image.is_small)
        run_jobs(number_small, small, scheduler=self.scheduler, on_done=keep)
        for image in images:
            if not image.is_small:
                found[image.number] = image.find(
                    self.store.provisional(image.classes),
                    scheduler=self.scheduler,
                    advance=lambda *parts: self._advance("all tiles", *parts),
                )
        list_new_labels([output.place for output in outputs], "instances")
        self.store.discard_work()
        return [found[number] for number in range(len(outputs))]

    def _objects(self, number: int, output: SampleOutput) -> ImageObjects:
        return ImageObjects(
            number,
            output.classes(),
            output.instances(),
            blocks=self.plan.blocks(output.sample),
            target=self.plan.model.header.target,
            grow=self.plan.options.grow,
            min_size=self.plan.options.min_size,
            mask=self._mask(),
            separation=self._separation(output),
            probabilities=output.probabilities(),
        )

    def _write_object_classes(
        self, outputs: tuple[SampleOutput, ...], found: list[NumberedObjects]
    ) -> None:
        """Stage 6: say which class each object is of, where they have classes."""
        header = self.plan.model.header
        names = (BACKGROUND, *header.class_names[object_class(header.target) :])
        for output, one in zip(outputs, found, strict=False):
            if one.classes is not None:
                place = (output.published or output).place
                ids = np.arange(1, one.count + 1)
                labels = open_image(place).labels["instances"]
                write_object_classes(labels, ObjectClasses.of_objects(ids, one.classes, names))

    def _magnify(self, outputs: tuple[SampleOutput, ...], counts: list[int]) -> list[int]:
        """Stage 5: bring what was made at the model's pixel size to the images' own size.

        Takes and gives the number of objects in each; it begins anew as well.
        """
        sizes = [
            (number, one, one.published, self.plan.blocks(one.published.sample))
            for number, one in enumerate(outputs)
            if one.published is not None
        ]
        if sizes:
            parts = sum(len(blocks) * one.sample.data.planes for _, one, _, blocks in sizes)
            self.progress.start("bring to the images' own size", total=parts)
        found = list(counts)
        for number, made, published, blocks in sizes:
            found[number] = magnify(
                self._magnified(made, published),
                blocks=blocks,
                scheduler=self.scheduler,
                advance=self._advance,
            )
        return found

    def _magnified(self, made: SampleOutput, published: SampleOutput) -> Magnified:
        classes, task = published.classes(), self._task(made)
        ratios = made.rescaled.ratios if made.rescaled else (Fraction(1), Fraction(1))
        see = partial(at_own_size, like=classes, ratios=ratios)
        instances, unsure = made.instances().earlier(), task.uncertainty
        dtype = None if instances is None else instances.dtype
        return Magnified(
            see(task.probabilities, exact=False),
            None if instances is None else see(instances, exact=True),
            published.probabilities(),
            classes,
            None if dtype is None else published.instances().create(dtype, listed=True),
            threshold=task.threshold,
            target=task.target,
            uncertainty=None if unsure is None else see(unsure, exact=False),
            to_uncertainty=published.uncertainty(),
        )

    def _separation(self, output: SampleOutput) -> Separation | None:
        options = self.plan.options
        if options.separate == "components":
            return None
        return Separation(
            output.probabilities(),
            seed_level=options.seed_level,
            seed_size=options.seed_size,
        )

    def _add_pyramids(self, parts: int) -> None:
        """Add the smaller levels of every output, in a stage of so many parts."""
        self.progress.start("smaller levels", total=parts)
        portion = Portion(self.progress, parts)

        def told(share: float) -> None:
            portion.reach(share)
            self._check()

        self.store.add_pyramids(told=told)

    def _advance(self, reached: str = "all tiles", parts: int = 1) -> None:
        self.progress.advance(parts)
        self._check(reached)

    def _check(self, reached: str = "all tiles") -> None:
        rule, number = "prediction must go on to its end", self.stop.signal
        self.stop.check(stop_message(rule, number, f" after {reached}"))
