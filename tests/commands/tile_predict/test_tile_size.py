"""The automatic tile is the one with which the whole is done first, found at little cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.commands.tile_predict import resources
from unetkit.geometry.tiles import cover


class Machine:
    """Takes so many seconds a million pixels, reckoned and really, and counts what is tried."""

    def __init__(self, side: int, *, reckoned: float, real: dict[int, float]) -> None:
        self.side, self.reckoned, self.real = side, reckoned, real
        self.tried: list[int] = []

    def count(self, tile: int) -> int:
        return len(cover(self.side, self.side, tile=tile))

    def estimate(self, tile: int) -> float:
        return self.reckoned * (tile + 184) ** 2 / 1e6

    def measure(self, tile: int) -> float:
        self.tried.append(tile)
        return self.real[tile] * (tile + 184) ** 2 / 1e6

    def choose(self, tiles: tuple[int, ...] = resources.TILES) -> resources.TileSize:
        return resources.choose_tile_size(
            tiles, count=self.count, estimate=self.estimate, measure=self.measure, step=16
        )


def test_a_short_job_is_not_measured() -> None:
    machine = Machine(4096, reckoned=1.0, real={})
    # Four tiles of 2048; they compute less than sixteen of 1024.
    assert machine.choose() == resources.TileSize(2048, machine.estimate(2048))
    assert machine.tried == []


def test_a_single_large_tile_is_not_worth_the_memory_that_it_touches_first() -> None:
    machine = Machine(2048, reckoned=1.0, real={})
    machine.estimate = lambda tile: 0.35 * tile**2 / 1e6  # type: ignore[method-assign]
    assert machine.choose().tile == 512
    # Among several it does not count for as much as context that is computed twice.
    assert Machine(4096, reckoned=0.5, real={}).choose().tile == 2048


def test_what_is_measured_counts_for_more_than_what_was_reckoned() -> None:
    real = {512: 1.0, 1024: 1.0, 2048: 2.0}
    machine = Machine(100_000, reckoned=1.0, real=real)
    # A large tile that falls out of the processor's caches.
    assert machine.choose().tile == 1024
    assert machine.tried == [512, 1024, 2048]
    even = Machine(100_000, reckoned=1.0, real=dict.fromkeys(real, 1.0))
    assert even.choose().tile == 2048


def test_a_tile_that_takes_too_long_is_left_out() -> None:
    # 2048 would take 15 seconds, 1024 takes 4.4.
    machine = Machine(8192, reckoned=3.0, real=dict.fromkeys(resources.TILES, 3.0))
    assert machine.choose().tile == 1024
    # It shows only when it is measured, at 512, that 1024 is too slow as well.
    slow = Machine(100_000, reckoned=3.0, real=dict.fromkeys(resources.TILES, 9.0))
    assert slow.choose().tile == 512


def test_the_smallest_is_halved_where_even_that_takes_too_long() -> None:
    machine = Machine(100_000, reckoned=40.0, real={})
    chosen = machine.choose((512, 1024))
    assert chosen.tile == 256
    assert chosen.seconds == pytest.approx(machine.estimate(256))
    # Not without end.
    assert Machine(100_000, reckoned=1e6, real={}).choose((512,)).tile == 128
    assert Machine(100, reckoned=1e6, real={}).choose((112,)).tile == 112


@given(side=st.integers(512, 60_000), throughput=st.floats(1e-3, 30))
def test_measuring_costs_little(side: int, throughput: float) -> None:
    machine = Machine(side, reckoned=throughput, real=dict.fromkeys(resources.TILES, throughput))
    tiles = tuple(tile for tile in resources.TILES if tile <= side)
    chosen = machine.choose(tiles)
    whole = machine.count(chosen.tile) * chosen.seconds
    spent = 2 * sum(machine.estimate(tile) for tile in machine.tried)
    assert spent <= 1.01 * resources.SHARE * whole
    if machine.tried:
        assert machine.count(chosen.tile) >= resources.WORTHWHILE
    assert chosen.seconds <= resources.LONGEST or chosen.tile < 2 * resources.SMALLEST
