"""Tell people, the log and the disk what a training does; end it when a signal asks for it."""

from __future__ import annotations

import os
import shlex
import time
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unetkit.commands.train.mixing import SIDES
from unetkit.errors import ResourceError
from unetkit.models.model_file import to_bytes
from unetkit.progress import format_duration, keep_warnings, warn, warnings_of
from unetkit.storage.atomic import make_folder
from unetkit.storage.urls import base_name, is_remote
from unetkit.training.distributed import SINGLE
from unetkit.training.loop import Callback
from unetkit.training.optimizer import SHARE, WARM
from unetkit.views.drawing import outlined, to_rgb8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from unetkit.commands.train.comparison import Comparison
    from unetkit.commands.train.report import TrainingDescription
    from unetkit.commands.train.validation import ValidationPicture
    from unetkit.progress import Progress
    from unetkit.signals import Stop
    from unetkit.training.checkpoint import Checkpoint, Validation
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.loop import TrainingResult
    from unetkit.training.run_folder import RunFolder
    from unetkit.training.tuning import Fit


def is_main() -> bool:
    """Say whether this is the process that writes, by what `torchrun` says of it."""
    return os.environ.get("RANK", "0") == "0"


def agree(stop: Stop, group: ProcessGroup) -> None:
    """Let a signal that came to any process of a group have come to all of them."""
    stop.signal = int(group.highest(stop.signal or 0)) or None


class WorkerCallback(Callback):
    """Watches a training in a process that does not write, and ends it with the others."""

    def __init__(self, stop: Stop, group: ProcessGroup) -> None:
        self._stop = stop
        self._group = group

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """End where a signal came to any of them, in all after the same step."""
        agree(self._stop, self._group)
        self._stop.check(f"process {self._group.rank} of the training ended with the others")


# Shorter than this, and nobody needs to be told when it ends.
SHORT = 60.0
# Longer than this, and people should know of a narrower network.
LONG = 3600.0
NARROW = 16
# The time of a step grows with the width by a power between 1, where memory is what takes it, and
# 2, where arithmetic is.
GROWTH = 1.5
# How often the loss is written into the log: lines enough for a curve.
LINES = 500
SMOOTHING = 0.95
# Our choices: fewer steps teach little; below these scores little is found as it was drawn.
FEW = 100
POOR = {"AP": 0.2, "Dice": 0.5}


