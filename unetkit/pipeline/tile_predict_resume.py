"""What an earlier run left of a prediction, and whether another may go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from unetkit.errors import OutputError
from unetkit.storage import files
from unetkit.storage.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kept = TypeVar("Kept", int, str)


@dataclass(frozen=True)
class Earlier:
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


def find_earlier(output: str, *, inputs: Sequence[str]) -> Earlier | None:
    """Look for what an earlier run left of an output; None where there is nothing to go on with.

    Raises
    ------
    OutputError
        If something else is in the output's place.
    """
    finished = files.is_there(output)
    place = output if finished else files.partial_url(output)
    fingerprint = Journal(place).read_fingerprint()
    if finished and fingerprint is not None:
        return Earlier(place, True, fingerprint)
    files.check_output(output, inputs=inputs)
    return None if fingerprint is None else Earlier(place, False, fingerprint)
