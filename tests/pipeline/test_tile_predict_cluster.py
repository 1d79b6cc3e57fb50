"""A real Dask scheduler with workers of its own, one of which is killed in mid-run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from unetkit.pipeline.tile_predict import tile_predict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")
TILED: dict[str, Any] = {"tile": 16, "precision": "exact"}


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a dask command until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(
    kit: SimpleNamespace, slide: str, tmp_path: Path
) -> None:
    file = tmp_path / "scheduler.json"
    with ExitStack() as running:
        running.enter_context(
            started("scheduler", *LOOPBACK, "--port", "0", "--scheduler-file", str(file))
        )
        for _ in range(600):
            if file.exists() and file.read_text().strip():
                break
            time.sleep(0.1)
        join = ("--scheduler-file", str(file), "--nthreads", "1", "--no-nanny")
        workers = [running.enter_context(started("worker", *LOOPBACK, *join)) for _ in range(2)]
        wait_for(workers, file)
        victim = workers[0]
        watch = kit.watching(at=4, act=lambda: victim.send_signal(signal.SIGKILL))
        report = tile_predict(slide, **TILED, scheduler=f"file:{file}", progress=watch)
        assert victim.wait(60) == -signal.SIGKILL
    tile_predict(slide, **TILED, scheduler="sync", output="here.zarr")
    assert kit.differing(report.output, "here.zarr") == []


def wait_for(workers: list[Any], file: Path) -> None:
    """Wait until all workers have joined."""
    from distributed import Client

    with Client(scheduler_file=str(file), timeout=60) as client:
        client.wait_for_workers(len(workers), timeout=60)
