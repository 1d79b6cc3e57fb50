"""Whatever interrupts it: the same bytes as one run."""

import json
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import OutputError
from unetkit.storage.atomic import MANY
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image
from unetkit.storage.outputs import partial_url

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.fixture
def partial(slide, cut_off):
    """Return the partial of a run that was cut off after six of its sixteen tiles."""
    progress = cut_off(slide, at=6, **TILED)
    assert not Path("slide.prediction.zarr").exists()
    assert any("--resume" in note for note in progress.notes)
    return partial_url("slide.prediction.zarr")


def test_resuming_after_the_tiles_gives_the_same_bytes(kit, slide, monkeypatch):
    def fail(*_, **__):
        raise OSError("power cut")

    # Before objects are numbered, before they are listed, after that, and when everything but the
    # last list is there.
    places = ("instances.number_objects", "run.list_new_labels", "output.add_pyramid")
    for place in (*places, "output.write_list"):
        with monkeypatch.context() as patch:
            patch.setattr(f"unetkit.commands.tile_predict.{place}", fail)
            with pytest.raises(OSError, match="power cut"):
                tile_predict(slide, **TILED, resume=True)
    report = tile_predict(slide, **TILED, resume=True)
    assert report.tiles_reused == 16
    tile_predict(slide, **TILED, output="whole.prediction.zarr")
    assert kit.differing("slide.prediction.zarr", "whole.prediction.zarr") == []


def test_many_small_images_are_those_that_are_predicted_alone(kit, slide, cut_off, monkeypatch):
    def fail(*_, **__):
        raise OSError("power cut")

    # More than are waited for one by one.
    writer, count = DatasetWriter("many.zarr"), MANY + 1
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 999, (20, 24), np.uint16)
        writer.add(f"a{number}", noise, axes="yx")
    writer.finish()
    cut_off("many.zarr", at=5, **TILED)
    with monkeypatch.context() as patch:
        patch.setattr("unetkit.commands.tile_predict.run.list_new_labels", fail)
        with pytest.raises(OSError, match="power cut"):
            tile_predict("many.zarr", **TILED, resume=True)
    report = tile_predict("many.zarr", **TILED, resume=True)
    assert report.tiles_reused == report.tiles_total
    tile_predict("many.zarr", **TILED | {"scheduler": "threads"}, output="whole.zarr")
    assert kit.differing("many.prediction.zarr", "whole.zarr") == []
    alone = tile_predict(f"many.zarr/a{count - 1}", **TILED, output="alone.zarr")
    found = open_image(f"whole.zarr/a{count - 1}").labels["instances"]
    wanted = open_image("alone.zarr").labels["instances"]
    assert np.array_equal(np.asarray(found), np.asarray(wanted))
    assert np.asarray(wanted).max() == alone.objects > 0


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_tile_is_done_again(kit, slide, partial, damage):
    chunk = Path(partial, "0", "c", "0", "0", "2")
    if damage is None:
        chunk.unlink()
    else:
        chunk.write_bytes(damage)
    report = tile_predict(slide, **TILED, resume=True)
    assert report.tiles_reused == 5
    tile_predict(slide, **TILED, output="whole.prediction.zarr")
    assert kit.differing("slide.prediction.zarr", "whole.prediction.zarr") == []


@pytest.mark.parametrize("lost", ["labels/zarr.json", "zarr.json"])
def test_what_an_earlier_run_made_and_is_lost_is_not_made_anew(kit, slide, partial, lost):
    fingerprint = Path(partial, ".unetkit", "fingerprint.json")
    # As an earlier version left it, which kept no checksums of documents.
    known = json.loads(fingerprint.read_text())
    for name in ("checksum", "documents"):
        known.pop(name)
    fingerprint.write_text(json.dumps(known))
    Path(partial, lost).unlink()
    before = kit.contents(partial)
    with pytest.raises(OutputError, match="bring it back, or start afresh with --overwrite"):
        tile_predict(slide, **TILED, resume=True)
    assert kit.contents(partial) == before


