"""A plan settles the tile: the one with which the whole is done first, found at little cost."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetkit.commands.tile_predict import command, resources
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.ensemble import Ensemble, load_ensemble
from unetkit.commands.tile_predict.plan import Plan, PredictOptions
from unetkit.commands.tile_predict.resources import (
    Memory,
    Parallelism,
    Throughput,
    TileSize,
    candidates,
)
from unetkit.geometry.sizes import SizeContract
from unetkit.geometry.tiles import cover
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image


class Machine:
    """Takes so many seconds a million pixels, reckoned and really, and counts what is tried."""

    def __init__(self, side, *, reckoned, real):
        self.side, self.reckoned, self.real = side, reckoned, real
        self.tried = []

    def count(self, tile):
        return len(cover(self.side, self.side, tile=tile))

    def estimate(self, tile):
        return self.reckoned * (tile + 184) ** 2 / 1e6

    def measure(self, tile):
        self.tried.append(tile)
        return self.real[tile] * (tile + 184) ** 2 / 1e6

    def choose(self, tiles=resources.TILES):
        return resources.choose_tile_size(
            tiles, count=self.count, estimate=self.estimate, measure=self.measure, step=16
        )


def test_a_short_job_is_not_measured():
    machine = Machine(4096, reckoned=1.0, real={})
    # Four tiles of 2048; they compute less than sixteen of 1024.
    assert machine.choose() == resources.TileSize(2048, machine.estimate(2048))
    assert machine.tried == []


def test_a_single_large_tile_is_not_worth_the_memory_that_it_touches_first():
    machine = Machine(2048, reckoned=1.0, real={})
    machine.estimate = lambda tile: 0.35 * tile**2 / 1e6
    assert machine.choose().tile == 512
    # Among several it does not count for as much as context that is computed twice.
    assert Machine(4096, reckoned=0.5, real={}).choose().tile == 2048


def test_what_is_measured_counts_for_more_than_what_was_reckoned():
    real = {512: 1.0, 1024: 1.0, 2048: 2.0}
    machine = Machine(100_000, reckoned=1.0, real=real)
    # A large tile that falls out of the processor's caches.
    assert machine.choose().tile == 1024
    assert machine.tried == [512, 1024, 2048]
    even = Machine(100_000, reckoned=1.0, real=dict.fromkeys(real, 1.0))
    assert even.choose().tile == 2048


def test_a_tile_that_takes_too_long_is_left_out():
    # 2048 would take 15 seconds, 1024 takes 4.4.
    machine = Machine(8192, reckoned=3.0, real=dict.fromkeys(resources.TILES, 3.0))
    assert machine.choose().tile == 1024
    # It shows only when it is measured, at 512, that 1024 is too slow as well.
    slow = Machine(100_000, reckoned=3.0, real=dict.fromkeys(resources.TILES, 9.0))
    assert slow.choose().tile == 512


def test_the_smallest_is_halved_where_even_that_takes_too_long():
    machine = Machine(100_000, reckoned=40.0, real={})
    chosen = machine.choose((512, 1024))
    assert chosen.tile == 256
    assert chosen.seconds == pytest.approx(machine.estimate(256))
    # Not without end.
    assert Machine(100_000, reckoned=1e6, real={}).choose((512,)).tile == 128
    assert Machine(100, reckoned=1e6, real={}).choose((112,)).tile == 112


@given(side=st.integers(512, 60_000), throughput=st.floats(1e-3, 30))
def test_measuring_costs_little(side, throughput):
    machine = Machine(side, reckoned=throughput, real=dict.fromkeys(resources.TILES, throughput))
    tiles = tuple(tile for tile in resources.TILES if tile <= side)
    chosen = machine.choose(tiles)
    whole = machine.count(chosen.tile) * chosen.seconds
    spent = 2 * sum(machine.estimate(tile) for tile in machine.tried)
    assert spent <= 1.01 * resources.SHARE * whole
    if machine.tried:
        assert machine.count(chosen.tile) >= resources.WORTHWHILE
    assert chosen.seconds <= resources.LONGEST or chosen.tile < 2 * resources.SMALLEST


HUGE = 10**9


GIB = 2**30
CLASSIC = SizeContract(step=16, minimum=188, margin=92)


def plan_of(source, tile=16, **options):
    ensemble = load_ensemble(["model.safetensors"], device="cpu")
    asked, samples = PredictOptions(**options), open_dataset(source).samples
    return Plan(ensemble, samples, asked, tile=tile, precision="float32", batch=1)


def test_tiles_and_passes_are_those_of_all_planes(kit, slide):
    kit.image(Path("stack.zarr"), (3, 64, 60), axes="zyx")
    one, three = plan_of(slide), plan_of("stack.zarr")
    assert (one.tiles_total, one.passes) == (16, 16)
    assert (three.tiles_total, three.passes) == (48, 48)
    assert plan_of(slide, tta="rotations").passes == 8 * 16


@pytest.mark.parametrize(
    ("shapes", "max_size", "expected"),
    [
        ([(100, 70)], HUGE, [112]),
        ([(30_000, 30_000)], HUGE, [512, 1024, 2048]),
        ([(1100, 600)], HUGE, [512, 1024, 1104]),
        ([(30_000, 30_000)], 2000, [512, 1024]),
        ([(30_000, 30_000)], 700, [512]),
        ([(30_000, 30_000)], 600, [400]),
        # Nothing fits, which the plan refuses.
        ([(30_000, 30_000)], 10, [16]),
    ],
)
def test_what_comes_into_question_fits(shapes, max_size, expected):
    plan = SimpleNamespace(
        model=SimpleNamespace(header=SimpleNamespace(contract=CLASSIC)),
        overlap=92,
        options=PredictOptions(),
        samples=[SimpleNamespace(data=SimpleNamespace(height=y, width=x)) for y, x in shapes],
    )
    memory = SimpleNamespace(largest=max_size)
    assert candidates(plan, memory) == expected


@pytest.mark.parametrize(
    ("tile", "limit", "planes", "expected"),
    [
        (512, 100 * GIB, 1000, 8),
        (1024, 100 * GIB, 1000, 4),
        (2048, 100 * GIB, 1000, 1),
        (4096, 100 * GIB, 1000, 1),
        (512, 100 * GIB, 3, 3),
        (512, 0, 1000, 1),
        (512, 5 * 1000 * 560**2, 1000, 5),
    ],
)
def test_a_gpu_sees_several_small_tiles_at_once(
    kit,
    slide,
    monkeypatch,
    tile,
    limit,
    planes,
    expected,
):
    create_image("film.zarr", shape=(planes, 64, 60), axes="zyx", dtype="u1", chunk=64)
    memory = Memory(limit, 0, pixel=1000.0, extra_bytes=1000.0)
    plan = plan_of("film.zarr", tile)
    assert resources.choose_batch(plan, memory) == 1
    monkeypatch.setattr(Ensemble, "device", torch.device("cuda"))
    assert resources.choose_batch(plan, memory) == expected


def test_what_is_chosen_for_a_gpu_is_done_and_kept(kit, slide, monkeypatch):
    asked = {"tile": 16, "precision": "exact", "scheduler": "sync"}
    assert tile_predict(slide, output="alone.zarr", **asked).batch == 1
    with monkeypatch.context() as patch:
        # The network computes here all the same.
        patch.setattr(Ensemble, "device", torch.device("cuda"))
        patch.setattr(resources, "available_memory", lambda device: 8 * GIB)
        notes = kit.watching()
        report = tile_predict(slide, progress=notes, **asked)
        patch.setattr(resources, "available_memory", lambda device: 2**21)
        assert tile_predict(slide, output="o.zarr", dry_run=True, **asked).batch in range(2, 8)
    assert report.batch == 8
    assert any(", 8 at once, in exact" in note for note in notes.notes)
    found = [kit.read(open_image(name).data) for name in ("alone.zarr", report.output)]
    np.testing.assert_array_equal(*found)
    again = tile_predict(slide, resume=True, **asked)
    assert (again.status, again.batch) == ("nothing to do", 8)


def test_a_tile_that_is_settled_stays(slide, monkeypatch):
    # However slow the machine is.
    monkeypatch.setattr(Throughput, "estimate", lambda throughput, tile: 1e6)
    plan = plan_of(slide)
    assert resources.fastest_tile(plan, [4096], fixed=True, max_size=HUGE) == TileSize(4096, 1e6)
    assert resources.fastest_tile(plan, [512, 1024], fixed=False, max_size=HUGE).tile < 512


def test_symmetries_and_models_make_a_task_longer(kit, slide, monkeypatch):
    def steady(model, *, overlap, precision, max_size):
        return Throughput(model, overlap, precision, work=(1.0, 0.0, 0.0), rate=1e6)

    monkeypatch.setattr(resources, "estimate_throughput", steady)
    plain, turned = (
        resources.fastest_tile(plan_of(slide, tta=tta), [32], fixed=True, max_size=HUGE).seconds
        for tta in ("none", "flips")
    )
    assert turned == pytest.approx(4 * plain)
    kit.model(Path("other.safetensors"))
    two = load_ensemble(["model.safetensors", "other.safetensors"], device="cpu")
    both = replace(plan_of(slide), model=two)
    assert resources.fastest_tile(both, [32], fixed=True, max_size=HUGE).seconds == pytest.approx(
        2 * plain
    )


def test_the_tile_is_kept_by_whoever_goes_on(slide, monkeypatch):
    def choose(plan, tiles, *, fixed, max_size):
        return TileSize(tiles[0] if fixed else 16, 1.0)

    first = tile_predict(slide)
    # A machine that is busier by now would choose otherwise.
    monkeypatch.setattr(command, "fastest_tile", choose)
    again = tile_predict(slide, resume=True)
    assert (again.status, again.tile) == ("nothing to do", first.tile)
    assert tile_predict(slide, dry_run=True).tile == 16


def planned(source, **options):
    ensemble = load_ensemble(["model.safetensors"], device="cpu")
    one = Parallelism(1, networks=1, threads=None, concurrency=1)
    return command.make_plan(
        ensemble, open_dataset(source), PredictOptions(**options), parallelism=one
    )


@pytest.mark.parametrize(
    ("tile", "chunk"), [(16, 16), (1024, 1024), (1040, 520), (2048, 1024), (3072, 1024)]
)
def test_chunks_are_parts_of_a_tile(kit, slide, tile, chunk):
    plan = planned(slide, tile=tile)
    assert plan.chunk == chunk
    (sample,) = plan.samples
    assert plan.blocks(sample).tile % chunk == 0
    assert plan.tiles_total == len(plan.tiles(sample))


def test_a_fingerprint_changes_with_all_that_decides_about_pixels(kit, slide):
    before = planned(slide, precision="float32").fingerprint()
    assert planned(slide, precision="float32").fingerprint() == before
    for change in (
        {"tile": 16},
        {"overlap": 24},
        {"precision": "exact"},
        {"batch": 2},
        {"probabilities": "float32"},
        {"threshold": 0.4},
        {"grow": 2},
        {"min_size": 3},
        {"nonfinite": "fill"},
    ):
        assert planned(slide, **({"precision": "float32"} | change)).fingerprint() != before
    json.dumps(before, allow_nan=False)


def test_an_automatic_tile_is_the_image_rounded_up(kit, slide):
    kit.image(Path("odd.zarr"), (61, 45))
    assert planned("odd.zarr").tile == 64
