from __future__ import annotations

import subprocess
import sys

import pytest

from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import UsageError
from unetkit.machine import processor_count


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [("sync", None, 1), ("sync", 4, 1), ("threads", 3, 3), ("threads", None, processor_count())],
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


@pytest.mark.parametrize(
    ("name", "loads"), [("threads", False), ("sync", False), ("local:1", True)]
)
def test_only_a_cluster_loads_what_clusters_need(name: str, loads: bool) -> None:
    code = f"""
import sys
from unetkit.engine.jobs import run_jobs
from unetkit.engine.pools import worker_number
if __name__ == "__main__":
    run_jobs(abs, range(2), scheduler="{name}")
    assert worker_number() is None
    print("distributed" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{loads}\n"
