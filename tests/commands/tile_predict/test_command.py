"""What a prediction gives, what it keeps, what it refuses, and what a plan tells of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from unetkit.arrays import instances
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import InputError, MissingError, OutputError, UsageError
from unetkit.storage.images import open_image
from unetkit.storage.lock import lock_path
from unetkit.storage.outputs import partial_url

EXACT = {"precision": "exact", "probabilities": "float32"}


def test_the_test_image_has_objects_across_tiles(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors")
    source, image = kit.image(tmp_path / "slide.zarr", (67, 49), seed=67)
    share = (kit.one_pass(model, image[0])[1] >= 0.5).mean()
    assert 0.2 < share < 0.8
    report = tile_predict(source, model=model, tile=16, grow=0, **EXACT)
    assert report.objects is not None
    assert report.objects > 3


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [("local:1", {}), ("processes", {"tta": "flips", "merge": "gaussian"})],
)
def test_other_processes_give_the_same_bytes(kit, tmp_path, scheduler, options):
    models = [
        kit.model(tmp_path / f"{n}.safetensors", depth=1, seed=n, name="keras-unet") for n in (1, 2)
    ]
    source, _ = kit.image(tmp_path / "slide.zarr", (70, 50))
    here, there = str(tmp_path / "here.zarr"), str(tmp_path / "there.zarr")
    asked = {"model": models, "tile": 8, "workers": 1, **EXACT, **options}
    for output, name in ((here, "sync"), (there, scheduler)):
        tile_predict(source, output=output, scheduler=name, **asked)
    assert kit.differing(here, there) == []


def test_planes_are_predicted_one_by_one_and_ids_run_on(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors", channels=2, method="none")
    source, image = kit.image(tmp_path / "slide.zarr", (2, 2, 3, 40, 36), axes="tczyx", dtype="f4")
    report = tile_predict(source, model=model, tile=16, **EXACT)
    made = open_image(report.output)
    assert made.data.axes == "tczyx"
    assert made.channel_names == ("background", "foreground")
    highest = 0
    for plane in range(6):
        expected = kit.one_pass(model, image[plane])
        np.testing.assert_array_equal(kit.read(made.data, plane), expected)
        found = instances.instances((expected[1] >= 0.5).astype(np.uint8), "foreground")
        shifted = np.where(found > 0, found + highest, 0)
        np.testing.assert_array_equal(kit.read(made.labels["instances"], plane), shifted)
        highest += int(found.max())
    assert report.objects == highest


TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}


def test_an_existing_output_is_kept(kit, slide):
    Path("slide.prediction.zarr").mkdir()
    Path("slide.prediction.zarr", "thesis.docx").write_text("three years")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError) as caught:
            tile_predict(slide, **TILED, **options)
        assert caught.value.exit_code == 4
    assert kit.contents("slide.prediction.zarr") == {"thesis.docx": b"three years"}


def test_an_earlier_output_is_replaced_when_asked(slide):
    tile_predict(slide, **TILED)
    report = tile_predict(slide, **{**TILED, "tile": 32}, overwrite=True)
    assert open_image(report.output).attributes["prediction"]["tile"] == 32


def test_the_output_must_lie_apart_from_the_input(kit, slide):
    before = kit.contents(slide)
    for output in (slide, f"{slide}/", f"{slide}/prediction.zarr", "."):
        with pytest.raises(OutputError):
            tile_predict(slide, output=output, overwrite=True)
    assert kit.contents(slide) == before


BAD = [
    ({"tile": 18}, UsageError, "tile must be a multiple of 4 for model 'unet', got 18"),
    ({"tile": 0}, UsageError, "tile must be a multiple of 4"),
    ({"overlap": 19}, UsageError, "overlap must be at least 20 for model 'unet', got 19"),
    ({"threshold": 1.5}, UsageError, "threshold must lie between 0 and 1"),
    ({"grow": -1}, UsageError, "grow must be at least 0"),
    ({"min_size": -1}, UsageError, "min_size must be at least 0 pixels, got -1"),
    ({"audit": -1}, UsageError, "audit must be at least 0 windows, got -1"),
    ({"batch": 0}, UsageError, "batch must be at least 1 tile, got 0"),
    ({"max_memory": "much"}, UsageError, "max-memory must be an amount"),
    ({"tta": "mirror"}, UsageError, "tta must be one of none, flips, rotations, got 'mirror'"),
    ({"merge": "mean"}, UsageError, "merge must be crop or gaussian, got 'mean'"),
    (
        {"ome_version": "0.3"},
        UsageError,
        r"ome-version must be one of 0\.5, 0\.4, got '0",
    ),
    ({"resume": True, "overwrite": True}, UsageError, "resume must be given without overwrite"),
    ({"probabilities": "u2"}, UsageError, "probabilities must be uint8 or float32"),
    ({"precision": "double"}, UsageError, "precision must be one of auto"),
    (
        {"nonfinite": "skip"},
        UsageError,
        "nonfinite must be error or fill, got 'skip'; leave",
    ),
    ({"scheduler": "thread"}, UsageError, "did you mean 'threads'"),
    ({"channels": "DAPI"}, UsageError, "channels must be among"),
    ({"device": "tpu"}, UsageError, "device must be"),
    ({"model": "none.safetensors"}, MissingError, "--model"),
    ({"model": "slide.png"}, InputError, "model file must be"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD)
def test_what_can_not_be_used_leaves_nothing_behind(kit, slide, options, error, words):
    Path("slide.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    before = kit.contents(".")
    with pytest.raises(error, match=words):
        tile_predict(slide, **options)
    assert kit.contents(".") == before


def test_an_image_file_must_be_imported_first(slide):
    Path("big.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"unetkit import big.tif"):
        tile_predict("big.tif")
    with pytest.raises(MissingError, match=r"did you mean 'slide.zarr'"):
        tile_predict("slied.zarr")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(kit, slide):
    before = kit.contents(".")
    progress = kit.watching()
    report = tile_predict(slide, tile=16, overlap=21, dry_run=True, progress=progress)
    assert kit.contents(".") == before
    assert (report.status, report.tiles_total, report.tile) == ("planned", 16, 16)
    # 21 is rounded up to what holds the phase of pooling.
    assert (report.overlap, report.read) == (24, 64)
    assert report.context_share == pytest.approx(1 - 64 * 60 / (16 * 64**2))
    assert report.output_bytes >= 64 * 60 * (2 + 1 + 4)
    assert any("16 tiles of 16 pixels" in note for note in progress.notes)
    json.dumps(report.to_dict(), allow_nan=False)


def test_two_jobs_on_one_output(kit, slide):
    refused = []

    def start_another():
        for options in ({}, {"resume": True}):
            with pytest.raises(OutputError, match="must have one job at a time") as caught:
                tile_predict(slide, **TILED, **options)
            refused.append(caught.value.exit_code)
        # To look at the plan disturbs nobody, nor does a job on another output.
        tile_predict(slide, **TILED, dry_run=True)
        tile_predict(slide, **TILED, output="other.zarr")

    report = tile_predict(slide, **TILED, progress=kit.watching(at=4, act=start_another))
    assert refused == [4, 4]
    assert (report.status, report.tiles_reused) == ("done", 0)
    assert kit.differing(report.output, "other.zarr") == []


def test_a_lock_of_another_host_is_broken_when_asked(slide):
    lock = Path(lock_path(partial_url("slide.prediction.zarr")))
    lock.write_text('{"host": "elsewhere", "pid": 1, "since": "yesterday", "birth": ""}')
    with pytest.raises(OutputError, match="host elsewhere, process 1, since yesterday"):
        tile_predict(slide, **TILED)
    assert tile_predict(slide, **TILED, break_lock=True).status == "done"
    assert not lock.exists()


def test_a_plan_tells_what_the_run_then_does(slide):
    before = tile_predict(slide, **TILED, dry_run=True).to_dict()
    after = tile_predict(slide, **TILED).to_dict()
    json.dumps([before, after], allow_nan=False)
    assert (before["status"], after["status"]) == ("planned", "done")
    assert before["objects"] is None
    measured = {"status", "seconds", "objects", "disk_free", "memory_peak", "memory_limit"}
    measured |= {"expected_seconds"}
    assert [name for name in before if before[name] != after[name] and name not in measured] == []
    assert before["expected_seconds"] > 0
    assert 0 < before["memory_peak"] <= before["memory_limit"]
    assert before["disk_free"] > 0