class MainCallback(Callback):
    """Follows a training for its user."""

    def __init__(
        self,
        progress: Progress,
        run_folder: RunFolder,
        *,
        description: TrainingDescription,
        stop: Stop,
        group: ProcessGroup = SINGLE,
    ) -> None:
        self._progress = progress
        self._run_folder = run_folder
        self._description = description
        self._stop = stop
        self._group = group
        self._began = time.monotonic()
        self._steps, self._done = description.plan.steps, 0
        self._smooth: float | None = None
        self._finds_pace = False
        self._score = ""
        self._kept = False
        # Of the network before its first step, where it may be kept.
        self._first: float | None = None
        self.fit: Fit | None = None
        """How the decision was fitted, once it is."""
        self.comparison: Comparison | None = None
        """What became of the scores of old and new images, where there are both."""
        self._logged: set[str] = set()  # warnings
        self.callbacks: list[Callback] = []
        """Told of everything after the log."""

    def start(self, **settings: Any) -> None:
        """Begin the log with `settings`, all else that decides about the weights, and the bar."""
        self._run_folder.write(event="start", **{**self._description.to_dict(), **settings})
        self._log_warnings()
        # The first steps are slow: no bar may tell from them how long all will take.
        self._finds_pace = self._description.plan.budget is not None or self._steps > WARM
        if self._finds_pace:
            self._progress.start("finding the pace", total=WARM)
        else:
            self._progress.start("training", total=self._steps)

    def go_on(self, state: Checkpoint) -> None:
        """Go on with log and bar from a state that holds what `to_dict` returned."""
        self._logged = set(self._run_folder.warnings())
        keep_warnings(self._progress, self._run_folder.warnings())
        earlier = state.facts["more"]["reporter"]
        self._began -= earlier["seconds"]
        self._smooth, self._score = earlier["smooth"], earlier["score"]
        self._steps, self._done = state.facts["pace"]["steps"], state.facts["position"]["step"]
        self._kept = state.facts["position"]["best"] is not None
        # States of earlier versions don't know it.
        self._first = earlier.get("first")
        # A budget changes the number of steps once the pace is known.
        self._finds_pace = self._description.plan.budget is not None
        self._log_warnings()
        self._progress.start("training", total=self._steps)
        self._progress.advance(min(self._done, self._steps - 1), status=self._status())

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: what `go_on` needs beside what the training itself knows."""
        known = {**self._clock(), "smooth": self._smooth, "score": self._score}
        return known if self._first is None else {**known, "first": self._first}

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        """Say when it will end, and how it would end sooner."""
        if self._description.plan.budget is not None:
            self._steps = steps
            self._run_folder.write(event="planned", step=step, steps=steps)
        if self._finds_pace:
            self._progress.start("training", total=steps)
            self._progress.advance(min(step, steps) - 1)
        left = (steps - step) * seconds_a_step * (1 + SHARE)
        if left > SHORT:
            ends = datetime.now().astimezone() + timedelta(seconds=left)
            day = "" if ends.date() == datetime.now().astimezone().date() else f"{ends:%d %B} "
            self._progress.note(
                f"{steps} steps will take about {format_duration(left)},"
                f" until {day}{ends:%H:%M} or earlier."
            )
        width = self._description.plan.options.get("width")
        if left > LONG and isinstance(width, int) and width > NARROW:
            sooner = format_duration(left * (NARROW / width) ** GROWTH)
            self._progress.note(
                f"A narrower network is quicker and may score less: with --set width={NARROW} it "
                f"would take about {sooner}."
            )

    def replanned(self, step: int, *, steps: int) -> None:
        """Let the bar and the log know."""
        full = self._done >= self._steps
        self._steps = steps
        self._run_folder.write(event="planned", step=step, steps=steps)
        if full:
            self._progress.start("training", total=steps)
            self._progress.advance(step, status=self._status())
        else:
            self._progress.expect(steps)

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Write a line now and then, move the bar, and end where a signal came."""
        if loss is None:
            self._run_folder.write(event="skipped", step=step, reason="loss or gradient not finite")
        else:
            before = loss if self._smooth is None else self._smooth
            self._smooth = SMOOTHING * before + (1 - SMOOTHING) * loss
            if step % max(1, self._steps // LINES) == 0:
                self._run_folder.write(
                    event="step", step=step, loss=loss, learning_rate=rate, **self._clock()
                )
        for callback in self.callbacks:
            callback.stepped(step, loss=loss, rate=rate)
        # A validation follows the last step; until it is done the bar is not full.
        self._progress.advance(int(step < self._steps), status=self._status())
        self._done = step
        agree(self._stop, self._group)
        self.check()

    def on_restore(self, step: int) -> None:
        """Tell people and the log."""
        self._run_folder.write(event="went back", step=step)
        warn(
            self._progress,
            f"Ten steps in a row up to step {step} had no finite loss: the network is as it was"
            " when its state was last kept, and goes on from there once.",
        )
        self._log_warnings()

    def check(self) -> None:
        """End with a StoppedError that says what is kept, where a signal came."""
        if self._stop.signal is not None:
            self._stop.check(self._farewell())

    def examining(self) -> None:
        """Say that a held-out plane is predicted, or end where a signal came."""
        self.check()
        status = " · ".join(filter(None, (self._status(), "validating")))
        self._progress.advance(0, status=status)

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Write a line, and show the score from now on."""
        self._run_folder.write(
            event="validation",
            step=step,
            score=found.score,
            loss=found.loss,
            best=better,
            **found.scores,
            **self._clock(),
        )
        for callback in self.callbacks:
            callback.validated(step, found, better=better)
        if step == 0:
            self._first = found.score
        # Of the best of a few decisions, so that it is not the score of the end.
        self._score = f"{self._description.task.score} {found.score:.2f}"
        sides = {side: found.scores.get(f"{side}_score") for side in SIDES}
        if self._description.mix is not None:
            self._score += "".join(f", {s} {v:.2f}" for s, v in sides.items() if v is not None)
        self._score += ", best" if better else ""
        self._progress.advance(int(step >= self._steps), status=self._status())

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Keep the model on disk."""
        scores = {**found.scores, "loss": found.loss}
        warnings = warnings_of(self._progress)
        header = self._description.header(step, scores, steps=self._steps, warnings=warnings)
        self._run_folder.keep_best(to_bytes(network, header), step=step)
        self._kept = True

    def compared(self, found: Comparison) -> None:
        """Say what became of the scores, and warn where something was unlearned."""
        self.comparison = found
        for sentence in found.sentences:
            self._progress.note(sentence)
        if found.warning is not None:
            warn(self._progress, found.warning)

    def ended(self, outcome: TrainingResult) -> None:
        """Write the last line of the log."""
        self._compare_with_start(outcome)
        for doubt in self._doubts(outcome):
            warn(self._progress, doubt)
        self._log_warnings()
        self._run_folder.write(
            event="end",
            steps=outcome.steps,
            steps_total=self._steps,
            best_step=outcome.best_step,
            score=outcome.best.score,
            stopped_early=outcome.stopped_early,
            decision=None if self.fit is None else self.fit.to_dict(),
            **self._clock(),
            **({} if self.comparison is None else {"comparison": self.comparison.to_dict()}),
        )
        for callback in self.callbacks:
            callback.ended(outcome)

    def _compare_with_start(self, outcome: TrainingResult) -> None:
        """Say whether anything was learned beside the model that the training began with."""
        if self._description.start is None:
            return
        name = base_name(self._description.start.path)
        if outcome.best_step == 0:
            warn(
                self._progress,
                f"No step did better than {name}, which is kept: nothing was"
                " learned, and what its scores gained or lost comes from how it decides.",
            )
        elif self._first is not None:
            score = f"{self._description.task.score} {outcome.best.score:.3f} in validation"
            step = f"step {outcome.best_step}"
            told = f"It has learned: {step}, which is kept, scored {score}, {name} {{:.3f}}."
            if round(outcome.best.score, 3) <= round(self._first, 3):
                told = (
                    f"It may have learned: {step}, which is kept, scored {score}, which is not"
                    f" surely worse than the {{:.3f}} of {name}."
                )
            self._progress.note(told.format(self._first))

    def _doubts(self, outcome: TrainingResult) -> Iterator[str]:
        """Say where a model has learned too little to be relied on."""
        plan = self._description.plan
        few = plan.budget is not None and outcome.steps < min(FEW, plan.most_steps or FEW)
        if few:
            yield (
                f"Only {outcome.steps} step{'s' * (outcome.steps > 1)} fitted into the time, which"
                " teaches little: allow more of it, or take a smaller network."
            )
        name = self._description.task.score
        fitted = None if self.fit is None else self.fit.decision.score
        score = outcome.best.score if fitted is None else fitted
        if score < POOR[name]:
            yield (
                f"{name} {score:.2f} on what was held out is poor: look at the page of the"
                " training before you use this model"
                f"{'' if few else ', train for longer, or annotate more'}."
            )

    def _log_warnings(self) -> None:
        """Let the log, and so the page, tell of what is new."""
        for text in warnings_of(self._progress):
            if text not in self._logged:
                self._logged.add(text)
                self._run_folder.write(event="warning", step=self._done, text=text)

    def _status(self) -> str:
        # What a narrow terminal cuts off stands last.
        loss = "" if self._smooth is None else f"loss {self._smooth:.3f}"
        return " · ".join(part for part in (self._score, loss) if part)

    def _clock(self) -> dict[str, float]:
        return {"seconds": round(time.monotonic() - self._began, 2)}

    def _farewell(self) -> str:
        begun = f"training was to make {self._steps} steps, got a signal after {self._done}"
        on = "give the same command with --resume to go on"
        if not self._kept:
            return f"{begun}, before the first validation; {on}"
        best = shlex.quote(self._run_folder.best)
        return (
            f"{begun}; {on}, or take the best model so far, {best}, for 'unetkit tile-predict"
            " --model'"
        )


def check_tensorboard() -> None:
    """Make sure that TensorBoard is installed."""
    _writer_class()


class TensorBoardCallback(Callback):
    """Writes what happens to a folder that TensorBoard shows; earlier files in it stay.

    `picture` returns what the last validation found at one place. What a stopped training wrote of
    steps after `start` is shown no more.
    """

    def __init__(
        self,
        folder: str,
        *,
        picture: Callable[[], ValidationPicture | None],
        start: int | None = None,
    ) -> None:
        if not is_remote(folder):
            make_folder(folder)
        self._writer = _writer_class()(folder, purge_step=None if start is None else start + 1)
        self._picture = picture

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Write loss and learning rate."""
        if loss is not None:
            self._writer.add_scalar("training/loss", loss, step)
        self._writer.add_scalar("training/learning_rate", rate, step)

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Write all scores, and a picture."""
        self._writer.add_scalar("validation/loss", found.loss, step)
        self._writer.add_scalar("validation/score", found.score, step)
        for name, value in found.scores.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        picture = self._picture()
        if picture is not None:
            drawing = to_rgb8(picture.image)
            for name, labels in (("truth", picture.truth), ("prediction", picture.prediction)):
                self._writer.add_image(name, outlined(drawing, labels), step, dataformats="HWC")
        self._writer.flush()

    def ended(self, outcome: TrainingResult) -> None:
        """Close the files."""
        self._writer.close()


def _writer_class() -> Any:
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ResourceError(
            "tensorboard must be installed for --tensorboard, got no such package;"
            " pip install 'unetkit[tensorboard]'"
        ) from error
