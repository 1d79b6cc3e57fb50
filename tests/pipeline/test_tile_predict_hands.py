"""Workers times threads is the number of cores."""

from __future__ import annotations

import pytest
import torch

from unetkit.models import hardware
from unetkit.pipeline.tile_predict_hands import Hands, share_cores


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
def test_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    workers: int | None,
    expected: Hands,
) -> None:
    monkeypatch.setattr(hardware, "thread_count", lambda workers: max(1, 8 // workers))
    hands = share_cores(scheduler, workers, device=torch.device("cpu"))
    assert hands == expected
