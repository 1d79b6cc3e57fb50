"""A worker loads a model once, and gives back the threads that it took."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch

from unetkit.commands.tile_predict.ensemble import compute_slots, load_model, torch_threads
from unetkit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def test_a_model_is_loaded_once_and_must_be_the_one_that_was_meant(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    path = kit.model(tmp_path / "model.safetensors")
    first = load_model(path, device="cpu")
    assert load_model(path, device="cpu", sha256=first.sha256) is first
    kit.model(tmp_path / "model.safetensors", seed=5)
    assert load_model(path, device="cpu").sha256 != first.sha256
    with pytest.raises(InputError, match="must stay as it was"):
        load_model(path, device="cpu", sha256=first.sha256)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before


def most_at_once(count: int | None) -> int:
    """Return how many of three threads were inside at the same time."""
    inside, most = 0, 0
    meet = threading.Barrier(3)

    def work() -> None:
        nonlocal inside, most
        meet.wait()
        for _ in range(50):
            with compute_slots(count):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


def test_one_network_computes_at_a_time() -> None:
    assert compute_slots(1) is compute_slots(1)
    assert most_at_once(1) == 1


def test_any_number_may_compute_at_once() -> None:
    inside, met = threading.Barrier(2), []

    def work() -> None:
        with compute_slots(None):
            # Nobody gets on before both are inside; one at a time would never meet.
            met.append(inside.wait(30))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1]
