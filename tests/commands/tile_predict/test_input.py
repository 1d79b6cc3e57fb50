"""A slide that was copied in part does not pass for one with empty places, nor another for it."""

import errno
import json
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unetkit.cli.app import main
from unetkit.commands.info import info
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.plan import count_missing_chunks, missing_chunks
from unetkit.errors import InputError, OutputError, ResourceError
from unetkit.storage import planes, retry
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.fixture
def torn(kit, slide):
    """Take three of the sixteen chunks from an image."""
    source, _ = kit.image(Path("torn.zarr"), (128, 120))
    for key in ("0/0", "2/1", "3/3"):
        Path(source, "0", "c", key).unlink()
    return str(source)


def test_absent_chunks_are_said_and_listed(kit, torn):
    watch = kit.watching()
    report = tile_predict(torn, **{**TILED, "tile": 64}, progress=watch)
    assert "3 of 16 input chunks are absent, read as the fill value" in watch.notes
    assert (report.input_chunks, report.input_chunks_absent) == (16, 3)
    lines = Path(report.output, ".unetkit", "absent-input.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        ["torn", key] for key in ("c/0/0", "c/2/1", "c/3/3")
    ]
    told = open_image(report.output).attributes["prediction"]
    assert (told["input_chunks"], told["input_chunks_absent"]) == (16, 3)


def test_a_complete_input_is_silent(kit, slide):
    watch = kit.watching()
    report = tile_predict(slide, **TILED, require_complete_input=True, progress=watch)
    assert (report.input_chunks, report.input_chunks_absent) == (4, 0)
    assert not any("absent" in note for note in watch.notes)
    assert not Path(report.output, ".unetkit", "absent-input.jsonl").exists()


