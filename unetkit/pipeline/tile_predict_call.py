"""How a worker gets at the networks, and how many tiles it lets them see at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from unetkit.pipeline.tile_predict_passes import Looks
from unetkit.pipeline.tile_predict_worker import load_model, turns

if TYPE_CHECKING:
    from unetkit.pipeline.tile_predict_average import Averaging
    from unetkit.pipeline.tile_predict_hands import Hands
    from unetkit.pipeline.tile_predict_plan import Plan


@dataclass(frozen=True)
class NetworkCall:
    """How a worker gets at the network and runs it.

    Parameters
    ----------
    averaging : Averaging
        The networks, and where they look.
    classes : int
        How many they tell apart.
    device, precision : str
        Where and how to compute.
    threads : int or None
        Torch threads for each network; None leaves the worker's own number.
    at_once : int or None
        How many jobs of one process may be in the network at the same time.
    batch : int
        How many tiles, or windows of a block that is blended, one of them lets it see at once.
    """

    averaging: Averaging
    classes: int
    device: str
    precision: str
    threads: int | None
    at_once: int | None
    batch: int = 1

    @property
    def together(self) -> int:
        """How many tiles are one job; a block that is blended has a batch in itself."""
        return self.batch if self.averaging.merge == "crop" else 1

    def looks(self, batch: int = 1) -> Looks:
        """Return the networks of this process, ready to look at so much at once."""
        members = self.averaging.members
        fused = self.precision != "exact"
        load = partial(load_model, device=self.device, keep=len(members), fused=fused)
        modules = [load(member.path, sha256=member.sha256).module for member in members]
        return Looks(
            self.averaging,
            modules,
            classes=self.classes,
            precision=self.precision,
            turn=turns(self.at_once),
            windows=batch,
        )


def network_call(plan: Plan, *, device: str, hands: Hands) -> NetworkCall:
    """Say how workers run the networks of a plan."""
    return NetworkCall(
        averaging=plan.averaging,
        classes=len(plan.model.header.class_names),
        device=device,
        precision=plan.precision,
        threads=hands.threads,
        at_once=hands.at_once,
        batch=plan.batch,
    )


class Room:
    """How much of a batch the memory of this process has room for.

    Parameters
    ----------
    batch : int
        What was planned.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._lock = threading.Lock()

    def halve(self, tried: int) -> None:
        """Take half of what was tried in vain from now on; a thread beside may have done so."""
        with self._lock:
            self.batch = max(1, min(self.batch, tried // 2))


@lru_cache(maxsize=8)
def room_for(call: NetworkCall) -> Room:
    """Return the room that this process has for a call, as earlier jobs left it."""
    return Room(call.batch)
