from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.training.block_cache import BLOCK, BlockCache

RNG = np.random.default_rng(0)
# Three blocks of 512 pixels along y, the last of 76; two along x.
GREY = RNG.integers(0, 60000, (2, 1100, 700)).astype(np.uint16)
COLOUR = RNG.integers(0, 255, (1, 3, 520, 530)).astype(np.uint8)


def test_any_box_is_what_a_direct_read_gives(kit):
    cache = BlockCache()
    arrays = [kit.Memory(GREY), kit.Memory(COLOUR)]

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def check(data):
        array = data.draw(st.sampled_from(arrays))
        plane = data.draw(st.integers(0, array.planes - 1))
        spans = []
        for length in (array.height, array.width):
            start = data.draw(st.integers(0, length - 1))
            spans.append((start, data.draw(st.integers(start + 1, length))))
        rows, columns = spans
        found = cache.read(array, plane, rows=rows, columns=columns)
        np.testing.assert_array_equal(found, array.array[plane, ..., slice(*rows), slice(*columns)])
        found[:] = 0  # the caller's own: later reads must not see it

    check()


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(st.integers(0, 6), max_size=40), room=st.integers(1, 5))
def test_the_blocks_that_were_used_last_stay_within_the_budget(wanted, room):
    loads = []

    class Strip:
        height, width, planes = 4, 7 * BLOCK, 1

        def read(self, plane, y0, y1, x0, x1):
            loads.append(x0 // BLOCK)
            return np.zeros((y1 - y0, x1 - x0), np.uint8)

    strip = Strip()
    cache = BlockCache(budget=room * 4 * BLOCK)
    expected = []
    held: OrderedDict[int, None] = OrderedDict()
    for block in wanted:
        if block not in held:
            expected.append(block)
        held[block] = None
        held.move_to_end(block)
        if len(held) > room:
            held.popitem(last=False)
        cache.read(strip, 0, rows=(0, 1), columns=(block * BLOCK + 3, block * BLOCK + 5))
    assert loads == expected


def test_a_huge_plane_is_read_in_blocks(kit):
    class Huge:
        height = width = 10**9
        planes = 1

        def __init__(self):
            self.areas = []

        def read(self, plane, y0, y1, x0, x1):
            self.areas.append((y1 - y0) * (x1 - x0))
            return np.add.outer(np.arange(y0, y1), np.arange(x0, x1))

    huge = Huge()
    found = BlockCache().read(huge, 0, rows=(10**9 - 9, 10**9), columns=(5000, 5600))
    assert found.shape == (9, 600)
    assert found[-1, -1] == 10**9 - 1 + 5599
    assert len(huge.areas) == 2
    assert max(huge.areas) <= BLOCK**2


def test_arrays_are_told_apart_also_when_one_takes_the_place_of_another(kit):
    cache = BlockCache()
    for value in range(20):
        # Without a hold on it, the next array could get the id of this one.
        array = kit.Memory(np.full((1, 3, 3), value))
        assert cache.read(array, 0, rows=(0, 3), columns=(0, 3))[0, 0] == value
        del array


def test_threads_read_the_same_pixels(kit):
    array = kit.Memory(GREY)
    cache = BlockCache(budget=BLOCK * BLOCK * 4)
    starts = RNG.integers(0, 600, 60).tolist()

    def read(start):
        box = cache.read(array, 1, rows=(start, start + 80), columns=(start, start + 80))
        return bool((box == GREY[1, start : start + 80, start : start + 80]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, starts))


def test_an_error_of_the_array_reaches_the_reader():
    class Broken:
        height = width = 5
        planes = 1

        def read(self, *box):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        BlockCache().read(Broken(), 0, rows=(0, 1), columns=(0, 1))
