"""A second look finds a tile that is not what the network says, and publishes nothing then."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unetkit.cli.app import main
from unetkit.commands.tile_predict import audit, blocks, run
from unetkit.commands.tile_predict import precision as precision_
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import CheckError
from unetkit.models import build, hardware, model_file, model_header
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

TILED = {"tile": 16, "scheduler": "sync"}


def spoil(monkeypatch, number, change):
    """Let a tile be stored otherwise than it was computed, with a journal that believes it."""
    real = blocks.predict_batch

    def predict_batch(batch):
        done = real(batch)
        (job,) = batch.jobs
        if job.tile.index == number:
            tile = job.tile
            for data in (job.task.probabilities, job.task.classes):
                block = data.read(job.plane, tile.y0, tile.y1, tile.x0, tile.x1)
                data.write(job.plane, tile.y0, tile.x0, change(block))
        return done

    monkeypatch.setattr(run, "predict_batch", predict_batch)


@pytest.mark.parametrize("precision", ["exact", "float32"])
@pytest.mark.parametrize("probabilities", ["uint8", "float32"])
@pytest.mark.parametrize("options", [{}, {"tta": "flips"}])
def test_a_good_prediction_holds(slide, precision, probabilities, options):
    report = tile_predict(
        slide, **TILED, audit=3, precision=precision, probabilities=probabilities, **options
    )
    assert report.audit["windows"] == 3
    assert report.audit["pixels"] == 3 * 16 * 16
    assert report.audit["flipped_clearly"] == report.audit["differing"] == 0
    assert report.audit["largest_difference"] <= (0 if precision == "exact" else 1e-4)
    assert open_image(report.output).attributes["prediction"]["audit"] == report.audit


# Over noise bfloat16 flips nearly as many labels as are allowed.
@pytest.mark.parametrize("precision", ["exact", "float32", "float16"])
def test_a_tile_moved_by_one_pixel_is_found(slide, monkeypatch, precision):
    with monkeypatch.context() as patch:
        spoil(patch, 5, lambda block: np.roll(block, 1, axis=-1))
        with pytest.raises(CheckError, match=r"flipped|other labels .* nothing is published") as e:
            tile_predict(slide, **TILED, audit=16, precision=precision)
    assert e.value.exit_code == 7
    assert not Path("slide.prediction.zarr").exists()
    # Its checksum shows that the tile is not what was written, so going on mends it.
    report = tile_predict(slide, **TILED, audit=16, precision=precision, resume=True)
    assert report.tiles_reused == report.tiles_total - 1


def test_the_command_ends_with_7(slide, monkeypatch):
    words = ["tile-predict", slide, "--tile", "16", "--scheduler", "sync", "--audit", "16"]
    with monkeypatch.context() as patch:
        spoil(patch, 6, np.flipud)
        assert main(words) == 7
    assert main([*words, "--overwrite"]) == 0


def test_one_probability_that_differs_is_enough_in_exact(slide, monkeypatch):
    def raise_one(block):
        block = block.copy()
        if block.ndim == 3:
            block[0, 0, 0] += 1
        return block

    with monkeypatch.context() as patch:
        spoil(patch, 5, raise_one)
        tile_predict(slide, **TILED, precision="exact", output="unseen.zarr")
        with pytest.raises(CheckError, match=r"differ by up to 0\.00392"):
            tile_predict(slide, **TILED, precision="exact", audit=20)


def test_tiles_that_were_left_out_are_not_asked_about(kit, slide):
    image = np.zeros((64, 64))
    image[:32] = np.random.default_rng(0).integers(100, 9000, (32, 64))
    kit.image(Path("dark.zarr"), (64, 64))
    open_image("dark.zarr").data.write(0, 0, 0, image[None].astype("u2"))
    report = tile_predict("dark.zarr", **TILED, skip_below=50, audit=12, precision="exact")
    assert report.tiles_left_out == 8
    assert 0 < report.audit["pixels"] < 12 * 16 * 16
    assert report.audit["differing"] == report.audit["flipped"] == 0


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_every_image_of_a_dataset_tells_of_it(kit, slide, version):
    progress = kit.watching()
    source = kit.cells(Path("cells.zarr"))
    report = tile_predict(source, **TILED, audit=4, ome_version=version, progress=progress)
    for sample in open_dataset(report.output).samples:
        assert sample.image.attributes["prediction"]["audit"] == report.audit
    assert verify(report.output).chunks > 0
    assert any(note.startswith("predicted again, 0 of ") for note in progress.notes)


def test_what_is_published_is_not_audited(kit, slide):
    tile_predict(slide, **TILED)
    progress = kit.watching()
    report = tile_predict(slide, **TILED, resume=True, audit=4, progress=progress)
    assert (report.status, report.audit) == ("nothing to do", None)
    assert any("published already" in note for note in progress.notes)


def test_a_network_that_sees_the_whole_tile_is_looked_at_and_not_judged(slide, tmp_path):
    torch.manual_seed(0)
    network = build.build_model("smp-pspnet", in_channels=1, classes=2, options={}).eval()
    header = model_header.ModelHeader(
        model="smp-pspnet",
        options={},
        in_channels=1,
        class_names=("background", "foreground"),
        target="foreground",
        contract=network.contract,
        normalization="percentile",
    )
    Path("pooled.safetensors").write_bytes(model_file.to_bytes(network, header))
    for merge in ("crop", "gaussian"):
        report = tile_predict(
            slide,
            model="pooled.safetensors",
            tile=56,
            audit=1,
            precision="float32",
            merge=merge,
            probabilities="float32",
            output=f"{merge}.zarr",
        )
        if merge == "crop":
            assert report.audit["flips_allowed"] is None
            assert report.audit["largest_difference"] > 1e-5
        else:
            # The windows are the same ones the second time.
            assert report.audit["flips_allowed"] == 0
            assert report.audit["differing"] == report.audit["flipped_clearly"] == 0


def test_blended_windows_are_the_same_a_second_time(kit, slide):
    model = kit.model(Path("padded.safetensors"), depth=1, name="keras-unet")
    report = tile_predict(
        slide, **TILED, model=model, merge="gaussian", tta="flips", audit=5, precision="exact"
    )
    assert report.audit["differing"] == report.audit["flipped"] == 0


def test_the_limit_is_that_of_the_precision(slide, monkeypatch):
    monkeypatch.setattr(hardware, "low_precision", lambda device: "bfloat16")
    monkeypatch.setattr(precision_, "_flips", lambda *_, **__: 0.0)
    monkeypatch.setattr(audit, "FLIPS", 0.2)
    monkeypatch.setattr(audit, "MANY_FLIPS", 0.3)
    report = tile_predict(slide, **TILED, audit=2)
    assert report.precision == "bfloat16"
    assert report.audit["flips_allowed"] == 0.2
    assert report.audit["compared_in"] == "float32"
    report = tile_predict(slide, **TILED, audit=2, precision="bfloat16", output="chosen.zarr")
    assert report.audit["flips_allowed"] == 0.3
    monkeypatch.setattr(audit, "MANY_FLIPS", 1e-9)
    with pytest.raises(CheckError, match="other labels"):
        tile_predict(slide, **TILED, audit=16, precision="bfloat16", output="strict.zarr")


def test_chance_is_no_damage():
    looked = audit.Compared(pixels=65_536, flipped=9)
    audit._judge(looked, precision_.FLIPS, worst="here")
    with pytest.raises(CheckError, match="got 20 other labels"):
        audit._judge(replace(looked, flipped=20), precision_.FLIPS, worst="here")
    with pytest.raises(CheckError):
        audit._judge(replace(looked, flipped_clearly=1), 0, worst="here")
    audit._judge(looked, 0, worst="")


@pytest.mark.parametrize("shape", [(40, 50), (16, 90), (10, 9), (3, 20, 20)])
def test_windows_lie_across_seams(kit, slide, monkeypatch, shape):
    seen = []
    real = audit.audit_window
    monkeypatch.setattr(audit, "audit_window", lambda job: seen.append(job) or real(job))
    kit.image(Path("odd.zarr"), shape, axes="zyx"[-len(shape) :])
    report = tile_predict("odd.zarr", **TILED, audit=6, precision="exact")
    assert report.audit["differing"] == 0
    assert len(seen) == 6
    for job in seen:
        tile = job.tile
        for first, last, length in ((tile.y0, tile.y1, shape[-2]), (tile.x0, tile.x1, shape[-1])):
            assert first % 4 == 0
            assert 0 <= first < last <= length
            assert length <= 16 or first // 16 < (last - 1) // 16
    if len(shape) == 3:
        assert len({job.plane for job in seen}) > 1
