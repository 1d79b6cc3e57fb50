"""Read the samples, train, keep what may be needed to go on, and publish the best model."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from unetkit.commands.train.callbacks import (
    MainCallback,
    TensorBoardCallback,
    WorkerCallback,
)
from unetkit.commands.train.output import compare_surroundings, settings, surroundings
from unetkit.commands.train.page import TrainingPage
from unetkit.commands.train.report import TrainReport, report
from unetkit.commands.train.samples import intensity_summary, training_samples
from unetkit.commands.train.validation import Validator
from unetkit.engine.signals import stoppable
from unetkit.training.block_cache import BlockCache
from unetkit.training.freezing import unfreeze_after
from unetkit.training.loop import Callback, Checkpointer, fit
from unetkit.training.norms import has_statistics
from unetkit.training.optimizer import Schedule
from unetkit.training.sampler import Sampler

if TYPE_CHECKING:
    from torch import nn

    from unetkit.commands.train.output import TrainingOutput
    from unetkit.commands.train.report import TrainingDescription
    from unetkit.engine.signals import Stop
    from unetkit.progress import Progress
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.loop import TrainingResult

# A step runs the network forward and back, a validation forward only.
PASSES = 3


@dataclass(frozen=True)
class TrainingRun:
    """A training that is about to begin, or to go on.

    Parameters
    ----------
    facts : TrainingDescription
        What is known of it.
    output : TrainingOutput
        Where it works.
    group : ProcessGroup
        Who else trains the network.
    nonfinite : {"error", "fill"}
        What to do about NaN and Inf in images.
    keep_state : bool
        Whether the state stays when the model is there.
    tensorboard : str, optional
        A folder that TensorBoard shows.
    """

    facts: TrainingDescription
    output: TrainingOutput
    group: ProcessGroup
    nonfinite: Literal["error", "fill"]
    keep_state: bool
    tensorboard: str | None = None

    def learn(self, network: nn.Module, progress: Progress, *, began: float) -> TrainReport:
        """Train a network, and publish the best one.

        Parameters
        ----------
        network : nn.Module
            On its device.
        progress : Progress
            Told of every step.
        began : float
            When the work began, by the monotonic clock.

        Returns
        -------
        TrainReport
        """
        known = settings(self.facts, nonfinite=self.nonfinite)
        self.output.check(known)
        outcome, total, start = self.output.finished(), 0, None
        if outcome is not None and self.output.end is not None:
            progress.note("The training is finished, so there is nothing to do.")
            start, total = outcome.steps, self.output.end["steps_total"]
        else:
            if self.output.state is not None:
                start = self.output.state.facts["position"]["step"]
                compare_surroundings(self.output.state, self._surroundings(), progress)
                progress.note(f"Goes on after step {start}.")
            outcome, total = self._train(network, progress, began=began, known=known)
            if outcome.stopped_early:
                progress.note(
                    f"Ended after {outcome.steps} steps: the score did not rise any more."
                )
        return report(
            self.facts,
            outcome,
            output=self.output.output,
            seconds=round(time.monotonic() - began, 1),
            steps_total=total,
            resumed_at_step=start,
        )

    def _train(
        self, network: nn.Module, progress: Progress, *, began: float, known: dict[str, Any]
    ) -> tuple[TrainingResult, int]:
        """Return how it ended, and how many steps were planned."""
        facts, plan, state = self.facts, self.facts.plan, self.output.state
        first = 0 if state is None else state.facts["position"]["step"]
        samples = self._samples(progress)
        facts = replace(facts, intensities=intensity_summary(samples, facts.parts.train))
        cache = BlockCache()
        sampler = Sampler(
            samples,
            facts.parts.train,
            contract=facts.contract,
            recipe=plan.numbers,
            cache=cache,
            seed=plan.seed,
            group=self.group,
        )
        with ExitStack() as stack:
            stop = stack.enter_context(stoppable(patient=self.group.size > 1))
            stack.enter_context(self.output.run_folder or nullcontext())
            callback = self._callback(facts, progress, stop, known)
            check = callback.examining if isinstance(callback, MainCallback) else lambda: None
            validator = Validator(facts, samples, cache=cache, before_each=check)
            if isinstance(callback, MainCallback):
                callback.callbacks += self._callbacks(
                    facts, validator, first, normalizes=has_statistics(network)
                )
            schedule = Schedule(
                plan.steps,
                budget=None if plan.budget is None else plan.budget - (time.monotonic() - began),
                validation=validator.pixels_read / (PASSES * sampler.pixels_read),
            )
            batches = stack.enter_context(sampler.batches(workers=plan.workers, start=first))
            outcome = fit(
                network,
                unfreeze_after(network, batches, steps=plan.freeze_encoder, start=first),
                recipe=plan.numbers,
                schedule=schedule,
                precision=plan.precision,
                validate=validator,
                callback=callback,
                checkpointer=self._checkpointer(callback, known),
                group=self.group,
                accumulate=plan.accumulate,
            )
            if isinstance(callback, MainCallback) and self.output.run_folder is not None:
                callback.ended(outcome)
                self.output.run_folder.publish(keep_state=self.keep_state)
        return outcome, schedule.steps

    def _surroundings(self) -> dict[str, Any]:
        return surroundings(self.group, accumulate=self.facts.plan.accumulate)

    def _callbacks(
        self, facts: TrainingDescription, validator: Validator, first: int, *, normalizes: bool
    ) -> list[Callback]:
        """Let people see what happens."""
        found: list[Callback] = []
        run_folder = self.output.run_folder
        if run_folder is not None:
            found.append(
                TrainingPage(
                    run_folder,
                    description=facts,
                    picture=lambda: validator.picture,
                    normalizes=normalizes,
                )
            )
        if self.tensorboard is not None:
            goes_on = first or (run_folder is not None and run_folder.begins_anew)
            start = first if goes_on else None
            found.append(
                TensorBoardCallback(
                    self.tensorboard, picture=lambda: validator.picture, start=start
                )
            )
        return found

    def _samples(self, progress: Progress) -> dict[str, Any]:
        return training_samples(
            self.facts.task,
            self.facts.samples,
            balance=self.facts.plan.numbers.balance,
            normalization=self.facts.plan.normalization,
            nonfinite=self.nonfinite,
            progress=progress,
        )

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
        self, callback: MainCallback | WorkerCallback, known: dict[str, Any]
    ) -> Checkpointer:
        def more() -> dict[str, Any]:
            own = callback.to_dict() if isinstance(callback, MainCallback) else {}
            return {"reporter": own, "settings": known, "surroundings": self._surroundings()}

        return Checkpointer(
            self.output.run_folder,
            start=self.output.state,
            more=more,
            group=self.group,
            final=self.keep_state,
        )
