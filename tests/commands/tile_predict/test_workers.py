"""A worker that is unlike this process is named before anything is given to it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.commands.tile_predict.environment import compare_workers
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unetkit.engine.pools import Scheduler


def alike(home: int) -> dict[str, str]:
    return {"version": "1", "letters": "abc"}


def unlike(home: int) -> dict[str, str]:
    elsewhere = os.getpid() != home
    return {"letters": "abc", "version": "2" if elsewhere else "1", "torch": "9"}


def poorer(home: int) -> dict[str, str]:
    return {"version": "1"} if os.getpid() != home else {"version": "1", "torch": "9"}


def broken(home: int) -> dict[str, str]:
    if os.getpid() != home:
        raise ImportError("no module named 'network'")
    return {}


@pytest.fixture(scope="module")
def two() -> Iterator[Scheduler]:
    with open_scheduler("local:2") as scheduler:
        yield scheduler


def test_workers_that_are_alike_pass(two: Scheduler) -> None:
    compare_workers(two, partial(alike, os.getpid()))


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (unlike, "got version 2 instead of 1; install the same versions everywhere"),
        (poorer, "got torch unknown instead of 9;"),
        (broken, "got ImportError: no module named 'network'; install the same versions there"),
    ],
)
def test_one_that_differs_is_named(two: Scheduler, look: Any, words: str) -> None:
    with pytest.raises(ResourceError, match=words) as caught:
        compare_workers(two, partial(look, os.getpid()))
    assert caught.value.exit_code == 5
    assert "worker tcp://127.0.0.1:" in str(caught.value)


@pytest.mark.parametrize("name", ["sync", "threads", "processes"])
def test_this_machine_s_own_pools_are_not_asked(name: str) -> None:
    def look() -> dict[str, str]:
        raise AssertionError("asked")

    with open_scheduler(name, 1) as scheduler:
        compare_workers(scheduler, look)
