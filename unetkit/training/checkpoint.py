"""What a training keeps on disk while it works: the best model so far, and the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import OutputError, UsageError
from unetkit.storage.files import check_output, discard, write_bytes
from unetkit.storage.urls import exists

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

BEST = "best.safetensors"
LOG = "log.jsonl"


class Workplace:
    """The folder ``OUTPUT.train`` of a training whose model will be `output`.

    It is made when a `with` block begins and holds the log and the best model so far. When the
    model is published the log is put beside it and the folder goes. A training that ends otherwise
    leaves the folder with its best model; one that has none leaves everything as it was.

    Parameters
    ----------
    output : str
        The model file to be.
    inputs : sequence of str
        What is read.
    overwrite : bool
        Whether an earlier model, log and folder may be replaced.

    Raises
    ------
    UsageError
        If `output` does not end in ``.safetensors``.
    OutputError
        If the model, its log or the folder is there and may not be replaced.
    """

    def __init__(self, output: str, *, inputs: Sequence[str], overwrite: bool) -> None:
        self.output = output
        stem = output.removesuffix(".safetensors")
        self.folder = f"{stem}.train"
        self.log = f"{stem}.log.jsonl"
        for place in (output, self.log):
            check_output(place, inputs=inputs, overwrite=overwrite)
        if stem == output:
            raise UsageError(
                f"output must end in .safetensors, as model files do, got {output}; add it"
            )
        if exists(self.best) and not overwrite:
            raise OutputError(
                f"output {self.folder} must not exist yet, but holds the best model of a training"
                " that was stopped; put it elsewhere, or add --overwrite to give it up"
            )
        check_output(self.folder, inputs=inputs, overwrite=overwrite)
        folder = Path(self.folder)
        self._earlier = folder.with_name(f".{folder.name}.unetkit-earlier")
        self._stream: Any = None
        self._published = False

    @property
    def best(self) -> str:
        """Where the best model so far is kept."""
        return f"{self.folder}/{BEST}"

    @property
    def running_log(self) -> str:
        """Where the log is while it is written."""
        return f"{self.folder}/{LOG}"

    def __enter__(self) -> Workplace:
        self._set_earlier_aside()
        # The mark by which a later --overwrite knows the folder, also after a crash.
        Path(self.folder, ".unetkit").mkdir(parents=True)
        # Buffered by lines: whoever reads while it is written sees whole ones.
        self._stream = Path(self.running_log).open("a", buffering=1, encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        if not self._published and not Path(self.best).exists():
            discard(self.folder)
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

    def write(self, **facts: Any) -> None:
        """Add a line to the log."""
        self._stream.write(json.dumps(facts, allow_nan=False) + "\n")

    def keep_best(self, content: bytes) -> None:
        """Keep a model file, in place of the one before."""
        write_bytes(self.best, content)
        discard(str(self._earlier))

    def publish(self) -> None:
        """Put the best model and the log in their places, and remove the folder."""
        write_bytes(self.output, Path(self.best).read_bytes())
        write_bytes(self.log, Path(self.running_log).read_bytes())
        self._published = True
        discard(self.folder)
