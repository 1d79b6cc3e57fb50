"""A cluster is started, found, used and left as it was."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster

from unetkit.engine import clusters
from unetkit.engine.jobs import run_jobs
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import InputError, ResourceError, UnavailableError


def double(number):
    return 2 * number


def end_worker(number):
    """End the worker at job 1, as the system does for want of memory."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture
def hurried(monkeypatch):
    """Let a run soon notice that it has no worker any more."""
    monkeypatch.setattr(clusters, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(clusters, "DESERTED_SECONDS", {"here": 0.5, "elsewhere": 0.5})


def test_a_run_whose_workers_all_died_and_stay_away_is_to_be_tried_again(hurried):
    got: list[int] = []
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    # So soon that the worker has no time to start again.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}),
        LocalCluster(**options, host="127.0.0.1") as cluster,
        open_scheduler(cluster.scheduler_address) as scheduler,
        pytest.raises(UnavailableError, match="must have a worker, but had none") as caught,
    ):
        run_jobs(end_worker, range(9), scheduler=scheduler, on_done=lambda _, one: got.append(one))
    assert caught.value.exit_code == 75
    assert got in ([], [0])


def test_workers_of_this_machine_that_do_not_come_back_end_the_run(hurried):
    with open_scheduler("local:1") as scheduler:

        def take_workers_away(job, result):
            scheduler.client.cluster.scale(0)

        with pytest.raises(ResourceError, match="none came back") as caught:
            run_jobs(time.sleep, [0, 0.5, 0.5], scheduler=scheduler, on_done=take_workers_away)
    assert caught.value.exit_code == 5


def test_local_workers_share_jobs_out():
    with open_scheduler("local:2", 5) as scheduler:
        assert scheduler.workers == 5
        assert set(scheduler.client.nthreads().values()) == {3}


def test_a_cluster_that_does_not_answer_is_to_be_tried_again(monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens here
        with pytest.raises(UnavailableError, match="must answer") as caught:
            open_scheduler(f"tcp://127.0.0.1:{port}")
    assert caught.value.exit_code == 75


def test_a_scheduler_file_must_be_there_and_name_an_address(tmp_path):
    file = tmp_path / "scheduler.json"
    # It may come: this is to be tried again.
    with pytest.raises(UnavailableError, match="scheduler file must be readable"):
        open_scheduler(f"file:{file}")
    file.write_text("[]")
    with pytest.raises(InputError, match="JSON with an address"):
        open_scheduler(f"file:{file}")


def test_a_running_cluster_is_used_and_left_running(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))
    for name in (cluster.scheduler_address, f"file:{file}"):
        got: dict[int, int] = {}
        with open_scheduler(name) as scheduler:
            assert scheduler.workers == 2
            run_jobs(double, range(9), scheduler=scheduler, on_done=got.__setitem__)
        assert got == {n: 2 * n for n in range(9)}
    assert cluster.status.name == "running"


def heaps():
    text = Path("/proc/self/environ").read_text("utf-8")
    found = dict(one.split("=", 1) for one in text.split("\0") if "=" in one)
    return found.get("MALLOC_ARENA_MAX")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells, and needs it")
def test_a_local_worker_starts_with_one_heap():
    with open_scheduler("local:1") as scheduler:
        assert set(scheduler.client.run(heaps).values()) == {"1"}
