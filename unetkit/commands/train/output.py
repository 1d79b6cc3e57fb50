"""What an earlier training left, and whether another may go on with it."""

from __future__ import annotations

import json
import platform
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unetkit.errors import OutputError, UsageError
from unetkit.models.hardware import PRECISIONS
from unetkit.models.model_header import read_header
from unetkit.storage.chunks import inventory
from unetkit.storage.journal import differences
from unetkit.storage.lock import locked
from unetkit.storage.urls import exists
from unetkit.training.checkpoint import Checkpoint, Validation
from unetkit.training.loop import TrainingResult
from unetkit.training.run_folder import RunFolder, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.commands.train.report import TrainingDescription
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray
    from unetkit.training.distributed import ProcessGroup

# What changes the last bits of a result and no more; the rest of the facts are its settings.
SURROUNDINGS = ("torch", "machine")


@dataclass(frozen=True)
class TrainingOutput:
    """Where a training works, and what an earlier one left there.

    Parameters
    ----------
    output : str
        The model file to be.
    run_folder : RunFolder, optional
        None in processes that don't write, and where an earlier training is finished.
    settings : dict, optional
        Those of the earlier training, as `settings` returned them; None where there is none to go
        on with, or this process does not write.
    state : Checkpoint, optional
        From where to go on.
    end : dict, optional
        The last line of the earlier training's log, where it is finished.
    """

    output: str
    run_folder: RunFolder | None = None
    settings: dict[str, Any] | None = None
    state: Checkpoint | None = None
    end: dict[str, Any] | None = None

    def precision(self, wish: str, group: ProcessGroup) -> str:
        """Return the precision that was chosen before, where the choice is left open."""
        if wish != "auto":
            return wish
        known = ("auto", *PRECISIONS)
        before = (self.settings or {}).get("precision")
        (number,) = group.first([known.index(before) if before in known else 0])
        return known[int(number)]

    def check(self, now: dict[str, Any]) -> None:
        """Make sure that going on gives what a single training would give.

        Raises
        ------
        OutputError
            Naming what differs.
        """
        found = [] if self.settings is None else differences(self.settings, now)
        if found:
            place = self.output if self.run_folder is None else self.run_folder.folder
            raise OutputError(
                f"{place} must have been made with the same settings to be resumed, got "
                f"{'; '.join(found[:5])}; give those of before, or --overwrite instead of"
                " --resume to start afresh"
            )

    def finished(self) -> TrainingResult | None:
        """Return how the earlier training ended; None where it did not."""
        if self.end is None:
            return None
        header = read_header(self.output)
        scores = {key: value for key, value in header.scores.items() if key != "loss"}
        best = Validation(self.end["score"], loss=header.scores["loss"], scores=scores)
        return TrainingResult(
            self.end["steps"], self.end["best_step"], best, stopped_early=self.end["stopped_early"]
        )


@contextmanager
def claim_output(
    output: str,
    *,
    inputs: Sequence[str],
    resume: bool,
    overwrite: bool,
    break_lock: bool,
    group: ProcessGroup,
    progress: Progress,
) -> Iterator[TrainingOutput]:
    """Be the only training that makes an output, and look for what there is to go on with.

    Yields
    ------
    TrainingOutput

    Raises
    ------
    UsageError
        If both `resume` and `overwrite` are given.
    OutputError
        If something is there that may not be replaced, or another job is at work there.
    """
    if resume and overwrite:
        raise UsageError("resume must be given without overwrite, got both; choose one of them")
    with ExitStack() as stack:
        claimed = TrainingOutput(output)
        if group.is_main and resume and exists(output):
            claimed = _finished(output)
        elif group.is_main:
            run_folder = RunFolder(output, inputs=inputs, overwrite=overwrite, resume=resume)
            stack.enter_context(locked(run_folder.folder, break_lock=break_lock))
            state = run_folder.load(progress.note)
            before = None if state is None else state.facts["more"]["settings"]
            claimed = TrainingOutput(output, run_folder, before, state)
        yield _spread(claimed, group)


def _spread(claimed: TrainingOutput, group: ProcessGroup) -> TrainingOutput:
    """Let all processes know what the one that writes has found."""
    if group.size == 1:
        return claimed
    own = None if claimed.state is None else claimed.state.to_bytes()
    content = group.first_bytes(own)
    end = group.first_bytes(None if claimed.end is None else json.dumps(claimed.end).encode())
    if group.is_main:
        return claimed
    state = None if content is None else Checkpoint.from_bytes(content, path="of the first process")
    return TrainingOutput(claimed.output, state=state, end=None if end is None else json.loads(end))


def _finished(output: str) -> TrainingOutput:
    first, end = _ends(log_of(output))
    if first is None or end is None:
        raise OutputError(
            f"output {output} must have its log beside it to be known as finished, got none at"
            f" {log_of(output)}; name another output, or --overwrite instead of --resume"
        )
    settings = {key: value for key, value in first.items() if key not in (*SURROUNDINGS, "event")}
    return TrainingOutput(output, settings=settings, end=end)


def _ends(log: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the first and the last line of a finished training's log."""
    try:
        lines = [json.loads(line) for line in Path(log).read_bytes().splitlines()]
    except (OSError, ValueError, RecursionError):
        return None, None
    if len(lines) < 2 or not all(isinstance(line, dict) for line in lines):
        return None, None
    known = lines[0].get("event") == "start" and lines[-1].get("event") == "end"
    return (lines[0], lines[-1]) if known else (None, None)


def settings(facts: TrainingDescription, *, nonfinite: str) -> dict[str, Any]:
    """Return all that decides about the weights, as JSON can hold it.

    A copy of the dataset elsewhere has the same.
    """
    own = {key: value for key, value in facts.to_dict().items() if key not in SURROUNDINGS}
    used, known = set(facts.samples), _Stored()
    read = {
        sample.name: known.content(sample, counts)
        for sample, counts in zip(facts.task.samples, facts.task.counts, strict=True)
        if sample.name in used
    }
    return {**own, "nonfinite": nonfinite, "input": read}


class _Stored:
    """Looks at what is stored of samples; an array that several share is listed once."""

    def __init__(self) -> None:
        self._known: dict[str, list[int] | None] = {}

    def content(self, sample: Sample, counts: tuple[int, ...]) -> str:
        """Tell one content of a sample from others, by what is stored and what it holds."""
        said: list[Any] = [list(counts), list(sample.data.picked or ())]
        for array in (sample.data, sample.labels(), sample.ignore, sample.weights):
            if array is not None:
                said.append([list(array.shape), array.dtype.name, self._census(array)])
        return f"{zlib.crc32(json.dumps(said).encode()):08x}"

    def _census(self, array: PlaneArray) -> list[int] | None:
        if array.url not in self._known:
            found = inventory(array)
            sizes = None if found is None else [found.total, found.stored, found.size]
            self._known[array.url] = sizes
        return self._known[array.url]


def surroundings(group: ProcessGroup, *, accumulate: int) -> dict[str, Any]:
    """Return what changes no more than the last bits of a result."""
    return {
        "torch": version("torch"),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": group.size,
        "accumulate": accumulate,
    }


def compare_surroundings(state: Checkpoint, now: dict[str, Any], progress: Progress) -> None:
    """Say what may make the result differ from that of a training that was never stopped."""
    found = differences(state.facts["more"]["surroundings"], now)
    if found:
        progress.note(
            f"Goes on elsewhere ({'; '.join(found)}): the last bits of the result may differ from"
            " those of a training that was never stopped."
        )
