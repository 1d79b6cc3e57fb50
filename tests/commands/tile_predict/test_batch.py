"""Tiles that a network sees at once are what each would be alone, whatever comes in between."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unetkit.cli.app import main
from unetkit.commands.tile_predict import averaging, blocks
from unetkit.commands.tile_predict.blocks import TileBatch, TileJob, batch_limit, batches
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.engine import block_io
from unetkit.errors import OutputError, ResourceError
from unetkit.geometry.tiles import cover
from unetkit.models import hardware, inference
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image
from unetkit.storage.journal import Journal
from unetkit.storage.outputs import partial_url

TILED = {"tile": 16, "precision": "exact", "skip_below": 5.0}


@pytest.fixture
def many(kit, tmp_path, monkeypatch):
    """Work in a folder with small planes: noise, a wide field of one value, and nothing."""
    monkeypatch.chdir(tmp_path)
    kit.model(tmp_path / "model.safetensors", depth=1)
    rng = np.random.default_rng(0)
    noise = rng.integers(10, 60000, (3, 20, 37), np.uint16)
    field = rng.integers(10, 60000, (50, 90), np.uint16)
    field[:, 20:] = 900
    writer = DatasetWriter("many.zarr")
    writer.add("stack", noise, axes="zyx")
    writer.add("field", field, axes="yx")
    writer.add("glass", np.zeros((20, 20), np.uint16), axes="yx")
    writer.add("last", noise[0] // 2, axes="yx")
    writer.finish()
    return "many.zarr"


def pixels_that_differ(kit, first, second):
    """Leave out what tells with which options it was made."""
    names = kit.differing(first, second)
    return [name for name in names if not name.endswith("zarr.json") and ".unetkit/" not in name]


def watched(monkeypatch, act=lambda batch: None):
    """Note how much a network sees at once."""
    real, seen = hardware.upload, []

    def upload(batch, device):
        act(batch)
        seen.append(len(batch))
        return real(batch, device)

    monkeypatch.setattr(hardware, "upload", upload)
    return seen


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_tiles_together_are_what_they_are_alone(kit, many, monkeypatch, scheduler):
    alone = tile_predict(many, output="1.zarr", scheduler=scheduler, **TILED)
    assert (alone.batch, alone.tiles_left_out) == (1, 4)
    assert alone.tiles_constant > 5
    seen = watched(monkeypatch)
    for batch in (2, 3, 7):
        output = f"{batch}.zarr"
        report = tile_predict(many, output=output, scheduler=scheduler, batch=batch, **TILED)
        assert (report.batch, max(seen)) == (batch, batch)
        assert report.tiles_left_out == alone.tiles_left_out
        assert pixels_that_differ(kit, "1.zarr", output) == []
        seen.clear()


def test_other_processes_stack_tiles_alike(kit, many):
    outputs = ["sync.zarr", "processes.zarr"]
    for output in outputs:
        scheduler = Path(output).stem
        tile_predict(many, output=output, scheduler=scheduler, workers=2, batch=3, **TILED)
    assert kit.differing(*outputs) == []


def test_tiles_that_are_mixed_up_would_show(kit, many, monkeypatch):
    real = inference.batch_logits
    tile_predict(many, output="1.zarr", scheduler="sync", **TILED)
    monkeypatch.setattr(
        averaging,
        "batch_logits",
        lambda module, batch, tiles, **more: real(module, batch[::-1].copy(), tiles, **more),
    )
    tile_predict(many, output="3.zarr", scheduler="sync", batch=3, **TILED)
    assert pixels_that_differ(kit, "1.zarr", "3.zarr") != []


@pytest.mark.parametrize("options", [{"tta": "rotations"}, {"merge": "gaussian"}, {"mask": "m"}])
def test_turns_windows_and_masks_go_together_too(kit, many, monkeypatch, options):
    kit.model(Path("model.safetensors"), depth=1, name="keras-unet")
    kit.image(Path("film.zarr"), (2, 50, 61), axes="zyx")
    mask = create_image("m", shape=(4, 4), axes="yx", dtype="u1", chunk=4)
    where = np.ones((1, 4, 4), np.uint8)
    where[0, [0, 3], [0, 3]] = 0
    mask.write(0, 0, 0, where)
    tile_predict("film.zarr", output="1.zarr", scheduler="sync", **TILED, **options)
    seen = watched(monkeypatch)
    for batch in (3, 5):
        output = f"{batch}.zarr"
        tile_predict("film.zarr", output=output, scheduler="sync", batch=batch, **TILED, **options)
        assert max(seen) == batch
        assert pixels_that_differ(kit, "1.zarr", output) == []
        seen.clear()


def told_apart(monkeypatch):
    """Let the network say something else of a tile in a batch of another size."""
    real = hardware.forward

    def forward(module, batch, *, precision):
        logits = real(module, batch, precision=precision)
        return logits * (1 + len(batch) * torch.arange(logits.shape[1])[:, None, None])

    monkeypatch.setattr(hardware, "forward", forward)


def power_cut_after(count, monkeypatch):
    """Let the journal fail between two tiles, of which both may be stored by then."""
    real, left = Journal.record, [count]

    def record(journal, key, **more):
        if not left[0]:
            raise OSError("power cut")
        left[0] -= not key.startswith("//")
        real(journal, key, **more)

    monkeypatch.setattr(Journal, "record", record)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("after", [1, 4, 23, 51])
def test_resuming_looks_at_whole_batches_again(kit, many, monkeypatch, after, scheduler):
    told_apart(monkeypatch)
    asked = {"scheduler": scheduler, "batch": 3, **TILED}
    tile_predict(many, output="whole.zarr", **asked)
    # What shows here whether tiles were together with the same others.
    tile_predict(many, output="2.zarr", **(asked | {"batch": 2}))
    assert pixels_that_differ(kit, "whole.zarr", "2.zarr") != []
    with monkeypatch.context() as patch:
        power_cut_after(after, patch)
        with pytest.raises(OSError, match="power cut"):
            tile_predict(many, **asked)
    report = tile_predict(many, resume=True, **asked)
    assert report.tiles_reused == after < report.tiles_total
    assert kit.differing(report.output, "whole.zarr") == []


def test_a_damaged_tile_alone_is_written_again(kit, slide, monkeypatch):
    asked = {"tile": 16, "precision": "exact", "scheduler": "sync", "batch": 3}
    told_apart(monkeypatch)
    tile_predict(slide, output="whole.zarr", **asked)
    with monkeypatch.context() as patch:
        power_cut_after(9, patch)
        with pytest.raises(OSError, match="power cut"):
            tile_predict(slide, **asked)
    Path(partial_url("slide.prediction.zarr"), "0", "c", "0", "1", "0").write_bytes(b"rubbish")
    real, written = block_io.write_tile, []
    monkeypatch.setattr(
        blocks,
        "write_tile",
        lambda data, plane, tile, block: (
            written.append(tile.index),
            real(data, plane, tile, block),
        ),
    )
    seen = watched(monkeypatch)
    report = tile_predict(slide, resume=True, **asked)
    assert (report.tiles_total, report.tiles_reused) == (16, 8)
    assert sorted(set(written)) == [4, *range(9, 16)]
    assert seen == [3, 3, 3, 1]
    assert kit.differing(report.output, "whole.zarr") == []


def test_the_batch_of_before_is_kept(kit, many, monkeypatch):
    with monkeypatch.context() as patch:
        power_cut_after(4, patch)
        with pytest.raises(OSError, match="power cut"):
            tile_predict(many, batch=3, scheduler="sync", **TILED)
    with pytest.raises(OutputError, match="batch: 3 before, 2 now"):
        tile_predict(many, batch=2, resume=True, **TILED)
    report = tile_predict(many, resume=True, **TILED)
    assert (report.batch, report.tiles_reused) == (3, 4)


def short_above(most):
    def act(batch):
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return act


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize(
    ("batch", "left", "options"),
    [(8, 2, {}), (7, 1, {}), (6, 1, {"tta": "flips"}), (8, 2, {"merge": "gaussian"})],
)
def test_too_little_memory_halves_the_batch(
    kit,
    many,
    monkeypatch,
    batch,
    left,
    options,
    scheduler,
):
    kit.model(Path("model.safetensors"), depth=1, name="keras-unet")
    batch_limit.cache_clear()
    asked = {"scheduler": scheduler, "batch": batch, **TILED, **options}
    tile_predict(many, output="whole.zarr", **asked)
    batch_limit.cache_clear()
    seen, progress = watched(monkeypatch, short_above(2)), kit.watching()
    report = tile_predict(many, progress=progress, **asked)
    assert (report.batch, max(seen)) == (batch, left)
    words = f"memory was too small for {batch} tiles at once, so that a worker takes {left} from"
    assert sum(words in note for note in progress.notes) == 1
    assert kit.differing(report.output, "whole.zarr") == []


def test_too_little_memory_for_one_tile_ends_it(kit, many, monkeypatch):
    batch_limit.cache_clear()
    tried = []

    def fail(batch):
        tried.append(len(batch))
        short_above(0)(batch)

    seen = watched(monkeypatch, fail)
    with pytest.raises(ResourceError, match="got too little; use a smaller --tile"):
        tile_predict(many, scheduler="sync", batch=4, **TILED)
    assert (seen, tried) == ([], [4, 2, 1])
    options = ["--tile", "16", "--precision", "exact", "--scheduler", "sync", "--resume"]
    assert main(["tile-predict", many, "--skip-below", "5", *options]) == 5


def test_what_is_wrong_otherwise_is_not_tried_again(many, monkeypatch):
    tried = []

    def fail(batch):
        tried.append(len(batch))
        raise RuntimeError("shapes differ")

    watched(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        tile_predict(many, scheduler="sync", batch=4, **TILED)
    assert tried == [4]


def test_batches_are_named_by_their_ends():
    task = SimpleNamespace(name="a")
    jobs = [TileJob(task, 0, tile) for tile in cover(40, 40, tile=16)]
    found = [str(TileBatch(some)) for some in batches(jobs, 4)]
    assert found[:2] == ["tiles a/0/0 to a/0/3", "tiles a/0/4 to a/0/7"]
    assert found[2:] == ["tile a/0/8 at row 32, column 32"]
    assert list(batches([], 3)) == []
