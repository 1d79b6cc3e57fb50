"""Workers times threads is the number of cores."""

from __future__ import annotations

import pytest
import torch

from unetkit.commands.tile_predict.resources import Parallelism, plan_parallelism
from unetkit.models import hardware


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "thread_count", lambda workers: max(1, 8 // workers))


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Parallelism(2, networks=1, threads=8, concurrency=1)),
        ("threads", 4, Parallelism(4, networks=4, threads=2, concurrency=None)),
        ("sync", 4, Parallelism(1, networks=1, threads=8, concurrency=1)),
        ("processes", None, Parallelism(8, networks=8, threads=1, concurrency=1)),
        ("processes", 2, Parallelism(2, networks=2, threads=4, concurrency=1)),
        ("local:2", None, Parallelism(None, networks=2, threads=4, concurrency=1)),
        ("tcp://host:1", None, Parallelism(None, networks=1, threads=None, concurrency=None)),
    ],
)
def test_cores_are_shared_out(scheduler: str, workers: int | None, expected: Parallelism) -> None:
    parallelism = plan_parallelism(scheduler, workers, device=torch.device("cpu"))
    assert parallelism == expected
    assert parallelism.elsewhere == scheduler.startswith("tcp")


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Parallelism(8, networks=1, threads=8, concurrency=1)),
        ("threads", 3, Parallelism(3, networks=1, threads=8, concurrency=1)),
        ("local:2", None, Parallelism(8, networks=2, threads=4, concurrency=1)),
        ("local:8", None, Parallelism(16, networks=8, threads=1, concurrency=1)),
        ("local:2", 6, Parallelism(6, networks=2, threads=4, concurrency=1)),
    ],
)
def test_several_threads_feed_a_gpu(
    scheduler: str, workers: int | None, expected: Parallelism
) -> None:
    assert plan_parallelism(scheduler, workers, device=torch.device("cuda")) == expected