def test_a_list_that_names_no_classes_loses_none(kit, slide, partial):
    listing = Path(partial, "labels", "zarr.json")
    listing.write_text(listing.read_text().replace('"classes"', ""))
    before = kit.contents(partial)
    with pytest.raises(OutputError, match="labels must hold and list"):
        tile_predict(slide, **TILED, resume=True)
    assert kit.contents(partial) == before


def test_resuming_what_is_finished_does_nothing(kit, slide):
    tile_predict(slide, **TILED)
    before = kit.contents("slide.prediction.zarr")
    report = tile_predict(slide, **TILED, resume=True)
    assert (report.status, report.tiles_reused) == ("nothing to do", 16)
    assert kit.contents("slide.prediction.zarr") == before
    assert report.to_dict()["classes"] == ["background", "foreground"]


def test_resuming_nothing_starts_afresh(slide):
    report = tile_predict(slide, **TILED, resume=True)
    assert (report.status, report.tiles_reused) == ("done", 0)


@pytest.mark.usefixtures("partial")
def test_automatic_choices_are_taken_over_and_give_the_bytes_of_one_run(kit, slide):
    report = tile_predict(slide, resume=True, scheduler="sync")
    assert (report.tile, report.precision) == (16, "exact")
    assert (report.tiles_total, report.tiles_reused) == (16, 6)
    tile_predict(slide, **TILED, output="whole.prediction.zarr")
    assert kit.differing("slide.prediction.zarr", "whole.prediction.zarr") == []


@pytest.mark.parametrize("stored", [{"tile": 7}, {"batch": -1}, {"precision": "half"}])
def test_choices_that_no_run_can_have_made_are_not_taken_over(slide, partial, stored):
    place = Path(partial, ".unetkit", "fingerprint.json")
    older = {k: v for k, v in json.loads(place.read_text()).items() if k != "checksum"}
    place.write_text(json.dumps(older | stored))
    with pytest.raises(OutputError, match=f"{next(iter(stored))}: .* before"):
        tile_predict(slide, resume=True, scheduler="sync")


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_not_mixed(kit, slide, cut_off, finished):
    if finished:
        tile_predict(slide, **TILED)
    else:
        cut_off(slide, at=6, **TILED)
    with pytest.raises(OutputError, match="tile: 16 before, 32 now"):
        tile_predict(slide, **{**TILED, "tile": 32}, resume=True)
    with pytest.raises(OutputError, match=r"threshold: 0.5 before, 0.4 now"):
        tile_predict(slide, **TILED, threshold=0.4, resume=True)
    other = kit.model(Path("other.safetensors"), seed=3)
    with pytest.raises(OutputError, match=r"model: .* before"):
        tile_predict(slide, model=other, **TILED, resume=True)
    create_image("new.zarr", shape=(64, 60), axes="yx", dtype="u2").write(
        0, 0, 0, np.eye(64, 60, dtype=np.uint16)[None]
    )
    Path(slide).rename("old.zarr")
    Path("new.zarr").rename(slide)
    with pytest.raises(OutputError, match="normalization"):
        tile_predict(slide, **TILED, resume=True)


@pytest.mark.usefixtures("partial")
def test_without_resume_an_unfinished_run_is_neither_mixed_nor_lost(slide):
    with pytest.raises(OutputError, match="--resume goes on with them, --overwrite starts afresh"):
        tile_predict(slide, **TILED)
    assert tile_predict(slide, **TILED, resume=True).tiles_reused > 0


@pytest.mark.usefixtures("partial")
def test_overwrite_starts_an_unfinished_run_afresh(kit, slide):
    progress = kit.watching()
    report = tile_predict(slide, **TILED, overwrite=True, progress=progress)
    assert report.tiles_reused == 0
    assert any("afresh" in note for note in progress.notes)
