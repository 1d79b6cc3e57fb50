"""Carry a plan out in a partial, stage by stage; what is done survives an end at any time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from unetkit.arrays.instances import has_instances
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
from unetkit.commands.tile_predict.instances import number_objects
from unetkit.commands.tile_predict.plan import ABSENT_LIST, list_absent
from unetkit.engine.jobs import run_jobs
from unetkit.storage.atomic import write_text
from unetkit.storage.journal import FOLDER
from unetkit.storage.partial import stop_message
from unetkit.storage.urls import join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.commands.tile_predict.blocks import InferenceConfig
    from unetkit.commands.tile_predict.output import PredictionStore, SampleOutput
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.engine.pools import Scheduler
    from unetkit.engine.signals import Stop
    from unetkit.progress import Progress
    from unetkit.storage.journal import Journal

# No sample can be named so: a name has no slash.
LEFT_OUT = "//left out/"
LEFT_OUT_LIST = "left-out.jsonl"


@dataclass(frozen=True)
class PredictionResult:
    """What came of a run."""

    tiles_reused: int  # done by an earlier run
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
    retries: int = field(default=0, init=False)
    batch: int = field(init=False)

    def __post_init__(self) -> None:
        self.batch = self.plan.batch

    def run(self, journal: Journal) -> PredictionResult:
        """Do what is left of all stages; afterwards the partial is ready to be published."""
        outputs = self.store.outputs()
        tasks = [self._task(output) for output in outputs]
        self.store.partial.write_fingerprint(self.plan.fingerprint())
        self._list_absent()
        reused, filled, constant = self._predict(tasks, journal)
        left_out = self._list_left_out(journal)
        objects = None
        if has_instances(self.plan.model.header.target):
            objects = self._find_instances(outputs)
        if filled:
            self.progress.note(f"{filled} values of the input were NaN or Inf and read as 0")
        self.progress.start("smaller levels", total=len(outputs))
        self.store.add_pyramids(advance=self._advance)
        audited = self._audit(tasks, left_out) if self.plan.options.audit else None
        self.store.complete(audit=audited)
        return PredictionResult(
            reused, objects, filled, self.retries, constant, len(left_out), audited
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
            # Objects of the target `boundary` are what is inside, its first class.
            positive=0 if self.plan.model.header.target == "boundary" else 1,
            nonfinite=self.plan.options.nonfinite,
            skip_below=self.plan.options.skip_below,
            mask=self._mask(),
        )

    def _mask(self) -> Mask | None:
        mask = self.plan.mask
        return None if mask is None else replace(mask, data=mask.data.with_absolute_url())

    def _predict(self, tasks: list[ImageTask], journal: Journal) -> tuple[int, int, int]:
        """Stage 1: every tile that is not done, or no longer as it was written."""
        total = self.plan.tiles_total
        self.progress.start("predict", total=total)
        reused, done, filled, constant = 0, 0, 0, 0

        def known(job: TileJob) -> TileJob:
            nonlocal reused
            if not journal.is_done(job.key, lambda: tile_checksum(job)):
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
            nonlocal done, filled, constant
            new = [(job, one) for job, one in zip(batch.jobs, result.tiles, strict=True) if one]
            for job, one in new:
                if one.left_out:
                    journal.record(LEFT_OUT + job.key, checksum=None)
                journal.record(job.key, checksum=one.checksum)
                filled += one.filled
                constant += one.constant
            done += len(new)
            self.retries += result.retries
            self._say_if_fewer(result.batch)
            for _ in new:
                self._advance(f"{done + reused} of {total} tiles")

        run_jobs(predict_batch, left(), scheduler=self.scheduler, on_done=finish)
        return reused, filled, constant

    def _say_if_fewer(self, batch: int) -> None:
        """Say once for each number how many tiles memory is enough for."""
        if batch < self.batch:
            self.batch = batch
            self.progress.note(
                f"memory was too small for {self.plan.batch} tiles at once, so that a worker takes "
                f"{batch} from now on"
            )

    def _audit(self, tasks: list[ImageTask], left_out: frozenset[str]) -> dict[str, Any]:
        """Stage 6: predict a few windows once more, before anything is published."""
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

    def _list_left_out(self, journal: Journal) -> frozenset[str]:
        """Write down the tiles that are left out, with those of earlier runs."""
        keys = [key.removeprefix(LEFT_OUT) for key in journal.done() if key.startswith(LEFT_OUT)]
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

    def _find_instances(self, outputs: tuple[SampleOutput, ...]) -> int:
        """Stages 2 to 4 for each sample; they are short beside the first and begin anew."""
        covers = [self.plan.blocks(output.sample) for output in outputs]
        parts = sum(
            2 * len(blocks) * output.sample.data.planes
            for blocks, output in zip(covers, outputs, strict=True)
        )
        self.progress.start("number objects", total=parts)
        count = 0
        for blocks, output in zip(covers, outputs, strict=True):
            classes = output.classes()
            count += number_objects(
                classes,
                self.store.provisional(classes),
                create=output.instances,
                blocks=blocks,
                target=self.plan.model.header.target,
                grow=self.plan.options.grow,
                min_size=self.plan.options.min_size,
                scheduler=self.scheduler,
                advance=self._advance,
                mask=self._mask(),
            )
        self.store.discard_work()
        return count

    def _advance(self, reached: str = "all tiles") -> None:
        self.progress.advance()
        rule, number = "prediction must go on to its end", self.stop.signal
        self.stop.check(stop_message(rule, number, f" after {reached}"))
