"""A cluster is started, found, used and left as it was."""

import json
import socket
import sys
from pathlib import Path

import pytest

from unetkit.engine import clusters
from unetkit.engine.jobs import run_jobs
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import InputError, UnavailableError


def double(number):
    return 2 * number


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
