"""Workers times threads is the number of cores."""

from __future__ import annotations

import pytest
import torch

from unetkit.commands.tile_predict.resources import Hands, share_cores
from unetkit.models import hardware


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "thread_count", lambda workers: max(1, 8 // workers))


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Hands(2, networks=1, threads=8, at_once=1)),
        ("threads", 4, Hands(4, networks=4, threads=2, at_once=None)),
        ("sync", 4, Hands(1, networks=1, threads=8, at_once=1)),
        ("processes", None, Hands(8, networks=8, threads=1, at_once=1)),
        ("processes", 2, Hands(2, networks=2, threads=4, at_once=1)),
        ("local:2", None, Hands(None, networks=2, threads=4, at_once=1)),
        ("tcp://host:1", None, Hands(None, networks=1, threads=None, at_once=None)),
    ],
)
def test_cores_are_shared_out(scheduler: str, workers: int | None, expected: Hands) -> None:
    hands = share_cores(scheduler, workers, device=torch.device("cpu"))
    assert hands == expected
    assert hands.elsewhere == scheduler.startswith("tcp")


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Hands(8, networks=1, threads=8, at_once=1)),
        ("threads", 3, Hands(3, networks=1, threads=8, at_once=1)),
        ("local:2", None, Hands(8, networks=2, threads=4, at_once=1)),
        ("local:8", None, Hands(16, networks=8, threads=1, at_once=1)),
        ("local:2", 6, Hands(6, networks=2, threads=4, at_once=1)),
    ],
)
def test_several_threads_feed_a_gpu(scheduler: str, workers: int | None, expected: Hands) -> None:
    assert share_cores(scheduler, workers, device=torch.device("cuda")) == expected
