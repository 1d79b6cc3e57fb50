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
from unetkit.storage.lock import FIRST_NAMESPACE, lock_path, locked


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


def test_what_was_left_by_those_killed_while_they_took_a_lock_goes(partial):
    lock = Path(lock_path(partial))
    old, young, dead = (lock.with_name(f"{lock.name}.{c * 16}.tmp") for c in "abc")
    for path in (old, young):
        # Killed before its name was in it.
        path.write_bytes(b"")
    leave(partial, pid=dead_pid()).rename(dead)
    then = old.stat().st_mtime - 2 * 3600
    os.utime(old, (then, then))
    with locked(partial):
        assert not old.exists()
        assert not dead.exists()
        # It may be another job's that is about to say who it is.
        assert young.exists()


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


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ResourceError, match="must be writable"), locked(str(tmp_path / "a/b")):
        pass


CONTAINER = "4026532999"


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no /proc tells of containers")
@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({"namespace": CONTAINER, "disk": ""}, False),
        ({"namespace": CONTAINER, "boot": "another"}, False),
        ({"namespace": CONTAINER, "boot": "another", "host": "elsewhere"}, False),
        # Of this boot and on this disk: nobody keeps the file locked any more.
        ({"namespace": CONTAINER}, True),
        ({"namespace": CONTAINER, "host": "elsewhere"}, True),
        ({"namespace": FIRST_NAMESPACE, "boot": "another"}, True),
    ],
)
def test_what_cannot_be_seen_from_here_is_not_taken_for_dead(partial, changes, dead):
    with locked(partial):
        own = json.loads(Path(lock_path(partial)).read_bytes())
    boot, _, start = own["birth"].partition(" ")
    if (dead and not own["disk"]) or own["namespace"] != FIRST_NAMESPACE:
        pytest.skip("the temporary files lie on a network disk, or this is a container")
    changed = {**own, "pid": dead_pid(), "birth": f"{changes.pop('boot', boot)} {start}", **changes}
    path = leave(partial, **changed)
    if dead:
        with locked(partial):
            pass
        return
    with pytest.raises(OutputError, match="one job at a time"), locked(partial):
        pass
    assert json.loads(path.read_bytes()) == changed


TRY = """
import sys
from unetkit.errors import OutputError
from unetkit.storage.lock import locked
try:
    with locked(sys.argv[1]):
        print("at work", flush=True)
        sys.stdin.read()
except OutputError as error:
    print(error, flush=True)
"""


def test_a_job_in_another_container_is_seen(partial):
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no other PID namespace can be made here")
    inside = [*unshare, sys.executable, "-c", TRY, partial]
    with locked(partial):
        done = subprocess.run(inside, input="", text=True, capture_output=True, check=True)
        assert "one job at a time" in done.stdout
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(inside, **pipes) as process:
        assert process.stdout.readline() == "at work\n"
        with pytest.raises(OutputError, match="of another container"), locked(partial):
            pass
        process.kill()
        process.stdout.read()  # to its end, which comes with that of the child
    with locked(partial):
        pass


@pytest.mark.parametrize(
    ("job", "lives", "dead"),
    [("slurm here 7", 0, True), ("slurm here 7", 1, False), ("slurm there 7", 0, False)],
)
def test_a_requeued_job_takes_over_what_its_earlier_life_left(
    partial, monkeypatch, job, lives, dead
):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    leave(partial, host="elsewhere", job=job, lives=lives)
    if dead:
        with locked(partial):
            assert json.loads(Path(lock_path(partial)).read_bytes())["lives"] == 1
        return
    with pytest.raises(OutputError, match="on host elsewhere"), locked(partial):
        pass


STOPPED = """
import signal, sys
from unetkit.errors import StoppedError
from unetkit.storage.lock import locked
from unetkit.storage.outputs import staged
holding = locked if sys.argv[2] == "locked" else staged
try:
    with holding(sys.argv[1]):
        signal.raise_signal(signal.SIGTERM)
except StoppedError as error:
    print(error, error.exit_code)
"""


@pytest.mark.parametrize("what", ["locked", "staged"])
def test_a_signal_ends_what_is_held(tmp_path, what):
    line = [sys.executable, "-c", STOPPED, str(tmp_path / "out.zarr"), what]
    done = subprocess.run(line, text=True, capture_output=True, check=True)
    expected = "the work must go on to its end, got SIGTERM; give the same command again 143\n"
    assert done.stdout == expected
    assert list(tmp_path.iterdir()) == []


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
