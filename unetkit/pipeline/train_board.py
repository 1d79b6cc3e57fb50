"""Curves and pictures of a training for TensorBoard, where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unetkit.errors import SurroundingsError
from unetkit.storage.files import make_folder
from unetkit.storage.urls import is_remote
from unetkit.views.drawing import outlined, to_rgb8

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.pipeline.train_validation import Look
    from unetkit.training.loop import Validation


def check_board() -> None:
    """Make sure that TensorBoard's files can be written.

    Raises
    ------
    SurroundingsError
        If it is not installed.
    """
    _writer_class()


class Board:
    """Writes what happens to a folder that TensorBoard shows.

    Parameters
    ----------
    folder : str
        Made where it is not there; earlier files in it stay.
    look : callable
        Returns what the last validation found at one place; None where there was none.
    start : int, optional
        The step after which this training goes on: what a stopped one wrote of later steps is
        shown no more. None where it goes on with none.
    """

    def __init__(
        self, folder: str, *, look: Callable[[], Look | None], start: int | None = None
    ) -> None:
        if not is_remote(folder):
            make_folder(folder)
        self._writer = _writer_class()(folder, purge_step=None if start is None else start + 1)
        self._look = look

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """Write loss and learning rate."""
        if loss is not None:
            self._writer.add_scalar("training/loss", loss, step)
        self._writer.add_scalar("training/learning_rate", rate, step)

    def validated(self, step: int, found: Validation) -> None:
        """Write all scores, and a picture."""
        self._writer.add_scalar("validation/loss", found.loss, step)
        self._writer.add_scalar("validation/score", found.score, step)
        for name, value in found.scores.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        look = self._look()
        if look is not None:
            picture = to_rgb8(look.image)
            for name, labels in (("truth", look.truth), ("prediction", look.prediction)):
                self._writer.add_image(name, outlined(picture, labels), step, dataformats="HWC")
        self._writer.flush()

    def ended(self) -> None:
        """Close the files."""
        self._writer.close()


def _writer_class() -> Any:
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise SurroundingsError(
            "tensorboard must be installed for --tensorboard, got no such package;"
            " pip install 'unetkit[tensorboard]'"
        ) from error
