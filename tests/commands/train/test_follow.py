from __future__ import annotations

import signal

import pytest
import torch

from unetkit.commands.train.callbacks import WorkerCallback, agree, is_main
from unetkit.engine.signals import Stop
from unetkit.errors import StoppedError
from unetkit.training.checkpoint import Validation
from unetkit.training.distributed import SINGLE, ProcessGroup


class Pair(ProcessGroup):
    """Two processes, the other of which heard a signal."""

    def highest(self, value: float) -> float:
        return max(value, float(signal.SIGTERM))


def test_a_signal_to_one_is_a_signal_to_all() -> None:
    alone, paired = Stop(), Stop()
    agree(alone, SINGLE)
    agree(paired, Pair())
    assert (alone.signal, paired.signal) == (None, signal.SIGTERM)


def test_a_follower_says_nothing_and_ends_with_the_others() -> None:
    follower = WorkerCallback(Stop(), SINGLE)
    follower.planned(1, steps=2, seconds_a_step=0.1)
    follower.stepped(1, loss=1.0, rate=0.1)
    follower.on_restore(1)
    follower.validated(1, Validation(0.0, loss=0.0), better=True)
    follower.kept(1, torch.nn.Identity(), Validation(0.0, loss=0.0))
    with pytest.raises(StoppedError, match="process 1 of the training ended") as caught:
        WorkerCallback(Stop(), Pair(rank=1, size=2)).stepped(1, loss=1.0, rate=0.1)
    assert caught.value.exit_code == 128 + signal.SIGTERM


def test_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main()
    for rank, expected in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main() == expected
