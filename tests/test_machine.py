"""Processors and memory are those that this process may use, not those of the whole machine."""

import os
import time

import pytest

from unetkit.engine.schedulers import open_scheduler
from unetkit.machine import ahead, free_memory, held_memory, mapped, processor_count
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
    assert processor_count(tmp_path, tmp_path / "own") == count


def test_a_system_that_counts_no_processors_has_one(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processor_count(tmp_path, tmp_path / "own") == 1


def test_jobs_and_networks_share_one_count(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with open_scheduler("threads") as scheduler:
        assert scheduler.workers == thread_count() == processor_count()


def test_free_memory_is_what_the_containers_limit_leaves(tmp_path):
    free = free_memory(tmp_path, tmp_path / "own")
    assert 2**20 < free < 2**50
    (tmp_path / "memory.max").write_text(f"{2**22}\n")
    (tmp_path / "memory.current").write_text(f"{2**20}\n")
    assert free_memory(tmp_path, tmp_path / "own") == 2**22 - 2**20
    (tmp_path / "memory.current").write_text(f"{2**23}\n")
    assert free_memory(tmp_path, tmp_path / "own") == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path, tmp_path / "own") > 2**22


def test_this_process_holds_memory():
    assert 2**20 < held_memory() < 2**45


JOB = "/slurm/job_7/step_0"


@pytest.mark.parametrize("limited", ["slurm", "slurm/job_7", "slurm/job_7/step_0"])
@pytest.mark.parametrize("version", [1, 2, "hybrid"])
def test_limits_of_a_batch_job_may_lie_on_any_group_above_it(
    monkeypatch, tmp_path, version, limited
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    own = tmp_path / "cgroup"
    if version == 2:
        own.write_text(f"0::{JOB}\n")
        roots = {"cpu": tmp_path, "memory": tmp_path}
    else:
        own.write_text(f"12:cpu,cpuacct:{JOB}\n5:memory:{JOB}\n1:name=systemd:/other\n0::/x\n")
        roots = {"cpu": tmp_path / "cpu,cpuacct", "memory": tmp_path / "memory"}
    for root in roots.values():
        (root / JOB[1:]).mkdir(parents=True, exist_ok=True)
    cpu, memory = (root / limited for root in roots.values())
    if version == 2:
        (cpu / "cpu.max").write_text("300000 100000\n")
        names = ("memory.max", "memory.current", "inactive_file")
    else:
        (cpu / "cpu.cfs_quota_us").write_text("300000\n")
        (cpu / "cpu.cfs_period_us").write_text("100000\n")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (memory / names[0]).write_text(f"{2**30}\n")
    (memory / names[1]).write_text(f"{2**29}\n")
    assert processor_count(tmp_path, own) == 3
    assert free_memory(tmp_path, own) == 2**29
    # What the kernel keeps of files gives way.
    (memory / "memory.stat").write_text(f"anon 5\n{names[2]} {2**28}\n")
    assert free_memory(tmp_path, own) == 2**29 + 2**28


def test_a_group_without_a_limit_limits_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    (tmp_path / "own").write_text("4:memory:/a\n3:cpu:/a\nnonsense\n")
    (tmp_path / "cpu/a").mkdir(parents=True)
    (tmp_path / "cpu/a/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/a/cpu.cfs_period_us").write_text("100000\n")
    assert processor_count(tmp_path, tmp_path / "own") == 2
    assert free_memory(tmp_path, tmp_path / "own") > 2**22


def test_items_are_made_ahead_of_their_use_in_their_order():
    def items():
        yield from range(4)
        raise ValueError("at the end")

    used = ahead(items())
    assert [next(used) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at the end"):
        next(used)
    assert list(ahead([])) == []


def test_what_is_mapped_comes_in_order_and_what_is_large_alone():
    running, together = set(), []

    def work(number):
        running.add(number)
        together.append((number, frozenset(running)))
        time.sleep(0.001 * (number % 3))
        running.discard(number)
        return number * number

    found = list(mapped(work, iter(range(40)), alone=lambda number: number in (7, 8, 30)))
    assert found == [number * number for number in range(40)]
    assert {number: others for number, others in together if number in (7, 8, 30)} == {
        number: {number} for number in (7, 8, 30)
    }


def test_the_first_failure_of_what_is_mapped_is_raised_and_nothing_goes_on():
    begun = []

    def work(number):
        begun.append(number)
        return 1 / (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(mapped(work, range(1000), alone=lambda _: False))
    assert max(begun) <= 3 + processor_count() + 1
