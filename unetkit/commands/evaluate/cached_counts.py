"""Save the results of an evaluation's blocks, so that a later run has them at once.

Knows no score: what jobs return is taken apart and put together again.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import BadZipFile

import numpy as np

from unetkit.arrays.objects import Objects
from unetkit.commands.evaluate.counting import Counted, ThresholdedPlane
from unetkit.engine.block_io import blocks_of
from unetkit.engine.jobs import run_jobs
from unetkit.errors import OutputError, ResourceError
from unetkit.scores.boundaries import Surfaces
from unetkit.scores.contingency import Contingency
from unetkit.scores.isbi2012 import Topology
from unetkit.storage.journal import Results, fingerprint
from unetkit.storage.partial import RESUMABLE, Partial
from unetkit.storage.urls import base_name, exists, is_remote, join
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unetkit.commands.evaluate.samples import MatchedSamples
    from unetkit.progress import Progress
    from unetkit.signals import Stop

J = TypeVar("J")
R = TypeVar("R")

# From so many blocks on, some minutes of work, results are saved without being asked for.
SAVE_MIN_BLOCKS = 256
# After these the work itself is sound, and going on with it is worth while.
SOUND = (*RESUMABLE, KeyboardInterrupt, OutputError)
# What comes of a result that is not what was kept, though its checksum is right.
_UNFIT = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_UNREADABLE = (*_UNFIT, OSError, BadZipFile)
# The version of what jobs return; results of another are never added to these.
COUNTS = 2
AFRESH = "an unfinished evaluation is started afresh; --resume goes on with one"
# What jobs return, by the name that kept results have: nothing else is ever made of what is read.
_KINDS: dict[str, type[Any]] = {
    "Contingency": Contingency,
    "Counted": Counted,
    "Objects": Objects,
    "Proposal": ThresholdedPlane,
    "Surfaces": Surfaces,
    "Topology": Topology,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# What their fields are declared to be.
_TYPES: dict[str, type[Any]] = {
    "Array": np.ndarray,
    "int": int,
    "None": type(None),
    **{kind.__name__: kind for kind in _NAMES},
}


@dataclass
class CachedCounts:
    """Runs jobs, but for those whose results an earlier run saved."""

    results: Results | None  # where results are saved, if they are
    stop: Stop  # asked after each job
    asked: bool = True  # whether saving was asked for, so that it is an error where it fails
    total: int = 0  # jobs so far
    reused: int = 0  # those of them whose results were there

    def run(
        self,
        function: Callable[[J], R],
        jobs: Iterable[J],
        *,
        scheduler: str,
        workers: int | None,
        on_done: Callable[[J, R], None],
    ) -> None:
        """Do what `run_jobs` does with jobs that have a `key`."""

        def missing() -> Iterator[J]:
            for job in jobs:
                self.total += 1
                found = self._kept(_key(job))
                if found is None:
                    yield job
                else:
                    self.reused += 1
                    on_done(job, found)

        def finish(job: J, result: R) -> None:
            self._save(_key(job), result)
            on_done(job, result)
            self.stop.check(self._how_to_go_on())

        run_jobs(function, missing(), scheduler=scheduler, workers=workers, on_done=finish)

    def _kept(self, key: str) -> Any:
        """Return the result that an earlier run kept, None where none can be made of what it is."""
        try:
            found = None if self.results is None else self.results.get(key)
            return None if found is None else unpack(*found)
        except _UNREADABLE:
            return None

    def _save(self, key: str, result: object) -> None:
        if self.results is None:
            return
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        try:
            self.results.put(key, pack(result, arrays), arrays)
        except ResourceError:
            if self.asked:
                raise
            self.results = None

    def _how_to_go_on(self) -> str:
        way = "to keep what is done" if self.results is None else "in the same command to go on"
        return f"eval must go on to its end, got a signal; give --resume {way}"


@contextmanager
def cached_counts(
    prediction: str,
    matched: MatchedSamples,
    *,
    resume: bool,
    break_lock: bool,
    stop: Stop,
    progress: Progress,
) -> Iterator[CachedCounts]:
    """Save the results of blocks beside the prediction, or here if it lies elsewhere.

    They depend on what is compared. At the end nothing is left, but after an end from outside,
    such as a signal.
    """
    jobs = sum(a.planes * len(blocks_of(a)) for a in _compared(matched))
    if not resume and jobs < SAVE_MIN_BLOCKS:
        yield CachedCounts(None, stop)
        return
    making = Partial(_beside(prediction), resume=resume, break_lock=break_lock)
    with ExitStack() as stack:
        alone = True
        try:
            stack.enter_context(making.locked())
        except (OutputError, ResourceError):
            if resume:
                raise
            alone = False  # nobody asked for it
        if not alone:
            yield CachedCounts(None, stop)
            return
        now = _fingerprint(matched)
        before = making.begun() if resume else None
        if before is not None:
            before.check(
                now,
                rule="be of the same evaluation",
                remedy="leave --resume out to start afresh",
            )
        journal = stack.enter_context(
            making.opened(
                fresh=not resume, kept=SOUND, note=progress.note, afresh=AFRESH, publish=False
            )
        )
        making.write_fingerprint(now)
        counts = CachedCounts(Results(making.folder, journal), stop, resume)
        try:
            yield counts
        except _UNFIT as error:
            if not counts.reused:
                raise
            # Counts of other forms than were kept, under a checksum of their own.
            raise OutputError(
                f"counts that an earlier evaluation kept in {making.folder} must be as it kept"
                f" them, got {type(error).__name__}: {error!s:.120}; leave --resume out to start"
                " afresh"
            ) from error


def _beside(prediction: str) -> str:
    """Name what is kept after the prediction, outside of any store that it lies in."""
    if is_remote(prediction):
        return f"{base_name(prediction)}.eval"
    place = prediction.rstrip("/")
    name = base_name(place)
    while exists(join(place[: -len(base_name(place))] or ".", "zarr.json")):
        place = place[: -len(base_name(place))].rstrip("/")
        if not base_name(place):
            return f"{name}.eval"
    return f"{place}.eval"


def _compared(matched: MatchedSamples) -> list[Any]:
    return [ours.image.labels[matched.kind] for ours, _ in matched.pairs]


def _fingerprint(matched: MatchedSamples) -> dict[str, Any]:
    """Say what the results of blocks depend on: what both sides hold by now."""
    sides: dict[str, Any] = {}
    for ours, theirs in matched.pairs:
        arrays = {
            "prediction": ours.image.labels[matched.kind],
            "probabilities": ours.image.data,
            "truth": theirs.image.labels[matched.kind],
            "ignore": theirs.image.labels.get("ignore"),
        }
        sides[theirs.name] = {
            name: {
                "url": array.url,
                "shape": list(array.shape),
                "chunks": list(array.chunks),
                "dtype": array.dtype.name,
                **fingerprint(array.url),
            }
            for name, array in arrays.items()
            if array is not None
        }
    about = {"unetkit": __version__, "counts": COUNTS, "kind": matched.kind}
    return {**about, "samples": sides}


def _key(job: Any) -> str:
    key: str = job.key
    return key


def pack(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Take a job's result apart into arrays, and a rest that JSON can hold."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if is_dataclass(value):
        parts = {f.name: pack(getattr(value, f.name), arrays) for f in fields(value)}
        return {"kind": _NAMES[type(value)], "parts": parts}
    if isinstance(value, dict):
        return {"entries": [[key, pack(item, arrays)] for key, item in value.items()]}
    return value


def unpack(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Put together what `pack` took apart."""
    of = partial(unpack, arrays=arrays)
    match tree:
        case {"array": name}:
            return arrays[name]
        case {"kind": name, "parts": parts}:
            return _made(_KINDS[name], {key: of(part) for key, part in parts.items()})
        case {"entries": entries}:
            return {key: of(part) for key, part in entries}
    return tree


def _made(kind: type[Any], parts: dict[str, Any]) -> Any:
    """Make a result of its parts; ValueError for types and lengths that none has."""
    lengths = set()
    for field in fields(kind):
        names = [name.rpartition(".")[2] for name in str(field.type).split(" | ")]
        if not isinstance(parts[field.name], tuple(_TYPES[name] for name in names)):
            raise ValueError(f"{field.name} must be {field.type}, got {type(parts[field.name])}")
        if names == ["Array"]:
            lengths.add(len(parts[field.name]))
    if len(lengths) > 1:
        raise ValueError(f"arrays of {kind.__name__} must be of one length, got {sorted(lengths)}")
    return kind(**parts)
