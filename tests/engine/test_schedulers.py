"""Workers of this machine know which one they are, and leave the terminal's signals alone."""

import signal
import subprocess
import sys
import time

import pytest

from unetkit.engine.jobs import run_jobs
from unetkit.engine.pools import worker_number
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import UsageError
from unetkit.machine import processor_count


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [("sync", None, 1), ("sync", 4, 1), ("threads", 3, 3), ("threads", None, processor_count())],
)
def test_workers_are_those_asked_for(name, workers, expected):
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
def test_a_name_that_means_nothing_and_workers_below_one_are_refused(name, words):
    with pytest.raises(UsageError, match=words):
        open_scheduler(name)
    with pytest.raises(UsageError, match="workers must be at least 1, got 0"):
        open_scheduler("threads", 0)


@pytest.mark.parametrize(
    ("name", "loads"), [("threads", False), ("sync", False), ("local:1", True)]
)
def test_only_a_cluster_loads_what_clusters_need(name, loads):
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


def who(number):
    time.sleep(0.2)  # so that one worker can't take them all
    return worker_number()


@pytest.mark.parametrize(
    ("name", "workers", "n", "numbers"),
    [
        ("processes", 2, 40, {0, 1}),
        ("local:2", None, 40, {0, 1}),
        ("sync", None, 2, {None}),
        ("threads", None, 2, {None}),
    ],
)
def test_each_local_worker_has_a_number_and_nobody_else(name, workers, n, numbers):
    found = set()
    run_jobs(who, range(n), scheduler=name, workers=workers, on_done=lambda _, got: found.add(got))
    assert found == numbers


def interrupts():
    return str(signal.getsignal(signal.SIGINT))


def test_ctrl_c_is_left_to_the_parent():
    """A worker that dies of it is started again, with the tile that it had, and so on."""
    with open_scheduler("local:1") as scheduler:
        assert set(scheduler.client.run(interrupts).values()) == {str(signal.SIG_IGN)}
    with open_scheduler("processes", 1) as scheduler:
        assert scheduler.pool is not None
        assert scheduler.pool.submit(interrupts).result() == str(signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


POOLED = """
import sys
from operator import neg
from unetkit.engine.jobs import run_jobs
if __name__ == "__main__":
    found = []
    keep = lambda *pair: found.append(pair)
    run_jobs(neg, [1, 2], scheduler=sys.argv[1], workers=1, on_done=keep)
    print(sorted(found))
"""


@pytest.mark.parametrize("name", ["processes", "local:1"])
def test_workers_import_nothing_from_the_current_folder(name, tmp_path):
    evil = "import pathlib; pathlib.Path(__file__).with_name('canary').touch()\n"
    for module in ("tempfile", "random", "selectors", "runpy", "unetkit", "numpy"):
        (tmp_path / f"{module}.py").write_text(evil)
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(POOLED)
    line = [sys.executable, str(program), name]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[(1, -1), (2, -2)]\n", done.stderr
    assert not (tmp_path / "canary").exists()
