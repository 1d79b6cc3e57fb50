import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest
from dask.callbacks import Callback

from unetkit.engine import jobs as jobs_module
from unetkit.engine.jobs import run_jobs
from unetkit.engine.pools import Scheduler
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import ResourceError, StoppedError

ANY = ["sync", "threads", "processes", "cluster"]


@pytest.fixture
def scheduler(request):
    """Return a scheduler's name; `cluster` stands for the address of a running one."""
    if request.param == "cluster":
        return str(request.getfixturevalue("cluster").scheduler_address)
    return str(request.param)


@dataclass(frozen=True)
class Job:
    number: int
    folder: str = ""


class Big:
    """A result that a test can watch."""


def square(job):
    return job.number**2


def stop_at_three(job):
    if job.number == 3:
        raise StoppedError("three must not be reached, got 3; stop before", signal=15)
    return job.number


def leave_a_file(job):
    if job.number == 1:
        raise LookupError("one")
    time.sleep(0.2)
    Path(job.folder, str(job.number)).touch()


def die_at_three(job):
    """Kill the worker at job 3, as often as the folder has files to take away."""
    if job.number == 3:
        for path in Path(job.folder).iterdir():
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return job.number


def results(function, jobs, **how):
    """Run jobs, by their numbers or as they are, and give their results as they came."""
    got = []
    jobs = [Job(job) if isinstance(job, int) else job for job in jobs]
    run_jobs(function, jobs, on_done=lambda _, result: got.append(result), **how)
    return got


@pytest.mark.parametrize("scheduler", [*ANY, "local:1"], indirect=True)
def test_every_job_is_run_once_and_handed_back_to_the_calling_thread(scheduler):
    got: list[tuple[Job, int]] = []
    threads = set()

    def keep(job, result):
        got.append((job, result))
        threads.add(threading.current_thread())

    run_jobs(square, map(Job, range(300)), scheduler=scheduler, workers=2, on_done=keep)
    assert sorted(got, key=lambda pair: pair[1]) == [(Job(n), n * n) for n in range(300)]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("scheduler", ANY, indirect=True)
def test_an_error_comes_out_as_it_was_raised(scheduler):
    with pytest.raises(StoppedError, match="three must not be reached") as caught:
        run_jobs(stop_at_three, map(Job, range(40)), scheduler=scheduler, workers=1)
    assert type(caught.value) is StoppedError
    assert caught.value.exit_code == 143


@pytest.mark.parametrize("jobs", [0, 150])
def test_jobs_run_in_order_where_one_runs_at_a_time(jobs):
    assert results(square, range(jobs), scheduler="sync") == [n**2 for n in range(jobs)]


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_jobs_are_dask_tasks(scheduler):
    seen: list[str] = []
    with Callback(posttask=lambda key, *_: seen.append(key)):
        run_jobs(square, map(Job, range(5)), scheduler=scheduler, workers=1)
    assert len(seen) == 5


@pytest.mark.parametrize("scheduler", ["sync", "threads", "cluster"], indirect=True)
def test_jobs_are_drawn_only_as_they_are_needed(scheduler):
    drawn, done, ahead = 0, 0, []

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield Job(drawn)

    def count(job, result):
        nonlocal done
        done += 1
        ahead.append(drawn - done)
        if done == 300:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        run_jobs(square, endless(), scheduler=scheduler, workers=1, on_done=count)
    assert max(ahead) <= jobs_module.JOBS_PER_WORKER


def test_a_result_is_let_go_once_it_was_handed_over():
    alive: weakref.WeakSet[Big] = weakref.WeakSet()
    counts: list[int] = []

    def keep(job, result):
        alive.add(result)
        del result
        gc.collect()
        counts.append(len(alive))

    run_jobs(lambda job: Big(), map(Job, range(8)), scheduler="sync", on_done=keep)
    # The one in hand, and the one before it, which dask's own loop still names.
    assert max(counts) <= 2


@pytest.mark.parametrize("scheduler", ["threads", "cluster"], indirect=True)
def test_nothing_runs_any_more_once_an_error_is_out(scheduler, tmp_path):
    jobs = [Job(number, str(tmp_path)) for number in range(40)]
    with pytest.raises(LookupError, match="one"):
        run_jobs(leave_a_file, jobs, scheduler=scheduler, workers=2)
    left = sorted(path.name for path in tmp_path.iterdir())
    time.sleep(0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert len(left) < 6


def test_what_on_done_raises_ends_the_run():
    ran = []

    def refuse(job, result):
        raise StoppedError("it must stop, got a signal; go on", signal=2)

    with pytest.raises(StoppedError):
        run_jobs(ran.append, range(9), scheduler="sync", on_done=refuse)
    assert ran == [0]


@pytest.mark.parametrize(("name", "deaths"), [("processes", 1), ("processes", 2), ("local:2", 2)])
def test_the_job_of_a_killed_worker_is_done_elsewhere(tmp_path, name, deaths):
    for number in range(deaths):
        (tmp_path / str(number)).touch()
    jobs = [Job(number, str(tmp_path)) for number in range(8)]
    # However soon the user's own settings of dask have it give up a worker that starts again.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}):
        assert sorted(results(die_at_three, jobs, scheduler=name, workers=2)) == list(range(8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["processes", "local:1"])
def test_a_job_that_kills_every_worker_is_named(tmp_path, name):
    for number in range(9):
        (tmp_path / str(number)).touch()
    jobs, done = [Job(number, str(tmp_path)) for number in range(8)], []
    # Its worker had the job behind it in hand too, which is not to blame.
    with pytest.raises(ResourceError, match=r"3 in a row were killed at .*number=3") as caught:
        run_jobs(
            die_at_three, jobs, scheduler=name, workers=1, on_done=lambda _, got: done.append(got)
        )
    assert caught.value.exit_code == 5
    # Two retries and no more, and what was done before is kept.
    assert len(list(tmp_path.iterdir())) == 6
    assert done[:3] == [0, 1, 2]


PARENT = """
from unetkit.engine.schedulers import open_scheduler
import os, signal
if __name__ == "__main__":
    scheduler = open_scheduler("processes", 1)
    print(scheduler.pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_worker_outlives_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        # One that ended and that nobody waits for is still listed.
        status = Path(f"/proc/{child}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")


def test_an_open_scheduler_serves_several_runs():
    with open_scheduler("threads", 2) as scheduler:
        for _ in range(2):
            got: dict[Job, int] = {}
            run_jobs(square, map(Job, range(5)), scheduler=scheduler, on_done=got.__setitem__)
            assert got == {Job(n): n * n for n in range(5)}
        assert isinstance(scheduler, Scheduler)
