"""A worker takes as much of a batch as its memory has room for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unetkit.commands.tile_predict.averaging import Averaging, EnsembleMember
from unetkit.commands.tile_predict.blocks import BatchLimit, InferenceConfig, batch_limit
from unetkit.geometry.sizes import SizeContract

MEMBER = EnsembleMember("model.st", "f00", SizeContract(step=4, minimum=8, margin=0, halo=4), 4)
CALL = InferenceConfig(Averaging((MEMBER,), 16), 2, "cpu", "float32", None, None, batch=8)


def test_tiles_are_together_and_windows_are_so_in_their_block() -> None:
    blended = replace(CALL, averaging=replace(CALL.averaging, merge="gaussian"))
    assert (CALL.max_batch, blended.max_batch) == (8, 1)
    assert replace(CALL, batch=1).max_batch == 1


@pytest.mark.parametrize(("batch", "expected"), [(8, [4, 2, 1, 1]), (7, [3, 1, 1]), (1, [1])])
def test_a_room_is_halved_down_to_one(batch: int, expected: list[int]) -> None:
    room, found = BatchLimit(batch), []
    for _ in expected:
        room.halve(room.batch)
        found.append(room.batch)
    assert found == expected


def test_two_threads_that_ran_out_together_halve_once() -> None:
    room = BatchLimit(8)
    room.halve(8)
    room.halve(8)
    assert room.batch == 4
    room.halve(4)
    room.halve(8)
    assert room.batch == 2


def test_a_process_remembers_its_room_for_tiles_of_a_size() -> None:
    batch_limit.cache_clear()
    batch_limit(CALL).halve(8)
    assert batch_limit(replace(CALL)).batch == 4
    larger = replace(CALL, averaging=replace(CALL.averaging, tile=32))
    assert batch_limit(larger).batch == 8
