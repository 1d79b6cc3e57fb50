"""Signals for several processes that train together, and what those do that don't write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from unetkit.engine.signals import Stop
    from unetkit.training.loop import Validation
    from unetkit.training.parallel import Group


def leads() -> bool:
    """Say whether this is the process that writes, by what `torchrun` says of it."""
    return os.environ.get("RANK", "0") == "0"


def agree(stop: Stop, group: Group) -> None:
    """Let a signal that came to any process of a group have come to all of them."""
    stop.signal = int(group.highest(stop.signal or 0)) or None


class Follower:
    """Watches a training in a process that does not write, and ends it with the others.

    Parameters
    ----------
    stop : Stop
        Says whether a signal came.
    group : Group
        The processes.
    """

    def __init__(self, stop: Stop, group: Group) -> None:
        self._stop = stop
        self._group = group

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        """Leave it to the process that leads."""

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        """End where a signal came to any of them.

        Raises
        ------
        StoppedError
            In all of them after the same step.
        """
        agree(self._stop, self._group)
        self._stop.check(f"process {self._group.rank} of the training ended with the others")

    def went_back(self, step: int) -> None:
        """Leave it to the process that leads."""

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Leave it to the process that leads."""

    def kept(self, step: int, network: nn.Module, found: Validation) -> None:
        """Leave it to the process that leads."""
