"""A worker loads a model once, and gives back the threads that it took."""

import threading
from dataclasses import replace

import pytest
import torch

from unetkit.commands.tile_predict.averaging import Averaging, EnsembleMember
from unetkit.commands.tile_predict.blocks import BatchLimit, InferenceConfig, batch_limit
from unetkit.commands.tile_predict.ensemble import compute_slots, load_model, torch_threads
from unetkit.errors import InputError
from unetkit.geometry.sizes import SizeContract


def test_a_model_is_loaded_once_and_must_be_the_one_that_was_meant(kit, tmp_path):
    path = kit.model(tmp_path / "model.safetensors")
    first = load_model(path, device="cpu")
    assert load_model(path, device="cpu", sha256=first.sha256) is first
    kit.model(tmp_path / "model.safetensors", seed=5)
    assert load_model(path, device="cpu").sha256 != first.sha256
    # Whoever holds a network goes on with it.
    assert load_model(path, device="cpu", sha256=first.sha256, keep=0) is first
    wanted = first.sha256
    del first
    with pytest.raises(InputError, match="must stay as it was"):
        load_model(path, device="cpu", sha256=wanted)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before


def most_at_once(count):
    """Return how many of three threads were inside at the same time."""
    inside, most = 0, 0
    meet = threading.Barrier(3)

    def work():
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


def test_one_network_computes_at_a_time():
    assert compute_slots(1) is compute_slots(1)
    assert most_at_once(1) == 1


def test_any_number_may_compute_at_once():
    inside, met = threading.Barrier(2), []

    def work():
        with compute_slots(None):
            # Nobody gets on before both are inside; one at a time would never meet.
            met.append(inside.wait(30))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1]


MEMBER = EnsembleMember("model.st", "f00", SizeContract(step=4, minimum=8, margin=0, halo=4), 4)
CALL = InferenceConfig(Averaging((MEMBER,), 16), 2, "cpu", "float32", None, None, batch=8)


def test_tiles_are_together_and_windows_are_so_in_their_block():
    blended = replace(CALL, averaging=replace(CALL.averaging, merge="gaussian"))
    assert (CALL.max_batch, blended.max_batch) == (8, 1)
    assert replace(CALL, batch=1).max_batch == 1


@pytest.mark.parametrize(("batch", "expected"), [(8, [4, 2, 1, 1]), (7, [3, 1, 1]), (1, [1])])
def test_a_room_is_halved_down_to_one(batch, expected):
    room, found = BatchLimit(batch), []
    for _ in expected:
        room.halve(room.batch)
        found.append(room.batch)
    assert found == expected


def test_two_threads_that_ran_out_together_halve_once():
    room = BatchLimit(8)
    room.halve(8)
    room.halve(8)
    assert room.batch == 4
    room.halve(4)
    room.halve(8)
    assert room.batch == 2


def test_a_process_remembers_its_room_for_tiles_of_a_size():
    batch_limit.cache_clear()
    batch_limit(CALL).halve(8)
    assert batch_limit(replace(CALL)).batch == 4
    larger = replace(CALL, averaging=replace(CALL.averaging, tile=32))
    assert batch_limit(larger).batch == 8
