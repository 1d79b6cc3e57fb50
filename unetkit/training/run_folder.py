"""What a training keeps on disk while it works: its states, the best model so far, and the log."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, OutputError
from unetkit.models.model_file import check_content, with_decision
from unetkit.models.model_header import SUFFIX, check_suffix
from unetkit.storage.atomic import make_folder, sweep, write_bytes
from unetkit.storage.outputs import (
    check_local,
    check_output,
    discard,
    partial_url,
    written_by_unetkit,
)
from unetkit.storage.urls import exists
from unetkit.training.checkpoint import (
    LAST,
    Checkpoints,
    Position,
    check_facts,
    damaged_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from unetkit.models.decision import Decision
    from unetkit.training.checkpoint import Checkpoint

BEST = "best.safetensors"
LOG = "log.jsonl"
PAGE = "training.html"
# What a line of the log has, by what happened; any line may have its step.
_NUMBERS = {
    "planned": ("step", "steps"),
    "step": ("step", "loss"),
    "validation": ("step", "score", "loss", "best"),
}


class RunFolder:
    """The folder ``OUTPUT.train`` of a training whose model will be `output`.

    It is made when a `with` block begins and holds the log, the last two states and the best model
    so far. When the model is published, log and page are put beside it, and the folder goes. One
    that ends otherwise leaves the folder with its states and its best model, or where it has none
    leaves everything as it was. One that was killed before its first state leaves nothing to go on
    with: a training that resumes then begins anew, and puts its own best model and log in place.
    """

    def __init__(
        self, output: str, *, inputs: Sequence[str], overwrite: bool, resume: bool = False
    ) -> None:
        self.output = output
        stem = output.removesuffix(SUFFIX)
        self.folder = folder_of(output)
        self.log = log_of(output)
        check_local(output)
        check_output(output, inputs=inputs, overwrite=overwrite)
        # A training that was killed while it published has put these there already.
        self.page = f"{stem}.{PAGE}"
        for place in (self.log, self.page):
            check_output(place, inputs=inputs, overwrite=overwrite or resume)
        check_suffix(output)
        self.states = Checkpoints(self.folder)
        self.resumes = resume and self.states.any
        """Whether there is a state to go on from."""
        self.begins_anew = resume and exists(self.folder) and not self.resumes
        """Whether an earlier training was stopped before it had kept a state."""
        if not (resume or overwrite) and written_by_unetkit(self.folder):
            raise OutputError(
                f"output {self.folder} must not exist yet, but holds what a training that was"
                " stopped had reached; add --resume to go on with it, or add --overwrite to give"
                " it up"
            )
        check_output(self.folder, inputs=inputs, overwrite=overwrite or resume)
        folder = Path(self.folder)
        self._earlier = folder.with_name(f".{folder.name}.unetkit-earlier")
        self._stream: Any = None
        self._published = False
        self._best_step = 0
        self._best_checksum: str | None = None
        self._state_steps: list[int] = []

    @property
    def best(self) -> str:
        """Where the best model so far is kept."""
        return f"{self.folder}/{BEST}"

    @property
    def running_log(self) -> str:
        """Where the log is while it is written."""
        return f"{self.folder}/{LOG}"

    @property
    def running_page(self) -> str:
        """Where the page to look at is while it is written."""
        return f"{self.folder}/{PAGE}"

    def __enter__(self) -> RunFolder:
        if self.resumes:
            sweep(self.folder)
            return self
        self._set_earlier_aside()
        try:
            # It appears with the mark by which a later training knows it, also after a crash.
            partial = partial_url(self.folder)
            discard(partial)
            make_folder(f"{partial}/.unetkit")
            Path(partial).rename(self.folder)
            self._open_log()
        except BaseException:
            self._put_back()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.states.close()
        if self._stream is not None:
            self._stream.close()
        if not (self._published or Path(self.best).exists() or self.states.any):
            self._put_back()

    def _put_back(self) -> None:
        """Leave everything as it was before this training."""
        for place in (partial_url(self.folder), self.folder):
            discard(place)
        if self._earlier.exists():
            self._earlier.rename(self.folder)

    def _set_earlier_aside(self) -> None:
        """Keep what an earlier training left until this one has a model of its own."""
        if self._earlier.exists():
            # A training was killed between its start and its first model.
            if Path(self.best).exists():
                discard(str(self._earlier))
            else:
                discard(self.folder)
                self._earlier.rename(self.folder)
        if Path(self.folder).exists():
            Path(self.folder).rename(self._earlier)

    def _open_log(self) -> None:
        # Buffered by lines: whoever reads while it is written sees whole ones.
        self._stream = Path(self.running_log).open(  # noqa: SIM115 - closed at the block's end
            "a", buffering=1, encoding="utf-8"
        )

    def load(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Return the state to go on from; None where this training begins afresh.

        A damaged state is noted, and an earlier training that left none.
        """
        if self.begins_anew:
            note(f"{self.folder} was left before any state was kept: training begins at step 0.")
        state = self.states.load(note) if self.resumes else None
        if state is None:
            return None
        try:
            check_facts(state.facts)
            best = Position.from_dict(state.facts["position"]).best
            known = {**state.facts["more"].get("best", {})}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged_state(f"{self.folder}/{LAST}", f"{error!s:.120}") from error
        if best is not None:
            self._check_best(state, known)
        return state

    def _check_best(self, state: Checkpoint, known: dict[str, Any]) -> None:
        """Make sure that the best model which a state knows is there as it was written."""
        step = state.facts["position"]["best_step"]
        kept = self._best_of(step)
        path = kept if kept.exists() else Path(self.best)
        try:
            content = path.read_bytes()
            header = check_content(content, path=str(path))
            found = {"checksum": _checksum(content), "step": header.provenance.get("best_step")}
        except InputError as error:
            raise _damaged_best(path, error.args[0].partition(";")[0]) from error
        except FileNotFoundError as error:
            raise _damaged_best(path, "none") from error
        except OSError as error:
            raise _damaged_best(path, error.strerror or "an error") from error
        # States of earlier versions know the step alone.
        if {"step": step, "checksum": found["checksum"], **known} != found:
            raise _damaged_best(path, "another model")
        self._best_checksum = found["checksum"]

    def to_dict(self) -> dict[str, Any]:
        """Return what a state must know of the best model, as JSON can hold it."""
        return {"checksum": self._best_checksum} if self._best_checksum else {}

    def go_on(self, state: Checkpoint) -> None:
        """Let log and best model be what they were when a state was kept."""
        position = Position.from_dict(state.facts["position"])
        self._best_step = position.best_step
        self._state_steps = [position.best_step]
        kept = self._best_of(position.best_step)
        if kept.exists():
            kept.replace(self.best)
        log = Path(self.running_log)
        lines = log.read_bytes().split(b"\n") if log.exists() else []
        known = [line for line in lines if _belongs(line, position)]
        write_bytes(self.running_log, b"".join(line + b"\n" for line in known))
        self._open_log()

    def warnings(self) -> tuple[str, ...]:
        """Return what the log says was warned of."""
        return logged_warnings(logged(Path(self.running_log).read_bytes()))

    def write(self, **facts: Any) -> None:
        """Add a line to the log."""
        self._stream.write(json.dumps(facts, allow_nan=False) + "\n")

    def keep_best(self, content: bytes, *, step: int) -> None:
        """Keep the model of a step, in place of the one before.

        The one before stays under another name as long as a state knows it as its best.
        """
        if self._best_checksum is not None:
            _link(Path(self.best), self._best_of(self._best_step))
        write_bytes(self.best, content)
        self._best_step, self._best_checksum = step, _checksum(content)
        discard(str(self._earlier))

    def is_due(self) -> bool:
        """Say whether it is time to keep a state."""
        return self.states.is_due()

    def save(self, state: Checkpoint) -> None:
        """Keep a state, and the best models that the last two know."""

        def prune() -> None:
            self._state_steps = [*self._state_steps[-1:], state.facts["position"]["best_step"]]
            self._prune()

        self.states.save(state, after=prune)

    def finish(self) -> None:
        """Wait until the state is on the disk."""
        self.states.finish()

    def publish(
        self,
        *,
        keep_state: bool = False,
        decision: Decision | None = None,
        held_out: dict[str, Any] | None = None,
        warnings: Sequence[str] = (),
        steps: int | None = None,
    ) -> None:
        """Put log, page and best model in their places, and remove the folder, if it shall go.

        The model gets the decision, what it scored, what was warned of, and how many steps were
        made, which nobody knew when it was kept, where these are given.
        """
        if keep_state:
            self.finish()
        content = Path(self.best).read_bytes()
        if _checksum(content) != self._best_checksum:
            raise _damaged_best(Path(self.best), "another model")
        for running, place in ((self.running_log, self.log), (self.running_page, self.page)):
            if Path(running).exists():
                write_bytes(place, Path(running).read_bytes())
        told: dict[str, Any] = {"held_out": held_out, "warnings": warnings, "steps": steps}
        if decision is not None or any(told.values()):
            content = with_decision(content, decision, **told, path=self.best)
        write_bytes(self.output, content)
        self._published = True
        # A training that was killed right after it had kept its first model has left it.
        discard(str(self._earlier))
        if not keep_state:
            discard(self.folder)

    def _best_of(self, step: int) -> Path:
        return Path(self.folder, f"best-{step}.safetensors")

    def _prune(self) -> None:
        """Remove the models that no state knows as its best any more."""
        known = {self._best_of(step) for step in self._state_steps}
        for path in Path(self.folder).glob("best-*.safetensors"):
            if path not in known:
                path.unlink()


