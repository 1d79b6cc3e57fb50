"""Read the samples, train, keep what may be needed to go on, and publish the best model."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unetkit.commands.train.callbacks import MainCallback, TensorBoardCallback, WorkerCallback
from unetkit.commands.train.comparison import Comparison, compare
from unetkit.commands.train.output import compare_surroundings, settings, surroundings
from unetkit.commands.train.page import TrainingPage
from unetkit.commands.train.report import TrainReport, report
from unetkit.commands.train.samples import intensity_summary, training_samples, with_limits
from unetkit.commands.train.validation import Validator
from unetkit.errors import UsageError
from unetkit.models.model_file import load
from unetkit.models.model_header import read_header
from unetkit.progress import keep_warnings, warnings_of
from unetkit.signals import stoppable
from unetkit.training.block_cache import BlockCache
from unetkit.training.freezing import unfreeze_after
from unetkit.training.held_out_scores import held_out_scores
from unetkit.training.loop import Callback, Checkpointer, fit
from unetkit.training.norms import has_statistics
from unetkit.training.optimizer import Schedule
from unetkit.training.sampler import TILES, Sampler
from unetkit.training.tuning import fit_decision, has_choice, rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from unetkit.commands.train.output import TrainingOutput
    from unetkit.commands.train.report import TrainingDescription
    from unetkit.models.decision import Decision
    from unetkit.progress import Progress
    from unetkit.signals import Stop
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.loop import TrainingResult
    from unetkit.training.sampler import TrainingSample
    from unetkit.training.tuning import Fit, HeldOutMap

# A step runs the network forward and back, a validation forward only.
PASSES = 3

# Measured: the kept model predicts once more, and its decision is fitted, in so much of the time
# of a validation.
ENDING = 0.5


class _Ended(NamedTuple):
    """How a training ended."""

    result: TrainingResult
    steps: int  # that were planned
    decision: Decision | None
    maps: list[HeldOutMap]  # what the kept network says of what is held out
    comparison: Comparison | None


def is_comparable(facts: TrainingDescription) -> bool:
    """Say whether the model that it begins with says the same of the same images."""
    if facts.start is None:
        return False
    header = facts.start.header
    channels = facts.dataset.samples[0].data.channel_count
    known = header.in_channels, header.class_names, header.target, header.normalization
    wanted = channels, facts.task.class_names, facts.task.target, facts.plan.normalization
    return known == wanted


@dataclass(frozen=True)
class TrainingRun:
    """A training that is about to begin, or to go on."""

    facts: TrainingDescription
    output: TrainingOutput
    group: ProcessGroup
    nonfinite: Literal["error", "fill"]
    keep_state: bool  # whether the state stays when the model is there
    tensorboard: str | None = None  # a folder that TensorBoard shows
    keep_old: bool = False  # whether a network that has unlearned is refused

    def learn(
        self, network: nn.Module, progress: Progress, *, began: float
    ) -> tuple[TrainReport, list[HeldOutMap]]:
        """Train a network on its device, and publish the best one.

        `began` is when the work began, by the monotonic clock. With the report comes what the best
        network says of what was held out, in the process that writes.
        """
        known = settings(self.facts, nonfinite=self.nonfinite)
        if self.output.previous is not None:
            self.output.previous.check(known)
        result, total, start = self.output.finished(), 0, None
        decision: Decision | None = None
        comparison: Comparison | None = None
        maps: list[HeldOutMap] = []
        if result is not None and self.output.end is not None:
            progress.note("The training is finished, so there is nothing to do.")
            self.output.clear(keep_state=self.keep_state)
            keep_warnings(progress, self.output.warnings)
            start, total = result.steps, self.output.end["steps_total"]
            decision = read_header(self.output.output).decision
            if told := self.output.end.get("comparison"):
                comparison = Comparison.from_dict(told)
            if self.facts.plan.fold is not None and self._has_choice:
                # The others may have to be decided together with this one.
                samples = self._samples(progress)
                validator = Validator(self.facts, samples, cache=BlockCache())
                maps = self._maps(validator, self.output.output)
        else:
            around = surroundings(self.group, accumulate=self.facts.plan.accumulate)
            if self.output.state is not None:
                start = self.output.state.facts["position"]["step"]
                compare_surroundings(self.output.state, around, progress)
                progress.note(f"Goes on after step {start}.")
            kept = {"settings": known, "surroundings": around, "tiles": TILES}
            ended = self._train(network, progress, began=began, kept=kept)
            result, total, decision, maps, comparison = ended
            if result.stopped_early:
                progress.note(f"Ended after {result.steps} steps: the score did not rise any more.")
        told = report(
            self.facts,
            result,
            output=self.output.output,
            seconds=round(time.monotonic() - began, 1),
            steps_total=total,
            resumed_at_step=start,
            decision=decision,
            comparison=comparison,
        )
        return replace(told, warnings=warnings_of(progress)), maps

    def _train(
        self, network: nn.Module, progress: Progress, *, began: float, kept: dict[str, Any]
    ) -> _Ended:
        """Return how it ended, how many steps were planned, and what was decided by what."""
        facts, plan, state = self.facts, self.facts.plan, self.output.state
        first = 0 if state is None else state.facts["position"]["step"]
        decision: Decision | None = None
        maps: list[HeldOutMap] = []
        comparison: Comparison | None = None
        samples = self._samples(progress)
        seen = intensity_summary(samples, facts.parts.train)
        samples = with_limits(samples, seen, facts.parts.train)
        facts = replace(facts, intensities=seen)
        cache = BlockCache()
        sampler = self._sampler(samples, cache)
        with ExitStack() as stack:
            stop = stack.enter_context(stoppable(patient=self.group.size > 1))
            stack.enter_context(self.output.run_folder or nullcontext())
            callback = self._callback(facts, progress, stop, kept["settings"])
            check = callback.examining if isinstance(callback, MainCallback) else lambda: None
            validator = Validator(facts, samples, cache=cache, before_each=check)
            if isinstance(callback, MainCallback):
                callback.callbacks += self._callbacks(
                    facts, validator, first, normalizes=has_statistics(network)
                )
            schedule = Schedule(
                plan.steps,
                budget=None if plan.budget is None else plan.budget - (time.monotonic() - began),
                most=plan.most_steps,
                validation=validator.pixels_read / (PASSES * sampler.pixels_read),
                ending=ENDING * (1 + (facts.mix is not None)),
                # "exact" promises the same bits on every run.
                replans=plan.precision != "exact",
            )
            batches = stack.enter_context(sampler.batches(workers=plan.workers, start=first))
            result = fit(
                network,
                unfreeze_after(network, batches, steps=plan.freeze_encoder, start=first),
                recipe=plan.numbers,
                schedule=schedule,
                precision=plan.precision,
                validate=validator,
                callback=callback,
                checkpointer=self._checkpointer(callback, kept),
                group=self.group,
                accumulate=plan.accumulate,
                start_counts=facts.start is not None,
                # What new data teach is wanted, where it is not surely worse.
                doubt=lambda: 0.0 if facts.mix is None else validator.error,
            )
            if isinstance(callback, MainCallback) and self.output.run_folder is not None:
                best = load(self.output.run_folder.best).module.to(self.group.device)
                sides = validator.maps_by_side(best)
                seen_last = [one for found in sides.values() for one in found]
                if self._has_choice:
                    maps = seen_last
                    callback.fit = self._decide(maps, validator.learned_sizes, progress)
                    decision = callback.fit.decision
                held_out = self._held_out_scores(seen_last, decision)
                if facts.mix is not None:
                    comparison = self._compare(validator, sides, decision)
                    held_out["datasets"] = comparison.by_dataset()
                    callback.compared(comparison)
                    if self.keep_old:
                        comparison.check()
                callback.ended(result)
                self.output.run_folder.publish(
                    keep_state=self.keep_state,
                    decision=decision,
                    held_out=held_out,
                    warnings=warnings_of(progress),
                    steps=result.steps,
                )
        return _Ended(result, schedule.steps, decision, maps, comparison)

    def _compare(
        self,
        validator: Validator,
        after: Mapping[str, list[HeldOutMap]],
        decision: Decision | None,
    ) -> Comparison:
        """Score the kept network and the one that it began with on what is held out."""
        facts, before, usual = self.facts, None, None
        if facts.start is not None and is_comparable(facts):
            first = load(facts.start.path)
            before = validator.maps_by_side(first.module.to(self.group.device))
            usual = first.header.decision
        if facts.mix is None:
            raise UsageError("scores must be compared of two datasets, got one; name another")
        return compare(
            facts.mix,
            after,
            before,
            decisions=(decision, usual),
            target=facts.task.target,
            score_name=facts.task.score,
            seed=facts.plan.seed,
        )

    @property
    def _has_choice(self) -> bool:
        task = self.facts.task
        return self.group.is_main and has_choice(task.target, classes=len(task.class_names))

    def _samples(self, progress: Progress) -> dict[str, TrainingSample]:
        return training_samples(
            self.facts.task,
            self.facts.samples,
            balance=self.facts.plan.numbers.balance,
            normalization=self.facts.plan.normalization,
            nonfinite=self.nonfinite,
            progress=progress,
        )

    def _maps(self, validator: Validator, path: str) -> list[HeldOutMap]:
        """Let a model that was kept predict what it has not learned from."""
        return validator.maps(load(path).module.to(self.group.device))

    def _decide(
        self, maps: list[HeldOutMap], learned: NDArray[np.int64], progress: Progress
    ) -> Fit:
        """Fit the decision, and say it; `learned` are sizes of objects that were learned from."""
        task, folder = self.facts.task, self.output.run_folder
        progress.start("fitting the decision", total=rounds(task.target) * len(maps))
        start = self.facts.start if is_comparable(self.facts) else None
        fit = fit_decision(
            maps,
            target=task.target,
            known=None if start is None else start.header.decision,
            learned=learned,
            advance=progress.advance,
            seed=self.facts.plan.seed,
        )
        models = () if folder is None else (read_header(folder.best).checksum,)
        fit = replace(fit, decision=replace(fit.decision, models=models))
        progress.note(fit.decision.sentence(task.score))
        return fit

    def _held_out_scores(self, maps: list[HeldOutMap], decision: Decision | None) -> dict[str, Any]:
        """Score what the kept network says of what is held out, for the model file."""
        return held_out_scores(
            maps,
            decision,
            target=self.facts.task.target,
            class_names=self.facts.task.class_names,
            data=" + ".join(self.facts.datasets),
            seed=self.facts.plan.seed,
        )

    def _sampler(self, samples: Mapping[str, TrainingSample], cache: BlockCache) -> Sampler:
        plan = self.facts.plan
        return Sampler(
            samples,
            self.facts.parts.train,
            contract=self.facts.contract,
            recipe=plan.numbers,
            cache=cache,
            seed=plan.seed,
            group=self.group,
            new=frozenset() if self.facts.mix is None else self.facts.mix.new,
            share=0.0 if self.facts.mix is None else self.facts.mix.share,
        )

    def _callbacks(
        self, facts: TrainingDescription, validator: Validator, first: int, *, normalizes: bool
    ) -> list[Callback]:
        """Let people see what happens."""
        found: list[Callback] = []
        folder, picture = self.output.run_folder, lambda: validator.picture
        if folder is not None:
            page = TrainingPage(folder, description=facts, picture=picture, normalizes=normalizes)
            found.append(page)
        if self.tensorboard is not None:
            goes_on = first or (folder is not None and folder.begins_anew)
            start = first if goes_on else None
            found.append(TensorBoardCallback(self.tensorboard, picture=picture, start=start))
        return found

    def _callback(
        self, facts: TrainingDescription, progress: Progress, stop: Stop, known: dict[str, Any]
    ) -> MainCallback | WorkerCallback:
        run_folder, state = self.output.run_folder, self.output.state
        if run_folder is None:
            return WorkerCallback(stop, self.group)
        reporter = MainCallback(
            progress, run_folder, description=facts, stop=stop, group=self.group
        )
        if state is None:
            reporter.start(**known)
        else:
            run_folder.go_on(state)
            reporter.go_on(state)
        return reporter

    def _checkpointer(
        self, callback: MainCallback | WorkerCallback, kept: dict[str, Any]
    ) -> Checkpointer:
        def more() -> dict[str, Any]:
            own = callback.to_dict() if isinstance(callback, MainCallback) else {}
            best = {} if self.output.run_folder is None else self.output.run_folder.to_dict()
            return {"reporter": own, "best": best, **kept}

        return Checkpointer(
            self.output.run_folder,
            start=self.output.state,
            more=more,
            group=self.group,
            # A model that is refused may still be wanted.
            final=self.keep_state or self.keep_old,
        )
