"""Checkpoints of a training on disk: whole and checked, saved beside the work, never a pickle."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import safetensors.torch
from safetensors import SafetensorError

from unetkit.errors import InputError
from unetkit.models.model_file import checksum_of
from unetkit.storage.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"
# Seconds between two saves: what a power cut may cost.
SAVE_INTERVAL = 60.0
_KEY = "unetkit.state"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped."""

    tensors: Mapping[str, Tensor]  # on the processor, shared with nobody
    facts: Mapping[str, Any]  # what JSON can hold

    @property
    def is_finite(self) -> bool:
        """Whether there is no NaN or Inf in any tensor."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())

    def to_bytes(self) -> bytes:
        """Return the state as a file's content; the same state gives the same bytes."""
        plain = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        text = json.dumps(self.facts, allow_nan=False)
        # One entry: the order of several is left to chance.
        metadata = {_KEY: f"{checksum_of(plain, text)} {text}"}
        content: bytes = safetensors.torch.save(plain, metadata=metadata)
        return content

    @classmethod
    def from_bytes(cls, content: bytes, *, path: str) -> Checkpoint:
        """Read what `to_bytes` returned; nothing in it can run code, and no bit differs."""
        try:
            tensors = safetensors.torch.load(content)
            size = int.from_bytes(content[:8], "little")
            said = json.loads(content[8 : 8 + size])["__metadata__"][_KEY]
            checksum, _, text = said.partition(" ")
            facts = json.loads(text)
        except (
            SafetensorError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise damaged_state(path, f"{type(error).__name__}: {error!s:.80}") from error
        if checksum != checksum_of(tensors, text):
            raise damaged_state(path, "another checksum than its own")
        return cls(tensors, facts)


def damaged_state(path: str, got: str) -> InputError:
    """Say that a state can't be gone on from."""
    return InputError(
        f"state {path} must be as it was written, got {got}; add --overwrite instead of --resume"
        " to start afresh"
    )


_NUMBER, _MAYBE = (int, float), (int, float, type(None))
# What all that takes a state up asks of its facts.
_FACTS: dict[str, dict[str, tuple[type, ...]]] = {
    "learner": {
        "average_steps": (int,),
        "scaler": (dict,),
        "suspects": (list,),
        "went_back": (bool,),
    },
    "pace": {"steps": (int,), "seconds_a_step": _MAYBE, "seconds": _NUMBER},
    "more": {"settings": (dict,), "surroundings": (dict,), "reporter": (dict,)},
    "more/reporter": {"seconds": _NUMBER, "smooth": _MAYBE, "score": (str,)},
}


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse what no training says beside its tensors, but for its position (ValueError)."""
    for path, kinds in _FACTS.items():
        found: Any = facts
        for name in path.split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        for name, kind in kinds.items():
            value = found.get(name) if isinstance(found, dict) else found
            if not isinstance(found, dict) or type(value) not in kind:
                raise ValueError(f"{path}/{name} must be of another kind, got {value!r:.80}")
    if not all(isinstance(names, list) for names in facts["learner"]["suspects"]):
        raise ValueError(f"suspects must be lists, got {facts['learner']['suspects']!r:.80}")


class Checkpoints:
    """The last two states of a training, in its folder, saved now and then."""

    def __init__(
        self,
        folder: str,
        *,
        period: float = SAVE_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last, self._previous = Path(folder, LAST), Path(folder, PREVIOUS)
        self._period = period
        self._clock = clock
        self._saved = clock()
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self._last.exists() or self._previous.exists()

    def load(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Read the last state, or the one before it where that is damaged, which is noted.

        None where there is none; InputError where all that is there is damaged.
        """
        found = [path for path in (self._last, self._previous) if path.exists()]
        for number, path in enumerate(found, start=1):
            try:
                state = Checkpoint.from_bytes(path.read_bytes(), path=str(path))
            except InputError as error:
                if number == len(found):
                    raise
                note(f"{error.args[0].partition(';')[0]}; goes on from the state before it.")
                # A later save would put it in the place of the good one.
                path.unlink()
            else:
                return state
        return None

    def is_due(self) -> bool:
        """Say whether it is time for a save, and the one before is done."""
        if self._writing is not None and not self._writing.done():
            return False
        return self._clock() - self._saved >= self._period

    def save(self, state: Checkpoint, *, after: Callable[[], None] = lambda: None) -> None:
        """Write a state, which must not change any more, beside the work; `finish` waits for it.

        `after` is called in the thread that writes once the state is safe. An error of the save
        before this one comes up here.
        """
        self.finish()
        self._saved = self._clock()
        self._writing = self._pool.submit(self._write, state, after)

    def finish(self) -> None:
        """Wait until what was handed over is on the disk; an error that prevents it comes up."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """End the thread that writes, once it is done."""
        self._pool.shutdown(wait=True)

    def _write(self, state: Checkpoint, after: Callable[[], None]) -> None:
        content = state.to_bytes()
        # First: where the disk is full it makes room, and a kill leaves the state that it was.
        if self._last.exists():
            self._last.replace(self._previous)
        write_bytes(str(self._last), content)
        after()


@dataclass(frozen=True)
class Validation:
    """What the held-out data says of the network."""

    score: float  # what the best network has most of
    loss: float  # decides between equal scores
    scores: dict[str, Any] = field(default_factory=dict)  # all scores, for people

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Read what `asdict` returned; ValueError for what it never does."""
        if not isinstance(found, dict) or found.keys() != {"score", "loss", "scores"}:
            raise ValueError(f"a validation must have scores, got {found!r:.80}")
        if any(type(found[name]) not in (int, float) for name in ("score", "loss")):
            raise ValueError(f"score and loss must be numbers, got {found!r:.80}")
        if not isinstance(found["scores"], dict):
            raise ValueError(f"scores must be named, got {found['scores']!r:.80}")
        return cls(**found)

    @property
    def rank(self) -> tuple[float, float]:
        """The higher the better; scores that differ by less than a thousandth are equal."""
        return round(self.score, 3), -self.loss


@dataclass
class Position:
    """How far a training has come."""

    step: int = 0  # steps that are made
    validated: int = 0  # those that were made when the last validation was done
    best_step: int = 0  # those of the best network so far
    best: Validation | None = None
    since_best: int = 0  # validations since then
    # How far the score of the network before the first step is not to be trusted.
    doubt: float = 0.0

    def judge(self, found: Validation) -> bool:
        """Take the scores of this step's network, and say whether it is the best so far.

        The network before the first step is left for one that is hardly worse: its own score may
        be the highest of many on the same places, which the next ones don't repeat.
        """
        self.validated = self.step
        best = self.best
        if best is not None and self.best_step == 0 < self.step:
            best = replace(best, score=best.score - self.doubt)
        better = best is None or found.rank > best.rank
        self.since_best = 0 if better else self.since_best + 1
        if better:
            self.best_step, self.best = self.step, found
        return better

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; earlier versions read it where there is no doubt."""
        found = asdict(self)
        return found if self.doubt else {k: v for k, v in found.items() if k != "doubt"}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned; ValueError for what it never does."""
        names = ("step", "validated", "best_step", "since_best")
        if not isinstance(found, dict) or found.keys() - {"doubt"} != {*names, "best"}:
            raise ValueError(f"a position must have {', '.join(names)} and best, got {found!r:.80}")
        if any(type(found[name]) is not int or found[name] < 0 for name in names):
            raise ValueError(f"steps must be counts, got {found!r:.80}")
        if type(found.get("doubt", 0.0)) is not float:
            raise ValueError(f"doubt must be a number, got {found!r:.80}")
        best = found["best"]
        return cls(**{**found, "best": None if best is None else Validation.from_dict(best)})