def folder_of(output: str) -> str:
    """Name the folder beside a model in which it is made.

    >>> folder_of("cells/model.safetensors")
    'cells/model.train'
    """
    return f"{output.removesuffix(SUFFIX)}.train"


def log_of(output: str) -> str:
    """Name the log beside a finished model.

    >>> log_of("cells/model.safetensors")
    'cells/model.log.jsonl'
    """
    return f"{output.removesuffix(SUFFIX)}.log.jsonl"


def logged(content: bytes) -> Iterator[dict[str, Any]]:
    """Read the lines of a log that hold what a page or a command asks of them.

    A job that was killed may have left one of them cut off, and anyone may edit one.
    """
    for line in content.splitlines():
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and _is_whole(event):
                yield event


def logged_warnings(lines: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return what lines of a log say was warned of."""
    return tuple(str(line.get("text")) for line in lines if line.get("event") == "warning")


def _is_whole(event: dict[str, Any]) -> bool:
    """Say whether a line of a log has the numbers that belong to what happened."""
    name = event.get("event")
    if not isinstance(name, str):
        return False
    numbers = [event.get("step", 0), *(event.get(number) for number in _NUMBERS.get(name, ()))]
    return all(isinstance(number, (int, float)) for number in numbers)


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


def _damaged_best(path: Path, got: str) -> InputError:
    return InputError(
        f"{path} must be the best model as it was written, got {got}; add --overwrite instead of"
        " --resume to start afresh"
    )


def _belongs(line: bytes, position: Position) -> bool:
    """Say whether a line of a log was written before a position was reached."""
    try:
        facts = json.loads(line)
        json.dumps(facts, allow_nan=False)  # as it was written
        step = facts.get("step", 0)
        reached = position.validated if facts["event"] == "validation" else position.step
        # Whoever goes on comes to an end of his own.
        return bool(step <= reached) and facts["event"] != "end"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # Torn, or empty after the last line.
        return False


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk knows no such thing."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
