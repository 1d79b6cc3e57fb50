"""What a training keeps on disk while it works: the best model so far, and the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.storage.files import check_output, discard, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

BEST = "best.safetensors"


class Workplace:
    """The folder ``OUTPUT.train`` and the log of a training whose model will be `output`.

    Both are made when a `with` block begins. The folder goes when the model is published. A
    training that ends otherwise leaves them there with its best model, or else nothing.

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
    OutputError
        If one of them, or the model, is there and may not be replaced.
    """

    def __init__(self, output: str, *, inputs: Sequence[str], overwrite: bool) -> None:
        self.output = output
        stem = output.removesuffix(".safetensors")
        self.folder = f"{stem}.train"
        self.log = f"{stem}.log.jsonl"
        for place in (output, self.folder, self.log):
            check_output(place, inputs=inputs, overwrite=overwrite)
        self._stream: Any = None
        self._published = False

    @property
    def best(self) -> str:
        """Where the best model so far is kept."""
        return f"{self.folder}/{BEST}"

    def __enter__(self) -> Workplace:
        discard(self.folder)
        # The mark by which a later --overwrite knows the folder, also after a crash.
        Path(self.folder, ".unetkit").mkdir(parents=True)
        write_text(self.log, "")
        # Buffered by lines: whoever reads while it is written sees whole ones.
        self._stream = Path(self.log).open("a", buffering=1, encoding="utf-8")
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
            discard(self.log)

    def write(self, **facts: Any) -> None:
        """Add a line to the log."""
        self._stream.write(json.dumps(facts, allow_nan=False) + "\n")

    def keep_best(self, content: bytes) -> None:
        """Keep a model file, in place of the one before."""
        write_bytes(self.best, content)

    def publish(self) -> None:
        """Put the best model in its place, and remove the folder."""
        write_bytes(self.output, Path(self.best).read_bytes())
        self._published = True
        discard(self.folder)
