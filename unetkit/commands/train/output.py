"""What an earlier training left, and whether another may go on with it."""

from __future__ import annotations

import json
import platform
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unetkit.errors import OutputError
from unetkit.models.hardware import PRECISIONS
from unetkit.models.model_header import read_header
from unetkit.progress import warn
from unetkit.storage.chunks import inventory
from unetkit.storage.journal import differences
from unetkit.storage.lock import lock_path
from unetkit.storage.outputs import discard, written_by_unetkit
from unetkit.storage.partial import Partial, PreviousRun
from unetkit.storage.urls import exists
from unetkit.training.checkpoint import Checkpoint, Validation
from unetkit.training.loop import TrainingResult
from unetkit.training.run_folder import RunFolder, folder_of, log_of, logged_warnings
from unetkit.training.sampler import TILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.commands.train.report import TrainingDescription
    from unetkit.progress import Progress
    from unetkit.training.distributed import ProcessGroup

# What changes the last bits of a result and no more; the rest of the facts are its settings.
SURROUNDINGS = ("torch", "machine")


@dataclass(frozen=True)
class TrainingOutput:
    """Where a training works, and what an earlier one left there."""

    output: str  # the model file to be
    # None in processes that don't write, and where an earlier training is finished.
    run_folder: RunFolder | None = None
    # With the settings of the earlier training; None where there is none to go on with, or this
    # process does not write.
    previous: PreviousRun | None = None
    state: Checkpoint | None = None  # from where to go on
    end: dict[str, Any] | None = None  # the last line of a finished training's log
    warnings: tuple[str, ...] = ()  # of a finished training
    killed: Partial | None = None  # of a finished training that left its lock

    def precision(self, requested: str, group: ProcessGroup) -> str:
        """Return the precision that was chosen before, where the choice is left open."""
        if requested != "auto":
            return requested
        known = ("auto", *PRECISIONS)
        before = None if self.previous is None else self.previous.fingerprint.get("precision")
        (number,) = group.first([known.index(before) if before in known else 0])
        return known[int(number)]

    def clear(self, *, keep_state: bool) -> None:
        """Remove what a training left that was killed after it had published."""
        if self.killed is None:
            return
        # Not before it is sure that there is nothing to refuse: the lock tells that it was killed.
        with self.killed.locked():
            if not keep_state and written_by_unetkit(self.killed.folder):
                discard(self.killed.folder)

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
    """Be the only training that makes an output, and look for what there is to go on with."""
    partial = Partial(
        output,
        tuple(inputs),
        resume=resume,
        overwrite=overwrite,
        break_lock=break_lock,
        at=folder_of(output),
    )
    with ExitStack() as stack:
        claimed = TrainingOutput(output)
        if group.is_main and resume and exists(output):
            killed = partial if exists(lock_path(partial.folder)) else None
            claimed = replace(_finished(output), killed=killed)
        elif group.is_main:
            run_folder = RunFolder(output, inputs=inputs, overwrite=overwrite, resume=resume)
            stack.enter_context(partial.locked())
            state, previous = run_folder.load(progress.note), None
            if state is not None:
                previous = PreviousRun(partial.folder, False, state.facts["more"]["settings"])
            claimed = TrainingOutput(output, run_folder, previous, state)
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
    lines = _lines(log_of(output))
    ends = [line.get("event") for line in (lines[0], lines[-1])] if lines else []
    if ends != ["start", "end"]:
        raise OutputError(
            f"output {output} must have its log beside it to be known as finished, got none at"
            f" {log_of(output)}; name another output, or --overwrite instead of --resume"
        )
    left_out = (*SURROUNDINGS, "event")
    known = {key: value for key, value in lines[0].items() if key not in left_out}
    previous = PreviousRun(output, True, known)
    return TrainingOutput(output, previous=previous, end=lines[-1], warnings=logged_warnings(lines))


def _lines(log: str) -> list[dict[str, Any]]:
    """Read a training's log; empty where it is not one."""
    try:
        lines = [json.loads(line) for line in Path(log).read_bytes().splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    return lines if all(isinstance(line, dict) for line in lines) else []


def settings(facts: TrainingDescription, *, nonfinite: str) -> dict[str, Any]:
    """Return all that decides about the weights, as JSON can hold it.

    A copy of the dataset elsewhere has the same.
    """
    own = {key: value for key, value in facts.to_dict().items() if key not in SURROUNDINGS}
    return {**own, "nonfinite": nonfinite, "input": _contents(facts)}


def _contents(facts: TrainingDescription) -> dict[str, str]:
    """Tell one content of a sample from others, by what is stored and what it holds."""
    used, contents = set(facts.samples), {}
    known: dict[str, list[int] | None] = {}  # of arrays that several samples share
    for sample, counts in zip(facts.task.samples, facts.task.counts, strict=True):
        if sample.name not in used:
            continue
        parts: list[Any] = [list(counts), list(sample.data.picked or ())]
        for array in (sample.data, sample.labels(), sample.ignore, sample.weights):
            if array is None:
                continue
            if array.url not in known:
                found = inventory(array)
                sizes = None if found is None else [found.total, found.stored, found.size]
                known[array.url] = sizes
            parts.append([list(array.shape), array.dtype.name, known[array.url]])
        contents[sample.name] = f"{zlib.crc32(json.dumps(parts).encode()):08x}"
    return contents


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
        warn(
            progress,
            f"Goes on elsewhere ({'; '.join(found)}): the last bits of the result may differ from"
            " those of a training that was never stopped.",
        )
    # Before they were counted, weights were moved between pixels.
    if state.facts["more"].get("tiles", 1) != TILES:
        warn(
            progress,
            "Goes on by another version of unetkit, which makes its deformed tiles otherwise: the"
            " result is not that of a training that was never stopped.",
        )
