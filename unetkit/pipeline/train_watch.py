"""Tell people, the log and the disk what a training does; end it when a signal asks for it."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from unetkit.models.modelfile import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from unetkit.engine.signals import Stop
    from unetkit.models.modelheader import ModelHeader
    from unetkit.progress import Progress
    from unetkit.training.checkpoint import Workplace
    from unetkit.training.loop import Validation

# Longer than this, and people should know of a narrower network.
LONG = 3600.0
# How often the loss is written into the log: lines enough for a curve.
LINES = 500
SMOOTHING = 0.95


class Reporter:
    """Follows a training for its user.

    Parameters
    ----------
    progress : Progress
        Told of every step.
    workplace : Workplace
        Takes the log and the best model.
    header : callable
        Makes a model's header from the scores that it reached at a step.
    stop : Stop
        Says whether a signal came.
    options : mapping
        The model's options, to name a narrower network.
    """

    def __init__(
        self,
        progress: Progress,
        workplace: Workplace,
        *,
        header: Callable[[int, Mapping[str, Any]], ModelHeader],
        stop: Stop,
        options: Mapping[str, Any],
    ) -> None:
        self._progress = progress
        self._workplace = workplace
        self._header = header
        self._stop = stop
        self._options = options
        self._began = time.monotonic()
        self._steps = 0
        self._smooth: float | None = None
        self._score = ""
        self._kept = False

    def start(self, steps: int, facts: Mapping[str, Any]) -> None:
        """Begin the log and the progress bar."""
        self._workplace.write(event="start", **facts)
        self._begin(steps, done=0)

    def planned(self, steps: int, *, seconds_a_step: float) -> None:
        """Say when it will end, and how it would end sooner."""
        if steps != self._steps:
            self._workplace.write(event="planned", steps=steps)
            self._begin(steps, done=min(steps, round(self._elapsed() / seconds_a_step)))
        left = steps * seconds_a_step - self._elapsed()
        if left > 60:
            ends = datetime.now().astimezone() + timedelta(seconds=left)
            self._progress.note(f"{steps} steps take about {_spoken(left)}, until {ends:%H:%M}.")
        width = self._options.get("width")
        if left > LONG and isinstance(width, int) and width > 16:
            # The work of a convolution grows with the square of the width.
            sooner = _spoken(left * (16 / width) ** 1.5)
            self._progress.note(f"--set width=16 would end in about {sooner}, at a lower score.")

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Write a line now and then, move the bar, and end where a signal came."""
        if loss is None:
            self._workplace.write(event="skipped", step=step, reason="loss or gradient not finite")
        else:
            before = loss if self._smooth is None else self._smooth
            self._smooth = SMOOTHING * before + (1 - SMOOTHING) * loss
            if step % max(1, self._steps // LINES) == 0:
                self._workplace.write(
                    event="step", step=step, loss=loss, learning_rate=rate, **self._clock()
                )
        shown = "" if self._smooth is None else f"loss {self._smooth:.3f}"
        self._progress.advance(status=f"{shown}{self._score}")
        if self._stop.signal is not None:
            self._stop.check(self._farewell(step))

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Write a line, and show the score from now on."""
        self._workplace.write(
            event="validation",
            step=step,
            loss=found.loss,
            best=better,
            **found.scores,
            **self._clock(),
        )
        self._score = f" · score {found.score:.3f}{' (best)' if better else ''}"
        self._progress.advance(0, status=f"loss {found.loss:.3f}{self._score}")

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Keep the model on disk."""
        scores = {**found.scores, "loss": found.loss}
        self._workplace.keep_best(to_bytes(network, self._header(step, scores)))
        self._kept = True

    def _begin(self, steps: int, *, done: int) -> None:
        self._steps = steps
        self._progress.start("training", total=steps)
        if done:
            self._progress.advance(done)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _clock(self) -> dict[str, float]:
        return {"seconds": round(self._elapsed(), 2)}

    def _farewell(self, step: int) -> str:
        if not self._kept:
            return f"training stopped at step {step}, before the first validation; nothing was kept"
        return (
            f"training stopped at step {step}; the best model so far is kept as "
            f"{self._workplace.best}, for 'unetkit tile-predict --model'"
        )


def _spoken(seconds: float) -> str:
    """Say a time as people do."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
