"""What there is to do is counted alike for every tile that comes into question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from unetkit.commands.tile_predict import plan, resources
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.ensemble import Ensemble, load_ensemble
from unetkit.commands.tile_predict.plan import PredictOptions, Work
from unetkit.commands.tile_predict.resources import EnsembleThroughput, Memory, Throughput, TileSize
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

if TYPE_CHECKING:
    from types import SimpleNamespace

    from unetkit.models.model_file import LoadedModel

HUGE = 10**9


def work_on(source: str, **options: object) -> Work:
    ensemble = load_ensemble(["model.safetensors"], device="cpu")
    return Work(ensemble, open_dataset(source).samples, PredictOptions(**options))  # type: ignore[arg-type]


def test_tasks_and_passes_are_those_of_all_planes(kit: SimpleNamespace, slide: str) -> None:
    kit.image(Path("stack.zarr"), (3, 64, 60), axes="zyx")
    one, three = work_on(slide), work_on("stack.zarr")
    assert (one.tasks(16), one.passes(16)) == (16, 16)
    assert (three.tasks(16), three.passes(16)) == (48, 48)
    assert work_on(slide, tta="rotations").passes(16) == 8 * 16


GIB = 2**30


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
    kit: SimpleNamespace,
    slide: str,
    monkeypatch: pytest.MonkeyPatch,
    tile: int,
    limit: int,
    planes: int,
    expected: int,
) -> None:
    create_image("film.zarr", shape=(planes, 64, 60), axes="zyx", dtype="u1", chunk=64)
    work = work_on("film.zarr")
    memory = Memory(limit, 0, pixel=1000.0, extra_bytes=1000.0)
    assert work.batch(tile, memory) == 1
    monkeypatch.setattr(Ensemble, "device", torch.device("cuda"))
    assert work.batch(tile, memory) == expected


def test_what_is_chosen_for_a_gpu_is_done_and_kept(
    kit: SimpleNamespace, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"tile": 16, "precision": "exact", "scheduler": "sync"}
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


def test_a_tile_that_is_settled_stays(slide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is.
    monkeypatch.setattr(EnsembleThroughput, "estimate", lambda throughputs, tile: 1e6)
    work = work_on(slide)
    assert work.fastest(4096, precision="float32", max_size=HUGE) == TileSize(4096, 1e6)
    assert work.fastest([512, 1024], precision="float32", max_size=HUGE).tile < 512


def test_symmetries_make_a_task_longer(slide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def steady(model: LoadedModel, *, overlap: int, precision: str, max_size: int) -> Throughput:
        return Throughput(model, overlap, precision, work=(1.0, 0.0, 0.0), rate=1e6)

    monkeypatch.setattr(plan, "estimate_throughput", steady)
    plain, turned = (
        work_on(slide, tta=tta).fastest(32, precision="float32", max_size=HUGE).seconds
        for tta in ("none", "flips")
    )
    assert turned == pytest.approx(4 * plain)


def test_the_tile_is_kept_by_whoever_goes_on(slide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(work: Work, tiles: int | list[int], **_: object) -> TileSize:
        return TileSize(tiles if isinstance(tiles, int) else 16, 1.0)

    first = tile_predict(slide)
    # A machine that is busier by now would choose otherwise.
    monkeypatch.setattr(Work, "fastest", choose)
    again = tile_predict(slide, resume=True)
    assert (again.status, again.tile) == ("nothing to do", first.tile)
    assert tile_predict(slide, dry_run=True).tile == 16
