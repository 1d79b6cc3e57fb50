"""A real Dask scheduler with workers of its own, one of which is killed in mid-run."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import ResourceError

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")
TILED = {"tile": 16, "precision": "exact"}


@contextmanager
def started(*arguments):
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


@contextmanager
def cluster(file, *workers):
    """Run a Dask scheduler and workers of its own, each with what it is given besides."""
    with ExitStack() as running:
        running.enter_context(
            started("scheduler", *LOOPBACK, "--port", "0", "--scheduler-file", str(file))
        )
        for _ in range(600):
            if file.exists() and file.read_text().strip():
                break
            time.sleep(0.1)
        join = ("--scheduler-file", str(file), "--nthreads", "1", "--no-nanny")
        found = [running.enter_context(started("worker", *LOOPBACK, *join, *w)) for w in workers]
        wait_for(found, file)
        yield found


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(kit, slide, tmp_path):
    file = tmp_path / "scheduler.json"
    with cluster(file, [], []) as workers:
        victim = workers[0]
        watch = kit.watching(at=4, act=lambda: victim.send_signal(signal.SIGKILL))
        report = tile_predict(slide, **TILED, scheduler=f"file:{file}", progress=watch)
        assert victim.wait(60) == -signal.SIGKILL
    tile_predict(slide, **TILED, scheduler="sync", output="here.zarr")
    assert kit.differing(report.output, "here.zarr") == []


# What a worker's preload script does to be unlike this process.
UNLIKE = {
    "unetkit 0.0.1 instead of": "import unetkit.version as v; v.__version__ = '0.0.1'",
    "torch 1.0 instead of": "import torch; torch.__version__ = '1.0'",
    "able to do what this process does, got .*Error": (
        "import sys; sys.modules['unetkit.commands.tile_predict.environment'] = None"
    ),
    # As where a disk is mounted elsewhere: the path is there, and not what it is here.
    "model.safetensors nothing there instead of": (
        "import unetkit.commands.tile_predict.environment as alike; alike.Path = "
        "lambda path, real=alike.Path: real(str(path).replace('.safetensors', '.elsewhere'))"
    ),
}


@pytest.mark.parametrize("words", UNLIKE)
def test_a_worker_that_is_unlike_is_named_before_work(slide, tmp_path, words):
    preload = tmp_path / "preload.py"
    preload.write_text(UNLIKE[words])
    file = tmp_path / "scheduler.json"
    with cluster(file, ["--preload", str(preload)]):
        with pytest.raises(ResourceError, match=words) as caught:
            tile_predict(slide, **TILED, scheduler=f"file:{file}")
        assert caught.value.exit_code == 5
        assert "worker tcp://127.0.0.1:" in str(caught.value)
    assert not list(tmp_path.glob("*slide.prediction.zarr*"))


def wait_for(workers, file):
    """Wait until all workers have joined."""
    from distributed import Client

    with Client(scheduler_file=str(file), timeout=60) as client:
        client.wait_for_workers(len(workers), timeout=60)
