"""Where a prediction goes, and what may happen to what lies there already."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unetkit.errors import CheckError, NumbersError, OutputError, StoppedError, UsageError
from unetkit.pipeline.tile_predict_resume import Earlier, find_earlier
from unetkit.storage import files, urls
from unetkit.storage.images import detect
from unetkit.storage.journal import Journal
from unetkit.storage.leftovers import recover, sweep
from unetkit.storage.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unetkit.progress import Progress


@dataclass(frozen=True)
class Target:
    """The output of a prediction, and the partial in which it is made.

    Parameters
    ----------
    output : str
        Where the prediction goes.
    inputs : tuple of str
        What it is made from, which it must not replace.
    resume, overwrite, break_lock, dry_run : bool
        As for `tile_predict`.
    """

    output: str
    inputs: tuple[str, ...]
    resume: bool
    overwrite: bool
    break_lock: bool
    dry_run: bool

    @classmethod
    def among(cls, options: Mapping[str, Any], *, output: str, inputs: tuple[str, ...]) -> Target:
        """Pick what may happen to an output out of all options, which bear the same names."""
        names = ("resume", "overwrite", "break_lock", "dry_run")
        return cls(output, inputs, **{name: options[name] for name in names})

    @property
    def partial(self) -> str:
        """The folder in which the prediction is made."""
        return files.partial_url(self.output)

    def look(self) -> Earlier | None:
        """Make sure that the output may be written; return what there is to be resumed.

        Raises
        ------
        UsageError
            If it is to be gone on with and replaced at once.
        OutputError
            If something is in its place that is to stay.
        """
        if self.resume and self.overwrite:
            raise UsageError("resume must be given without overwrite, got both; choose one of them")
        if self.resume:
            return find_earlier(self.output, inputs=self.inputs)
        # A dry run says what would be done once there is room for it.
        if not self.dry_run:
            files.check_output(self.output, inputs=self.inputs, overwrite=self.overwrite)
        return None

    def look_alone(self) -> Earlier | None:
        """Look once more: another job may have ended before this one was alone.

        Raises
        ------
        OutputError
            If a stopped run's tiles would be lost without having been asked for.
        """
        earlier = self.look()
        if earlier is not None and earlier.finished:
            Journal(self.output).discard()  # in case that was all that was left to do
        asked = self.resume or self.overwrite or self.dry_run
        if not asked and Journal(self.partial).read_fingerprint() is not None:
            raise OutputError(
                f"output {self.output} must not have been begun, got the tiles of a run that was "
                "stopped; --resume goes on with them, --overwrite starts afresh"
            )
        return earlier

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other jobs away from the partial inside a `with` block."""
        if self.dry_run:
            yield
            return
        with locked(self.partial, break_lock=self.break_lock):
            recover(self.output, self.partial)
            yield

    @contextmanager
    def making(self, progress: Progress, *, fresh: bool) -> Iterator[None]:
        """Keep what is done when the work ends early, unless going on could not mend it."""
        folder = self.partial
        if fresh and urls.exists(folder):
            progress.note("an unfinished prediction is started afresh")
            files.discard(folder)
        elif not fresh:
            sweep(folder)
        try:
            yield
        except (UsageError, NumbersError):
            files.discard(folder)
            raise
        except (StoppedError, CheckError):
            raise  # they say themselves how to go on
        except Exception:
            progress.note("the tiles that are done are kept; --resume goes on with them")
            raise

    def publish(self) -> None:
        """Give the finished partial the output's name."""
        files.publish(self.partial, self.output, overwrite=self.overwrite)
        # Last, so that no moment is without a record of what is done.
        Journal(self.output).discard()


def output_of(source: str, output: str | None) -> str:
    """Say where the prediction goes, once it is known that there is something to predict.

    Raises
    ------
    MissingError
        If there is no source.
    UsageError
        If there is no name to give it.
    """
    detect(source)
    return output or files.output_name(source, ".prediction.zarr")