@pytest.mark.parametrize("single", [True, False])
def test_empty_chunks_of_an_import_are_known_as_empty_and_lost_ones_are_not(
    single, kit, slide, capsys
):
    """Fluorescence has black corners, whose chunks are never stored."""
    image = np.zeros((1100, 600), np.uint8)
    image[600:, :300] = np.random.default_rng(0).integers(1, 255, (500, 300))
    Path("scans").mkdir()
    tifffile.imwrite("scans/a.tif", image)
    assert main(["import", "scans/a.tif" if single else "scans", "dark.zarr"]) == 0
    assert "empty_chunks" not in json.dumps(info("dark.zarr"))
    report = tile_predict("dark.zarr", **TILED, require_complete_input=True, dry_run=True)
    assert (report.input_chunks, report.input_chunks_absent) == (6, 0)
    place = Path("dark.zarr", *([] if single else ["a"]), "0", "c")
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*/*")) == ["1/0", "2/0"]
    (place / "1" / "0").unlink()
    words = ["tile-predict", "dark.zarr", "--require-complete-input", "--device", "cpu"]
    assert main(words) == 3
    assert "must have all of its 6 chunks, got 1 absent, such as c/1/0" in capsys.readouterr().err


def test_a_complete_input_may_be_required(kit, torn, capsys):
    before = kit.contents(".")
    words = ["tile-predict", torn, "--require-complete-input", "--device", "cpu"]
    assert main(words) == 3
    assert "must have all of its 16 chunks, got 3 absent, such as c/0/0" in capsys.readouterr().err
    assert kit.contents(".") == before
    # Without it the same command goes through.
    assert main([*words[:2], *words[3:], "--dry-run"]) == 0


def test_other_channels_than_the_model_s_are_named(kit, slide):
    kit.image(Path("rgb.zarr"), (3, 30, 30), axes="cyx")
    with pytest.raises(InputError, match=r"must have 1 channels, .* got 3; choose .*--channels"):
        tile_predict("rgb.zarr")
    report = tile_predict("rgb.zarr", channels="2", tile=16)
    assert report.status == "done"


def test_the_model_remembers_its_channels(kit, slide):
    model = kit.model(Path("third.safetensors"), chosen="2")
    _, image = kit.image(Path("rgb.zarr"), (3, 30, 30), axes="cyx")
    report = tile_predict("rgb.zarr", model=model, **TILED, probabilities="float32")
    made = kit.read(open_image(report.output).data)
    np.testing.assert_array_equal(made, kit.one_pass(model, image[0, 2:]))


def test_channels_without_names_are_said_to_be_taken_by_their_order(kit, slide):
    model = kit.model(Path("two.safetensors"), channels=2, chosen="GFP,DAPI")
    kit.image(Path("bare.zarr"), (2, 30, 30), axes="cyx")
    watching = kit.watching()
    tile_predict("bare.zarr", model=model, tile=16, progress=watching)
    assert any("taken in their order for GFP,DAPI" in note for note in watching.notes)
    with pytest.raises(InputError, match=r"got none in .*; say which are which with --channels"):
        tile_predict("bare.zarr", output="a.zarr", model=model, tile=16, strict=True)
    # Whoever says the order is believed.
    tile_predict("bare.zarr", output="b.zarr", model=model, tile=16, channels="0,1", strict=True)


def test_samples_of_one_array_count_once(kit, slide):
    import zarr

    group = zarr.create_group("stack.zarr")
    array = group.create_array("images", shape=(3, 40, 40), chunks=(1, 20, 20), dtype="u1")
    array[:2] = 7
    inventories = count_missing_chunks(open_dataset("stack.zarr").samples, complete=False)
    assert len(inventories) == 3
    assert missing_chunks(inventories) == (12, 4)


def test_a_store_that_lists_nothing_can_not_be_known_as_complete(slide):
    from dataclasses import replace

    (sample,) = open_dataset(slide).samples
    away = replace(
        sample,
        image=replace(sample.image, data=replace(sample.data, url="http://127.0.0.1:1/slide.zarr")),
    )
    assert missing_chunks(count_missing_chunks([away], complete=False)) == (None, None)
    with pytest.raises(InputError, match="must list its chunks to be known as complete"):
        count_missing_chunks([away], complete=True)


@pytest.mark.parametrize("change", ["touched", "lost", "another"])
def test_an_input_that_changed_meanwhile_is_not_gone_on_with(slide, cut_off, change):
    cut_off(slide, at=6, **TILED)
    chunk = Path(slide, "0", "c", "1", "1")
    kept, times = chunk.read_bytes(), (chunk.stat().st_atime_ns, chunk.stat().st_mtime_ns)
    if change == "touched":
        os.utime(chunk, ns=(1, 1))
    elif change == "lost":
        chunk.unlink()
    else:
        chunk.write_bytes(Path(slide, "0", "c", "0", "0").read_bytes())
    with pytest.raises(OutputError, match=r"input\.slide\.chunks\."):
        tile_predict(slide, **TILED, resume=True)
    # As it was, it is.
    chunk.write_bytes(kept)
    os.utime(chunk, ns=times)
    assert tile_predict(slide, **TILED, resume=True).tiles_reused >= 5


def test_a_disk_that_refuses_for_a_moment_changes_nothing_but_a_count(
    kit, slide, faults, monkeypatch
):
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    calm = tile_predict(slide, **TILED, output="calm.zarr")

    def disturbed():
        monkeypatch.setattr(planes, "_DECODED_SMALL", planes._DecodedChunks(0))
        plan.enter_context(faults.at("open", f"{slide}/0/c/1/1", errno.EIO, times=2))

    with ExitStack() as plan:
        # Once the image has been looked at as a whole.
        watch = kit.watching(at=1, act=disturbed)
        report = tile_predict(slide, **TILED, output="rough.zarr", progress=watch)
    assert (calm.retries, report.retries) == (0, 2)
    assert kit.differing("calm.zarr", "rough.zarr") == []


def test_a_disk_that_stays_bad_ends_with_code_5(kit, slide, faults, monkeypatch):
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    with ExitStack() as plan:
        fault = faults.at("open", f"{slide}/0/c/1/1", errno.EIO)
        watch = kit.watching(at=1, act=lambda: plan.enter_context(fault))
        # Nothing of it is known any more.
        monkeypatch.setattr(planes, "_DECODED_SMALL", planes._DecodedChunks(0))
        with pytest.raises(ResourceError, match="4 times in a row") as caught:
            tile_predict(slide, **TILED, progress=watch)
    assert caught.value.exit_code == 5
    assert tile_predict(slide, **TILED, resume=True).tiles_reused > 0
