"""A result in the making: begun, resumed, stopped, finished; it does not know of what kind."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from unetkit.errors import OutputError, ResourceError, StoppedError, UnavailableError
from unetkit.options import check_resume
from unetkit.storage import outputs
from unetkit.storage.atomic import make_folder, recover, sweep, sync, sync_documents, write_bytes
from unetkit.storage.image_writer import list_labels
from unetkit.storage.journal import FINGERPRINT, FOLDER, Journal, differences
from unetkit.storage.lock import locked
from unetkit.storage.nodes import changed_documents, digest_documents, read_node
from unetkit.storage.ome import provenance_marks
from unetkit.storage.urls import exists, join, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Choice = TypeVar("Choice", int, str)
Errors = tuple[type[BaseException], ...]

# Said in the journal of what was begun to take the place of a finished output; no part has such a
# name.
REPLACES = "//replaces"
# Likewise once all is made, of what goes to several places.
COMPLETE = "//complete"

# After these the work itself is sound, and going on with it is worth while.
RESUMABLE: Errors = (StoppedError, ResourceError, UnavailableError)


@dataclass(frozen=True)
class PreviousRun:
    """What an earlier run left: the finished output or its partial, and what it was made with."""

    place: str
    finished: bool
    fingerprint: dict[str, Any]

    def choice(self, name: str, kind: type[Choice], *, sha256: str) -> Choice | None:
        """Take over a choice that was made automatically; for another model it is of no use."""
        value = self.fingerprint.get(name)
        fits = self.fingerprint.get("model") == sha256 and isinstance(value, kind)
        return value if fits else None

    def check(
        self,
        fingerprint: dict[str, Any],
        *,
        rule: str = "have been made with the same settings",
        remedy: str = "give those of before, or --overwrite instead of --resume to start afresh",
    ) -> None:
        """Make sure that going on gives what a single run would give, else name what differs."""
        found = differences(self.fingerprint, fingerprint)
        if found:
            raise OutputError(
                f"{self.place} must {rule} to be resumed, got {'; '.join(found[:5])}; {remedy}"
            )


@dataclass(frozen=True)
class Partial:
    """The folder in which an output is made, and what may happen to what is there already.

    A run calls `check_writable` before it loads anything, is alone inside `locked`, looks again
    with `recheck`, and works inside `opened`, which publishes at its end. A part of the work that
    the journal names is done. What a kill at any moment leaves is gone on with or cleared away.
    """

    output: str
    # What it is made from, which it must not replace.
    inputs: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    break_lock: bool = False
    # Only look: nothing is locked, and nothing in the way is minded.
    dry_run: bool = False
    # Where it is made, if not beside the output.
    at: str | None = None
    # What errors call it.
    title: str = "output "

    def __post_init__(self) -> None:
        check_resume(self.resume, overwrite=self.overwrite)

    @property
    def folder(self) -> str:
        """Where the output is made."""
        return self.at or outputs.partial_url(self.output)

    def begun(self) -> PreviousRun | None:
        """Return what a run that was stopped left; None where none had begun."""
        journal = Journal(self.folder)
        fingerprint = journal.read_fingerprint()
        if fingerprint is None:
            if (wrong := journal.lacks_fingerprint()) is not None:
                raise wrong
            return None
        changed = changed_documents(self.folder, journal.read_documents())
        if changed:
            raise OutputError(
                f"{self.folder} must hold what a run that was stopped had written, got another"
                f" {' and another '.join(changed[:5])}; bring it back, or start afresh with"
                " --overwrite, without --resume"
            )
        return PreviousRun(self.folder, False, fingerprint)

    def check_writable(self) -> PreviousRun | None:
        """Make sure that the output may be written; return what there is to be resumed."""
        if self.resume:
            return self._find_previous()
        # A dry run says what would be done once there is room for it.
        if not self.dry_run:
            self._check_place(overwrite=self.overwrite)
        return None

    def _check_place(self, *, overwrite: bool) -> None:
        """Refuse a place where something would be lost."""
        outputs.check_output(self.output, inputs=self.inputs, overwrite=overwrite)

    def _find_previous(self) -> PreviousRun | None:
        replaces = self._replaces()
        finished = None if replaces else self.finished()
        if finished is not None:
            return finished
        self._check_place(overwrite=replaces)
        return self.begun()

    def finished(self) -> PreviousRun | None:
        """Return what is published in the output's place; None where nothing of ours is."""
        if not outputs.is_there(self.output):
            return None
        fingerprint = Journal(self.output).read_fingerprint()
        return None if fingerprint is None else PreviousRun(self.output, True, fingerprint)

    def replaced(self) -> PreviousRun | None:
        """Return the finished output whose place is to be taken, where it says what it is."""
        try:
            return self.finished()
        except OutputError:
            return None

    def _replaces(self) -> bool:
        """Tell whether what was begun was allowed to take the place of what is there."""
        return REPLACES in Journal(self.folder).done()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs away, and put right what one that was killed left half done."""
        if self.dry_run:
            yield
            return
        with locked(self.folder, break_lock=self.break_lock):
            recover(self.output, self.folder)
            yield

    def recheck(self) -> PreviousRun | None:
        """Look once more: another job may have ended before this one was alone."""
        previous = self.check_writable()
        if previous is not None and previous.finished:
            Journal(self.output).discard()  # in case that was all that was left to do
        asked = self.resume or self.overwrite or self.dry_run
        if not asked and self.begun() is not None:
            raise OutputError(
                f"{self.title}{self.output} must not have been begun, got the tiles of a run that "
                "was stopped; --resume goes on with them, --overwrite starts afresh"
            )
        return previous

    @contextmanager
    def opened(
        self,
        *,
        fresh: bool,
        kept: Errors = RESUMABLE,
        lost: Errors = (BaseException,),
        note: Callable[[str], None] = lambda text: None,
        afresh: str = "an unfinished prediction is started afresh",
        publish: bool = True,
    ) -> Iterator[Journal]:
        """Begin the folder or go on with it, and put the output in its place at the end.

        What is done stays after the errors `kept`, and goes after those of `lost`.
        """
        if fresh and exists(self.folder):
            note(afresh)
            self.discard()
        elif not fresh:
            sweep(self.folder)
        try:
            with Journal(self.folder) as journal:
                yield journal
            self._finish(publish=publish)
        except kept:
            raise
        except lost:
            self.discard()
            raise
        except Exception:
            note("the tiles that are done are kept; --resume goes on with them")
            raise

    def write_fingerprint(self, fingerprint: dict[str, Any]) -> None:
        """Say what is made here, once all that it is made in is safe on the disk."""
        if self.begun() is None:
            sync_documents(self.folder)
            documents = digest_documents(self.folder)
            with Journal(self.folder) as journal:
                journal.write_fingerprint(fingerprint, documents=documents)
                if self.overwrite and outputs.is_there(self.output):
                    journal.record(REPLACES, checksum=None)

    def discard(self) -> None:
        """Remove all that is done."""
        outputs.discard(self.folder)

    def _finish(self, *, publish: bool) -> None:
        if not publish:
            self.discard()
            return
        # What an earlier version began is not hidden yet.
        Journal(self.folder).hide()
        self._publish(overwrite=self.overwrite or self._replaces())

    def _publish(self, *, overwrite: bool) -> None:
        outputs.publish(self.folder, self.output, overwrite=overwrite)
        # Last, so that no moment is without a record of what is done.
        Journal(self.output).discard()


@dataclass(frozen=True)
class PartialLabels(Partial):
    """Labels that take their places beside images that are there already, one after the other.

    Once all are made the journal says so, and what is left is to move them; those that were moved
    when a run was killed are not moved again. The first keeps the fingerprint.
    """

    # Of each its path in the folder, the image that it is of, and its path below that.
    parts: tuple[tuple[str, str, str], ...] = ()

    @property
    def places(self) -> list[str]:
        """Where labels, and what belongs to them, go."""
        return [join(image, path) for _, image, path in self.parts]

    @property
    def is_complete(self) -> bool:
        """Tell whether an earlier run had made all labels, and some may be in their places."""
        return COMPLETE in Journal(self.folder).done()

    def begun(self) -> PreviousRun | None:
        """Return what a run that was stopped left, of which some may be in its place."""
        if not self.is_complete:
            return super().begun()
        fingerprint = Journal(self.folder).read_fingerprint()
        return None if fingerprint is None else PreviousRun(self.folder, False, fingerprint)

    def finished(self) -> PreviousRun | None:
        """Return the labels that are in their places, if all are."""
        if not all(map(exists, self.places)):
            return None
        fingerprint = Journal(self.places[0]).read_fingerprint()
        return None if fingerprint is None else PreviousRun(self.places[0], True, fingerprint)

    def replaced(self) -> PreviousRun | None:
        """Return nothing: labels have no probabilities to be decided about again."""
        return None

    def _check_place(self, *, overwrite: bool) -> None:
        for place in self.places:
            node = read_node(place) if exists(place) else None
            own = node is not None and "prediction" in provenance_marks(node)
            if exists(place) and not (own and overwrite):
                remedy = "add --overwrite to replace them" if own else "predict into another store"
                raise OutputError(f"{place} must not exist yet, got labels there; {remedy}")

    def _replaces(self) -> bool:
        return super()._replaces() or self.is_complete

    def _publish(self, *, overwrite: bool) -> None:
        if not self.is_complete:
            self._keep_fingerprint()
            with Journal(self.folder) as journal:
                journal.record(COMPLETE, checksum=None)
        sync()
        for (path, image, below), place in zip(self.parts, self.places, strict=True):
            staged, (folder, _, name) = join(self.folder, path), below.rpartition("/")
            listed = (name,) if folder == "labels" else ()
            list_labels(image)
            recover(place, staged)
            if exists(staged):
                outputs.publish(staged, place, overwrite=True, synced=True)
            list_labels(image, *listed)
        self.discard()

    def _keep_fingerprint(self) -> None:
        """Let the first labels tell what all of them are made with."""
        first = join(self.folder, self.parts[0][0])
        make_folder(join(first, FOLDER))
        content = read(join(self.folder, FOLDER, FINGERPRINT))
        write_bytes(join(first, FOLDER, FINGERPRINT), content)
        Journal(first).hide()


def stop_message(rule: str, number: int | None, reached: str = "") -> str:
    """Say how to go on after a signal.

    >>> stop_message("weights must go on to their end", 15)
    'weights must go on to their end, got SIGTERM; give the same command with --resume'
    """
    name = signal.Signals(number).name if number else ""
    return f"{rule}, got {name}{reached}; give the same command with --resume"
