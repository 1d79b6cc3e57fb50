"""Tell whether a prediction is, byte for byte, what was published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.errors import CheckError, InputError
from unetkit.progress import SILENT
from unetkit.storage import urls
from unetkit.storage.chunks import damages
from unetkit.storage.journal import CHUNK_LIST, FINGERPRINT, FOLDER

if TYPE_CHECKING:
    from unetkit.options import Store
    from unetkit.progress import Progress

# More would scroll what matters off the screen.
NAMED = 20


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found in order."""

    prediction: str
    chunks: int  # and metadata documents that are as they were published

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def verify(prediction: Store, *, progress: Progress = SILENT) -> VerifyReport:
    """Check that every chunk of a prediction is as it was published.

    A flipped bit, a chunk that is missing, cut off, exchanged with another or not ours at all is
    found; most of these would read as background, or as other labels, without a word.

    Parameters
    ----------
    prediction : str
        A prediction.
    progress : Progress
        Told of each chunk.

    Returns
    -------
    VerifyReport

    Raises
    ------
    InputError
        If it is no prediction, or an unfinished one.
    CheckError
        Naming the chunks that are not as they were published.
    """
    if not urls.exists(prediction):
        raise urls.missing(prediction)
    listing = urls.join(prediction, FOLDER, CHUNK_LIST)
    if not urls.exists(listing):
        raise InputError(_no_list(prediction))
    wrong, right = [], 0
    progress.start("verify", total=urls.read(listing).count(b"\n"))
    for name, problem in damages(prediction, listing):
        if problem:
            wrong.append(f"{name} {problem}")
        else:
            right += 1
        progress.advance()
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise CheckError(
            f"{prediction} must be as it was published, got {len(wrong)} of {len(wrong) + right} "
            f"parts otherwise: {'; '.join(wrong[:NAMED])}{more}; predict again, or restore a copy"
        )
    return VerifyReport(prediction, right)


def _no_list(prediction: str) -> str:
    if urls.exists(urls.join(prediction, FOLDER, FINGERPRINT)):
        return (
            f"{prediction} must be finished to be verified, got an unfinished prediction; "
            "finish it with 'unetkit tile-predict --resume'"
        )
    return (
        f"{prediction} must be a prediction with the checksums it was published with, got none; "
        "name an output of 'unetkit tile-predict'"
    )
