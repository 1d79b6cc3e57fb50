"""Processors and memory are those that this process may use, not those of the whole machine."""

import os

import pytest

from unetkit.engine.schedulers import open_scheduler
from unetkit.machine import free_memory, held_memory, processor_count
from unetkit.models.hardware import thread_count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200000 100000\n", 2),
        ("50000 100000", 1),
        ("150000 100000", 2),
        ("900000 100000", 4),
        ("max 100000\n", 4),
        (None, 4),
    ],
)
def test_processors_are_those_of_the_affinity_and_of_the_containers_quota(
    monkeypatch, tmp_path, text, count
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert processor_count(tmp_path) == count


def test_a_system_that_counts_no_processors_has_one(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processor_count(tmp_path) == 1


def test_jobs_and_networks_share_one_count(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with open_scheduler("threads") as scheduler:
        assert scheduler.workers == thread_count() == processor_count()


def test_free_memory_is_what_the_containers_limit_leaves(tmp_path):
    free = free_memory(tmp_path)
    assert 2**20 < free < 2**50
    (tmp_path / "memory.max").write_text(f"{2**22}\n")
    (tmp_path / "memory.current").write_text(f"{2**20}\n")
    assert free_memory(tmp_path) == 2**22 - 2**20
    (tmp_path / "memory.current").write_text(f"{2**23}\n")
    assert free_memory(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 2**22


def test_this_process_holds_memory():
    assert 2**20 < held_memory() < 2**45
