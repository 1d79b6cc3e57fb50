"""Another decision on the probabilities of a finished prediction: the bytes of a fresh one."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.tile_predict import ensemble
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import OutputError, StoppedError
from unetkit.models.decision import Decision
from unetkit.models.model_file import with_decision
from unetkit.storage import urls
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}
MADE, FRESH = "slide.prediction.zarr", "fresh.zarr"
INSIDE = ("inside", "boundary")
THREE = ("background", "interior", "boundary")
BANDS = ("background", "rim", "middle", "core")


def without_origin(document):
    """Return what a document says, and what it says of where probabilities are from."""
    found = json.loads(document)
    told = found.get("attributes", found).get("unetkit", {}).get("prediction", {})
    return found, told.pop("probabilities_from", None)


def assert_same(made=MADE, fresh=FRESH):
    """Compare with a fresh prediction; only the origin of the probabilities is told beside."""
    one, other = (
        {p.relative_to(f).as_posix(): p.read_bytes() for p in Path(f).rglob("*") if p.is_file()}
        for f in (made, fresh)
    )
    assert one.keys() == other.keys()
    told = []
    for name in one.keys() - {".unetkit/chunks.jsonl"}:
        if one[name] != other[name]:
            assert name.endswith(("zarr.json", ".zattrs"))
            (found, origin), (wanted, _) = map(without_origin, (one[name], other[name]))
            assert found == wanted
            told.append(origin)
    verify(made)
    return told


def decided_again(source, options, *, made=MADE, **changed):
    """Decide again about a finished prediction, and compare it with a fresh one."""
    ensemble._LOADED.clear()
    report = tile_predict(source, **options, **changed, output=made, overwrite=True)
    assert report.tiles_taken_over == report.tiles_total
    assert (report.tiles_reused, report.expected_seconds) == (0, 0)
    assert (report.memory_peak, report.memory_limit) == (None, None)
    assert not ensemble._LOADED, "a network was loaded"
    fresh = tile_predict(source, **options, **changed, output=FRESH)
    assert fresh.tiles_taken_over == 0
    assert report.objects == fresh.objects
    return assert_same(made)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {"threshold": 0.52}),
        ({}, {"min_size": 6}),
        ({}, {"grow": 3}),
        ({"threshold": 0.48}, {"threshold": 0.48, "grow": 0, "min_size": 3}),
        ({"tta": "flips"}, {"tta": "flips", "threshold": 0.51, "grow": 0}),
        ({"probabilities": "float32"}, {"probabilities": "float32", "threshold": 0.5001}),
        ({"ome_version": "0.4"}, {"ome_version": "0.4", "min_size": 4}),
        ({}, {"pixel_size": "250nm"}),
    ],
)
def test_another_decision_has_the_bytes_of_a_fresh_prediction(slide, options, changed):
    tile_predict(slide, **TILED, **options)
    (told,) = decided_again(slide, TILED, **changed)
    assert told["prediction"] == MADE
    assert told["command"].startswith("unetkit tile-predict slide.zarr --model model.safetensors")


@pytest.mark.parametrize("before", [None, Decision(threshold=0.5, min_size=4, grow=2)])
@pytest.mark.parametrize("scored", [None, {"scores": {"dice": 0.9}}])
@pytest.mark.parametrize("folds", [1, 2])
def test_a_decision_that_was_fitted_anew_asks_no_network(kit, slide, before, scored, folds):
    paths = [kit.model(Path(f"m{seed}.safetensors"), seed=seed) for seed in range(folds)]

    def decide(decision, held_out=None):
        for path in map(Path, paths):
            content = path.read_bytes()
            changed = with_decision(content, decision, held_out=held_out, path=str(path))
            path.write_bytes(changed)

    decide(before, scored)
    options = {**TILED, "model": paths}
    tile_predict(slide, **options)
    decide(Decision(threshold=0.52, min_size=3, grow=1), {"scores": {"dice": 0.8}})
    (told,) = decided_again(slide, options)
    assert told["prediction"] == MADE
    # The control: the same decision in other networks.
    kit.model(Path(paths[-1]), seed=7)
    decide(Decision(threshold=0.48, min_size=3, grow=1))
    progress = kit.watching()
    report = tile_predict(slide, **options, overwrite=True, progress=progress)
    assert report.tiles_taken_over == 0


def test_what_was_left_out_is_so_again(kit, slide):
    open_image(slide).data.write(0, 0, 0, np.zeros((1, 32, 32), np.uint16))
    tile_predict(slide, **TILED, skip_below=1)
    decided_again(slide, TILED, skip_below=1, threshold=0.3)
    assert len(Path(MADE, ".unetkit", "left-out.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("names", "target", "changed"),
    [
        (INSIDE, "boundary", {"threshold": 0.46}),
        (THREE, "foreground+boundary", {"grow": 2, "min_size": 3}),
        (BANDS, "foreground+distance", {"threshold": 0.7, "seed_level": 0.4, "seed_size": 2}),
        (BANDS, "foreground+distance", {"separate": "components", "grow": 0}),
        (("background", "myelin", "axon"), "classes", {"pixel_size": "1um"}),
        (("background", "myelin"), "classes", {"threshold": 0.53}),
    ],
)
def test_objects_and_classes_alike(kit, slide, names, target, changed):
    model = kit.model(Path("other.safetensors"), classes=names, target=target)
    tile_predict(slide, model=model, **TILED)
    decided_again(slide, {**TILED, "model": model}, **changed)


@pytest.mark.parametrize("source", ["long.zarr", "cells.zarr"])
def test_several_blocks_planes_and_samples(kit, slide, source):
    if source == "long.zarr":
        kit.image(Path(source), (2, 1100, 20), axes="zyx")
    else:
        kit.cells(Path(source))
    made, tiled = f"{source.removesuffix('.zarr')}.prediction.zarr", {**TILED, "tile": 64}
    tile_predict(source, **tiled)
    told = decided_again(source, tiled, made=made, threshold=0.51, min_size=4)
    assert len(told) == len(open_dataset(made).samples)


def test_what_was_decided_again_says_who_computed_it(slide):
    tile_predict(slide, **TILED)
    (first,) = decided_again(slide, TILED, threshold=0.52)
    Path(FRESH).rename("other.zarr")
    (second,) = decided_again(slide, TILED, threshold=0.48, grow=0)
    assert first == second
    assert "--threshold" not in second["command"]


def test_it_is_said_beforehand(kit, slide):
    tile_predict(slide, **TILED)
    before, progress = kit.contents(MADE), kit.watching()
    report = tile_predict(
        slide, **TILED, min_size=5, overwrite=True, dry_run=True, progress=progress
    )
    assert (report.status, report.tiles_taken_over) == ("planned", 16)
    assert progress.notes[0] == (
        "the probabilities of slide.prediction.zarr are used, 16 tiles, and only decided about "
        "again: min_size: 0 before, 5 now"
    )
    assert kit.contents(MADE) == before
    assert sorted(path.name for path in Path().glob(".*")) == []


OTHERS = [
    ({"tile": 32}, "tile: 16 before, 32 now"),
    ({"tta": "flips"}, "tta: none before, flips now"),
    ({"precision": "float32"}, "precision: exact before, float32 now"),
    ({"probabilities": "float32"}, "probabilities: uint8 before, float32 now"),
    ({"ome_version": "0.4"}, "ome_version: 0.5 before, 0.4 now"),
]


@pytest.mark.parametrize(("other", "words"), OTHERS)
def test_other_probabilities_are_predicted_anew(kit, slide, other, words):
    tile_predict(slide, **TILED)
    progress = kit.watching()
    asked = {**TILED, **other, "min_size": 3}
    report = tile_predict(slide, **asked, overwrite=True, progress=progress)
    assert report.tiles_taken_over == 0
    assert progress.notes[0].startswith("slide.prediction.zarr is predicted anew, ")
    assert words in progress.notes[0]
    tile_predict(slide, **asked, output=FRESH)
    assert kit.differing(MADE, FRESH) == []


def test_another_model_or_image_or_the_same_settings_are_predicted_anew(kit, slide):
    tile_predict(slide, **TILED)
    progress = kit.watching()
    report = tile_predict(slide, **TILED, overwrite=True, progress=progress)
    assert report.tiles_taken_over == 0
    assert not any("anew" in note for note in progress.notes)
    other = kit.model(Path("other.safetensors"), seed=3)
    report = tile_predict(slide, **TILED, model=other, grow=2, overwrite=True)
    assert report.tiles_taken_over == 0
    tile_predict(slide, **TILED, overwrite=True)
    open_image(slide).data.write(0, 0, 0, np.full((1, 32, 32), 7, np.uint16))
    report = tile_predict(slide, **TILED, grow=2, overwrite=True, progress=progress)
    assert report.tiles_taken_over == 0
    assert any("input.slide.chunks" in note for note in progress.notes)
    tile_predict(slide, **TILED, grow=2, output=FRESH)
    assert kit.differing(MADE, FRESH) == []


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


CHUNK = "0/c/0/1/2"
DAMAGE = [
    (CHUNK, flip, 1),
    (CHUNK, lambda path: path.write_bytes(b""), 1),
    (CHUNK, Path.unlink, 1),
    (CHUNK, lambda path: path.write_bytes(Path(MADE, "0/c/0/1/1").read_bytes()), 1),
    # A class map is decided again.
    ("labels/classes/0/c/1/2", flip, 0),
    # A document that gives chunks another meaning, and a list that can't be read.
    ("0/zarr.json", lambda path: path.write_text(path.read_text().replace("zstd", "gzip")), 16),
    (".unetkit/chunks.jsonl", Path.unlink, 16),
    (".unetkit/chunks.jsonl", lambda path: path.write_text("rubbish"), 16),
    ("zarr.json", lambda path: path.write_text(path.read_text().replace("tile-pre", "x")), 16),
    (".unetkit/left-out.jsonl", lambda path: path.write_text("rubbish"), 16),
    (".unetkit/fingerprint.json", lambda path: path.write_text("{}"), 16),
]


@pytest.mark.parametrize(("name", "damage", "anew"), DAMAGE)
def test_what_is_damaged_is_not_believed(kit, slide, name, damage, anew):
    tile_predict(slide, **TILED)
    damage(Path(MADE, name))
    progress = kit.watching()
    report = tile_predict(slide, **TILED, min_size=3, overwrite=True, progress=progress)
    assert report.tiles_taken_over == 16 - anew
    tile_predict(slide, **TILED, min_size=3, output=FRESH)
    assert_same()
    if anew == 1:
        assert any(note.startswith("1 tile of slide.prediction.zarr") for note in progress.notes)


@pytest.mark.parametrize("at", [1, 5, 17])
def test_one_that_was_cut_off_goes_on_to_the_same_bytes(kit, slide, cut_off, at):
    tile_predict(slide, **TILED)
    before = kit.contents(MADE)
    cut_off(slide, at=at, **TILED, threshold=0.52, overwrite=True)
    assert kit.contents(MADE) == before
    report = tile_predict(slide, **TILED, threshold=0.52, resume=True)
    assert report.tiles_reused == min(at, 16)
    assert report.tiles_taken_over == 16 - report.tiles_reused
    tile_predict(slide, **TILED, threshold=0.52, output=FRESH)
    (told,) = assert_same()
    assert told["prediction"] == MADE


def test_it_goes_on_without_what_was_there(kit, slide, cut_off):
    tile_predict(slide, **TILED)
    cut_off(slide, at=5, **TILED, threshold=0.52, overwrite=True)
    flip(Path(MADE, "0/c/0/3/3"))
    with pytest.raises(OutputError, match=r"threshold: 0\.52 before, 0\.53 now"):
        tile_predict(slide, **TILED, threshold=0.53, resume=True)
    report = tile_predict(slide, **TILED, threshold=0.52, resume=True)
    assert (report.tiles_reused, report.tiles_taken_over) == (5, 10)
    tile_predict(slide, **TILED, threshold=0.52, output=FRESH)
    assert_same()


def test_a_signal_leaves_the_finished_one(kit, slide):
    tile_predict(slide, **TILED)
    before = kit.contents(MADE)
    progress = kit.watching(at=3, act=lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError, match="give the same command with --resume"):
        tile_predict(slide, **TILED, grow=2, overwrite=True, progress=progress)
    assert kit.contents(MADE) == before
    tile_predict(slide, **TILED, grow=2, resume=True)
    tile_predict(slide, **TILED, grow=2, output=FRESH)
    assert_same()


def test_a_second_look_is_taken_at_probabilities_taken_over(slide):
    tile_predict(slide, **TILED)
    report = tile_predict(slide, **TILED, threshold=0.52, audit=4, overwrite=True)
    assert report.tiles_taken_over == 16
    assert report.audit["differing"] == report.audit["flipped"] == 0
    attributes = open_image(MADE).attributes["prediction"]
    assert attributes["audit"] == report.audit
    assert attributes["probabilities_from"]["prediction"] == MADE


def test_processes_do_it(slide):
    tile_predict(slide, **TILED)
    asked = {**TILED, "scheduler": "processes", "workers": 1, "threshold": 0.52}
    report = tile_predict(slide, **asked, overwrite=True)
    assert report.tiles_taken_over == 16
    tile_predict(slide, **TILED, threshold=0.52, output=FRESH)
    assert_same()


def test_in_a_bucket_it_is_copied(bucket, slide):
    url, options = f"{bucket}/made.zarr", {"tile": 32, "precision": "exact"}
    tile_predict(slide, **options, output=url)
    report = tile_predict(slide, **options, threshold=0.52, output=url, overwrite=True)
    assert report.tiles_taken_over == 4
    tile_predict(slide, **options, threshold=0.52, output=FRESH)
    for name in urls.files_below(url):
        if name.startswith(("0/", "labels/")):
            assert urls.read(f"{url}/{name}") == Path(FRESH, name).read_bytes()
    verify(url)
