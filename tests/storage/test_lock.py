"""Two jobs never work on one output, and what a dead one left is no obstacle."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unetkit.errors import OutputError, ResourceError
from unetkit.storage import urls
from unetkit.storage.lock import Holder, lock_path, locked


@pytest.fixture
def partial(tmp_path):
    return str(tmp_path / ".slide.zarr.unetkit-partial")


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(partial, **changes):
    """Leave a lock as another job would."""
    path = Path(lock_path(partial))
    holder = {"host": platform.node(), "pid": os.getpid(), "since": "today", "birth": ""}
    path.write_text(json.dumps(holder | changes))
    return path


def test_the_second_job_is_told_who_is_at_work(partial):
    with locked(partial), pytest.raises(OutputError) as caught, locked(partial):
        pass
    message = str(caught.value)
    assert caught.value.exit_code == 4
    for fact in (platform.node(), f"process {os.getpid()}", "since 2", "--break-lock"):
        assert fact in message


def test_nothing_is_left_behind(partial, tmp_path):
    for _ in range(2):
        with locked(partial):
            assert [path.name for path in tmp_path.iterdir()] == [Path(lock_path(partial)).name]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {}])
def test_a_lock_that_may_be_held_is_broken_only_when_asked(partial, changes):
    path = leave(partial, **changes)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="one job at a time"), locked(partial):
        pass
    assert path.read_bytes() == before
    with locked(partial, break_lock=True):
        assert path.read_bytes() != before
    assert not path.exists()


def test_the_lock_of_a_dead_process_is_taken_over(partial):
    leave(partial, pid=dead_pid())
    with locked(partial):
        assert json.loads(Path(lock_path(partial)).read_bytes())["pid"] == os.getpid()
    assert not Path(lock_path(partial)).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc tells a process's start")
def test_a_later_process_with_the_same_number_does_not_count(partial):
    with locked(partial):
        birth = json.loads(Path(lock_path(partial)).read_bytes())["birth"]
    leave(partial, birth=birth)
    with pytest.raises(OutputError), locked(partial):
        pass
    leave(partial, birth=birth.partition(" ")[0] + " 1")
    with locked(partial):
        pass


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"host": 1}', b"\xff" * 9])
def test_a_file_that_names_nobody_is_not_taken_for_a_dead_job(partial, content):
    Path(lock_path(partial)).write_bytes(content)
    with pytest.raises(OutputError, match="must name the job"), locked(partial):
        pass


def test_a_job_whose_lock_was_broken_leaves_the_other_s_alone(partial):
    with locked(partial):
        path = leave(partial, host="elsewhere")
    assert path.exists()


def test_of_many_that_find_a_dead_job_one_goes_on(partial):
    leave(partial, pid=dead_pid())
    meet, done = threading.Barrier(8, timeout=20), threading.Barrier(8, timeout=20)
    outcomes: list[str] = []

    def work():
        meet.wait()
        try:
            with locked(partial):
                outcomes.append("at work")
                done.wait()
        except OutputError:
            outcomes.append("refused")
            done.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["at work", *["refused"] * 7]


def hold(partial, held):
    with locked(partial):
        held.set()
        threading.Event().wait()


def test_another_process_is_seen_until_it_is_killed(partial):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(partial, held))
    process.start()
    assert held.wait(60)
    with pytest.raises(OutputError, match=f"process {process.pid}"), locked(partial):
        pass
    process.kill()
    process.join()
    with locked(partial):
        pass


def test_a_job_elsewhere_may_be_alive_and_a_folder_that_is_not_there_is_named(tmp_path):
    assert Holder("elsewhere", dead_pid(), "", "").is_alive
    assert not Holder(platform.node(), dead_pid(), "", "").is_alive
    with pytest.raises(ResourceError, match="must be writable"), locked(str(tmp_path / "a/b")):
        pass


def test_a_store_has_one_job_at_a_time_too(bucket):
    url = f"{bucket}/.out.zarr.unetkit-partial"
    with locked(url):
        with pytest.raises(OutputError, match="one job at a time"), locked(url):
            pytest.fail("another job holds it")
        with locked(url, break_lock=True):
            pass
    with locked(url):
        pass
    assert not urls.exists(lock_path(url))


def test_the_lock_of_a_dead_process_in_a_store_is_taken_over(bucket):
    url = f"{bucket}/.out.zarr.unetkit-partial"
    dead = {"host": platform.node(), "pid": dead_pid(), "since": "long ago", "birth": ""}
    urls.write(lock_path(url), json.dumps(dead).encode())
    with locked(url):
        assert json.loads(urls.read(lock_path(url)))["pid"] == os.getpid()
    urls.write(lock_path(url), json.dumps({**dead, "host": "elsewhere"}).encode())
    with pytest.raises(OutputError, match="on host elsewhere"), locked(url):
        pytest.fail("a job on another host may be alive")
