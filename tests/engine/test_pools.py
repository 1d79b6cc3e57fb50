"""Workers of this machine know which one they are, and leave the terminal's signals alone."""

from __future__ import annotations

import signal
import time

import pytest

from unetkit.engine.jobs import run_jobs
from unetkit.engine.pools import worker_number
from unetkit.engine.schedulers import open_scheduler


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
