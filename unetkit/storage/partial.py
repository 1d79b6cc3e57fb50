"""What an earlier run left of a prediction, and whether another may go on with it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from unetkit.errors import OutputError, ResourceError, StoppedError, UnavailableError
from unetkit.storage import outputs
from unetkit.storage.images import open_image
from unetkit.storage.journal import FOLDER, LINES, Journal
from unetkit.storage.lock import locked
from unetkit.storage.outputs import check_output, discard, partial_url, publish
from unetkit.storage.urls import is_remote, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unetkit.storage.planes import PlaneArray

Kept = TypeVar("Kept", int, str)


@dataclass(frozen=True)
class PreviousRun:
    """What an earlier run left.

    Parameters
    ----------
    place : str
        The finished output or its partial.
    finished : bool
        Whether it is finished.
    fingerprint : dict
        What it was made with.
    """

    place: str
    finished: bool
    fingerprint: dict[str, Any]

    def choice(self, name: str, kind: type[Kept], *, sha256: str) -> Kept | None:
        """Take over a choice that was made automatically.

        Parameters
        ----------
        name : str
            Its name in the fingerprint.
        kind : type
            What it must be.
        sha256 : str
            The model's hash; choices made for another model are of no use.
        """
        value = self.fingerprint.get(name)
        fits = self.fingerprint.get("model") == sha256 and isinstance(value, kind)
        return value if fits else None

    def check(self, fingerprint: dict[str, Any]) -> None:
        """Make sure that going on gives what a single run would give.

        Raises
        ------
        OutputError
            Naming what differs.
        """
        differences = Journal(self.place).differences(fingerprint)
        if differences:
            raise OutputError(
                f"{self.place} must have been made with the same settings to be resumed, got "
                f"{'; '.join(differences[:5])}; give those of before, or --overwrite instead of"
                " --resume to start afresh"
            )


def find_previous_run(output: str, *, inputs: Sequence[str]) -> PreviousRun | None:
    """Look for what an earlier run left of an output; None where there is nothing to go on with.

    Raises
    ------
    OutputError
        If something else is in the output's place.
    """
    finished = outputs.is_there(output)
    place = output if finished else outputs.partial_url(output)
    fingerprint = Journal(place).read_fingerprint()
    if finished and fingerprint is not None:
        return PreviousRun(place, True, fingerprint)
    outputs.check_output(output, inputs=inputs)
    return None if fingerprint is None else PreviousRun(place, False, fingerprint)


# After these the work itself is sound, and going on with it is worth while.
KEPT_AFTER = (StoppedError, ResourceError, UnavailableError)


@dataclass(frozen=True)
class Partial:
    """What is written of one sample.

    Parameters
    ----------
    output : PlaneArray
        The weights.
    journal : Journal
        Gets the tiles that are done.
    before : dict
        The tiles that an earlier run had done, with their checksums.
    """

    output: PlaneArray
    journal: Journal
    before: dict[str, int | None]


@contextmanager
def alone(
    places: Sequence[str], *, resume: bool, overwrite: bool, break_lock: bool
) -> Iterator[None]:
    """Be the only job on the weights of some samples, and make sure that they may be written.

    Parameters
    ----------
    places : sequence of str
        Where they will be.
    resume, overwrite, break_lock : bool
        As for `weights`.

    Raises
    ------
    OutputError
        If another job is at work there, weights are there, or a stopped run's tiles would be lost
        without having been asked for.
    """
    with ExitStack() as stack:
        for place in places:
            if not resume:
                check_output(place, overwrite=overwrite)
            if not is_remote(place):
                stack.enter_context(locked(partial_url(place), break_lock=break_lock))
        for place in () if resume else places:
            # Once more: another job may have ended before this one was alone.
            check_output(place, overwrite=overwrite)
            if not overwrite and Journal(partial_url(place)).read_fingerprint() is not None:
                raise OutputError(
                    f"{place} must not have been begun, got the tiles of a run that was stopped; "
                    "--resume goes on with them, --overwrite starts afresh"
                )
        yield


@contextmanager
def begun(
    place: str,
    *,
    fingerprint: dict[str, Any],
    create: Callable[[str], PlaneArray],
    resume: bool,
    overwrite: bool,
) -> Iterator[Partial | None]:
    """Make weights beside their place, and put them there once all is written.

    Parameters
    ----------
    place : str
        Where they will be.
    fingerprint : dict
        What their bytes depend on.
    create : callable
        Creates the empty weights at a URL.
    resume : bool
        Go on with what an earlier run left.
    overwrite : bool
        Replace weights that are there.

    Yields
    ------
    Partial or None
        None where an earlier run had finished. After an end from outside, such as a signal or a
        full disk, what is done stays for another run; after any other exception nothing stays.

    Raises
    ------
    OutputError
        If weights are there, or an earlier run had other settings.
    """
    earlier = find_previous_run(place, inputs=()) if resume else None
    if earlier is not None:
        earlier.check(fingerprint)
        if earlier.finished:
            yield None
            return
    else:
        check_output(place, overwrite=overwrite)
    partial = partial_url(place)
    if earlier is None:
        discard(partial)
        output = create(partial)
    else:
        output = replace(open_image(partial).data, has_channels=False)
    try:
        with Journal(partial) as journal:
            if earlier is None:
                journal.write_fingerprint(fingerprint)
            yield Partial(output, journal, journal.done())
        discard(join(partial, FOLDER, LINES))
        publish(partial, place, overwrite=overwrite)
    except KEPT_AFTER:
        raise
    except BaseException:
        discard(partial)
        raise
