from __future__ import annotations

import json
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from unetkit.engine import schedulers
from unetkit.engine.jobs import run_jobs
from unetkit.engine.schedulers import cores, open_scheduler, worker_number
from unetkit.errors import InputError, TryAgainError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import LocalCluster


def who(number: int) -> int | None:
    time.sleep(0.2)  # so that one worker can't take them all
    return worker_number()


@pytest.mark.parametrize(("name", "workers"), [("processes", 2), ("local:2", None)])
def test_each_local_worker_has_a_number(name: str, workers: int | None) -> None:
    found = set()
    run_jobs(who, range(40), scheduler=name, workers=workers, on_done=lambda _, got: found.add(got))
    assert found == {0, 1}


@pytest.mark.parametrize("name", ["sync", "threads"])
def test_whoever_is_no_worker_has_no_number(name: str) -> None:
    found = set()
    run_jobs(who, range(2), scheduler=name, on_done=lambda _, got: found.add(got))
    assert found == {None}


def test_local_workers_share_jobs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_scheduler("local:2", 5) as scheduler:
        assert scheduler.workers == 5
        assert set(scheduler.client.nthreads().values()) == {3}


def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [("sync", None, 1), ("sync", 4, 1), ("threads", 3, 3), ("threads", None, cores())],
)
def test_workers_are_those_asked_for(name: str, workers: int | None, expected: int) -> None:
    with open_scheduler(name, workers) as scheduler:
        assert scheduler.workers == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("thread", "scheduler must be one of threads, .*, got 'thread'; did you mean 'threads'"),
        ("mpi", "leave it out to use threads"),
        ("local:0", "N of at least 1"),
        ("local:two", "N of at least 1"),
        ("tcp://", "a host and a port number"),
        ("tcp://somewhere", "a host and a port number"),
        ("tcp://somewhere:http", "a host and a port number"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_scheduler(name)


def test_workers_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="workers must be at least 1, got 0"):
        open_scheduler("threads", 0)


def test_a_cluster_that_does_not_answer_is_to_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedulers, "CONNECT_SECONDS", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens here
        with pytest.raises(TryAgainError, match="must answer") as caught:
            open_scheduler(f"tcp://127.0.0.1:{port}")
    assert caught.value.exit_code == 75


def test_a_scheduler_file_that_is_not_there_is_to_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TryAgainError, match="scheduler file must be readable"):
        open_scheduler(f"file:{tmp_path / 'none.json'}")


def test_a_scheduler_file_must_name_an_address(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text("[]")
    with pytest.raises(InputError, match="JSON with an address"):
        open_scheduler(f"file:{file}")


def test_a_running_cluster_is_used_and_left_running(cluster: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))
    for name in (cluster.scheduler_address, f"file:{file}"):
        got: dict[int, int] = {}
        with open_scheduler(name) as scheduler:
            assert scheduler.workers == 2
            run_jobs(double, range(9), scheduler=scheduler, on_done=got.__setitem__)
        assert got == {n: 2 * n for n in range(9)}
    assert cluster.status.name == "running"


def interrupts() -> str:
    return str(signal.getsignal(signal.SIGINT))


def test_ctrl_c_is_left_to_the_parent() -> None:
    """A worker that dies of it is started again, with the tile that it had, and so on."""
    with open_scheduler("local:1") as scheduler:
        assert set(scheduler.client.run(interrupts).values()) == {str(signal.SIG_IGN)}
    with open_scheduler("processes", 1) as scheduler:
        assert scheduler.pool is not None
        assert scheduler.pool.submit(interrupts).result() == str(signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN
