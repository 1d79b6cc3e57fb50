"""A decision is fitted to labelled images, goes into the model file alone, and is used."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import safetensors.numpy
from scipy import ndimage

from unetkit.cli.app import main
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.info import info
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.tune import tune
from unetkit.errors import UsageError
from unetkit.models.decision import Decision
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import DatasetWriter, open_dataset


def specked(path, *, count=3, seed=0):
    """Store discs on noise whose peaks look like specks of a cell."""
    writer = DatasetWriter(str(path))
    size = {"y": 0.5, "x": 0.5}
    y, x = np.mgrid[:90, :96]
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        truth = np.zeros((90, 96), np.uint8)
        for number, (top, left) in enumerate(np.ndindex(5, 5), start=1):
            middle = 9 + 18 * top, 10 + 18 * left
            truth[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < rng.integers(20, 50)] = number
        image = 150 * ndimage.gaussian_filter((truth > 0).astype(float), 1)
        image += 60 * np.abs(ndimage.gaussian_filter(rng.normal(size=image.shape), 0.6))
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        writer.add(f"s{k}", pixels, axes="yx", labels=truth, pixel_size=size)
    writer.finish()
    return str(path)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a folder with data.zarr, other.zarr and what was learned from the first in seconds."""
    folder = tmp_path_factory.mktemp("learned")
    specked(folder / "data.zarr", count=4)
    specked(folder / "other.zarr", seed=1)
    report = train(
        str(folder / "data.zarr"),
        output=str(folder / "model.safetensors"),
        options=("depth=1", "width=4"),
        steps=40,
        device="cpu",
        precision="float32",
    )
    return folder, report


@pytest.fixture
def here(learned, tmp_path, monkeypatch):
    for name in ("model.safetensors", "model.log.jsonl", "model.training.html"):
        shutil.copy(learned[0] / name, tmp_path)
    for name in ("data.zarr", "other.zarr"):
        shutil.copytree(learned[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return learned[1]


def test_training_fits_what_tile_predict_uses_and_the_page_shows(here):
    header = read_header("model.safetensors")
    decision = header.decision
    assert here.decision == decision.to_dict()
    assert decision.models == (header.checksum,)
    assert (decision.images, decision.objects) == (1, 25)
    scored = header.provenance["held_out"]
    assert scored["scores"]["average_precision"] == decision.score
    assert scored["reason"] == "intervals need 5 images or more, got 1"
    card = info("model.safetensors", card=True)["card"]
    assert f"| average precision | {decision.score:.3f} | - |" in card
    assert "Of 1 image with 25 objects of `data.zarr`, to which the decision was fitted. No" in card
    end = json.loads(Path("model.log.jsonl").read_text().splitlines()[-1])
    assert {key: end["decision"][key] for key in decision.to_dict()} == decision.to_dict()
    page = Path("model.training.html").read_text()
    assert decision.sentence("AP") in page
    assert '"curve"' in page
    # The scores of the decision are those of a prediction.
    for numbers, score in (
        ({}, decision.score),
        ({"threshold": 0.5, "min_size": 0, "grow": 1}, decision.default_score),
    ):
        told = tile_predict("data.zarr", overwrite=True, precision="float32", **numbers)
        held_out = header.provenance["validated_on"]
        found = evaluate(told.output, "data.zarr", bootstrap=0).to_dict()["samples"]
        (row,) = [each for each in found if each["name"] in held_out]
        assert row["average_precision"] == pytest.approx(score, abs=2e-3)


def test_tuning_changes_the_decision_alone(here, kit, capsys):
    before = safetensors.numpy.load_file("model.safetensors")
    old = read_header("model.safetensors")
    assert main(["tune", "model.safetensors", "other.zarr", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    header = read_header("model.safetensors")
    assert told["decision"] == header.decision.to_dict()
    assert header.decision.images == 3
    scored = header.provenance["held_out"]
    assert scored != old.provenance["held_out"]
    kept = {**header.provenance, "held_out": old.provenance["held_out"]}
    assert dataclasses.replace(header, decision=old.decision, provenance=kept) == old
    assert (scored["data"], scored["images"]) == ("other.zarr", 3)
    assert scored["scores"]["average_precision"] == header.decision.score
    assert scored["reason"] == "intervals need 5 images or more, got 3"
    assert header.network_hash == old.network_hash
    after = safetensors.numpy.load_file("model.safetensors")
    assert {name: value.tobytes() for name, value in after.items()} == {
        name: value.tobytes() for name, value in before.items()
    }
    assert [row["decision"] for row in told["report"]] == ["fitted", "default", "before"]
    assert told["report"][0]["score"] >= told["report"][1]["score"]
    # The default's score is that of a prediction with the usual numbers.
    tile_predict("other.zarr", threshold=0.5, min_size=0, grow=1, precision="float32")
    found = evaluate("other.prediction.zarr", "other.zarr", bootstrap=0).to_dict()["overall"]
    assert told["report"][1]["score"] == pytest.approx(found["average_precision"], abs=2e-3)
    tile_predict("other.zarr", overwrite=True, precision="float32")
    found = evaluate("other.prediction.zarr", "other.zarr", bootstrap=0).to_dict()["overall"]
    assert told["report"][0]["score"] == pytest.approx(found["average_precision"], abs=2e-3)


def test_scales_are_scored_as_their_predictions_are(here, capsys):
    assert main(["tune", "model.safetensors", "other.zarr", "--scales", "0.75,0.5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["scales"]
    assert [(row["scale"], row["pixels"]) for row in rows] == [(1, 1), (0.75, 0.5625), (0.5, 0.25)]
    for row in rows:
        told = {} if row["scale"] == 1 else {"scale": row["scale"]}
        tile_predict("other.zarr", overwrite=True, precision="float32", **told)
        found = evaluate("other.prediction.zarr", "other.zarr", bootstrap=0).to_dict()["overall"]
        assert row["score"] == pytest.approx(found["average_precision"], abs=2e-3)
    assert rows[0]["score"] > rows[2]["score"]
    assert main(["tune", "model.safetensors", "other.zarr", "--scales", "0.5,9"]) == 2
    assert "scales must lie between 1/64 and 8, got 0.5,9" in capsys.readouterr().err


def test_images_of_another_pixel_size_are_judged_as_tile_predict_reads_them(here, kit):
    """Every pixel is there four times, so that the model's size has the pixels that were there."""
    writer = DatasetWriter("twice.zarr")
    for sample in open_dataset("other.zarr").samples:
        pixels, truth = (
            array.read(0, 0, 90, 0, 96).reshape(90, 96).repeat(2, 0).repeat(2, 1)
            for array in (sample.data, sample.labels())
        )
        size = {"y": 0.25, "x": 0.25}
        writer.add(sample.name, pixels, axes="yx", labels=truth, pixel_size=size)
    writer.finish()
    expected = tune("model.safetensors", "other.zarr", output="a.safetensors")
    progress = kit.watching()
    places = ("model.safetensors", "twice.zarr")
    found = tune(*places, output="b.safetensors", scales="0.5", progress=progress)
    assert found.decision == expected.decision
    assert any("3 of 3 images have another pixel size" in note for note in progress.notes)
    # A scale is that of the image's own size: at half of it the model sees what was judged.
    own, half = found.scales
    assert (own["scale"], half["scale"]) == (1, 0.5)
    assert half["score"] == pytest.approx(found.decision["score"], abs=2e-3)
    assert own["score"] < half["score"]


def test_images_that_were_learned_from_are_left_out(here, kit):
    progress = kit.watching()
    report = tune("model.safetensors", "data.zarr", output="new.safetensors", progress=progress)
    assert report.decision["images"] == 1
    assert any("Left out 3 images" in note for note in progress.notes)
    assert report.output == "new.safetensors"
    assert main(["tune", "model.safetensors", "data.zarr", "-o", "new.safetensors"]) == 4
    assert main(["tune", "model.safetensors", "data.zarr", "-o", "new.txt"]) == 2


def test_several_models_are_decided_together(here, kit):
    for number in (1, 2):
        shutil.copy("model.safetensors", f"pair.fold{number}.safetensors")
    kit.model(Path("pair.fold2.safetensors"), decision=Decision(threshold=0.7, min_size=0, grow=1))
    report = tune("pair.safetensors", "other.zarr")
    assert report.outputs == ("pair.fold1.safetensors", "pair.fold2.safetensors")
    headers = [read_header(path) for path in report.outputs]
    assert headers[0].decision == headers[1].decision
    assert headers[0].decision.models == tuple(header.checksum for header in headers)
    told = tile_predict("other.zarr", model="pair.safetensors", dry_run=True)
    assert told.decision == report.decision


@pytest.mark.parametrize(
    ("classes", "target", "words", "code"),
    [
        (("a", "b", "c"), "classes", "nothing to decide", 2),
        (("a", "b"), "classes", "must be classes", 3),
    ],
)
def test_what_can_not_be_tuned_is_refused(here, kit, capsys, classes, target, words, code):
    model = kit.model(Path("other.safetensors"), classes=classes, target=target)
    before = Path(model).read_bytes()
    assert main(["tune", model, "data.zarr"]) == code
    assert words in capsys.readouterr().err
    assert main(["tune", model]) == 2
    assert Path(model).read_bytes() == before


def test_folds_are_decided_together(here, kit):
    progress = kit.watching()
    folded = partial(
        train,
        "data.zarr",
        output="pair.safetensors",
        options=("depth=1", "width=2"),
        steps=2,
        folds=2,
        device="cpu",
        precision="float32",
    )
    report = folded(progress=progress)
    headers = [read_header(path) for path in report.outputs]
    assert headers[0].decision == headers[1].decision
    assert headers[0].decision.images == 4
    assert report.decision == headers[0].decision.to_dict()
    assert headers[0].decision.models == tuple(header.checksum for header in headers)
    assert any(note.startswith("All folds together: Decides") for note in progress.notes)
    contents = [Path(path).read_bytes() for path in report.outputs]
    again = folded(resume=True)
    assert again.decision == report.decision
    assert [Path(path).read_bytes() for path in report.outputs] == contents


def test_a_package_is_tuned_into_a_model_file_and_stays_whole(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, path = kit.cells("data.zarr"), kit.model(Path("m.safetensors"))
    with ZipFile("m.zip", "w") as packed:
        packed.write(path, "model.safetensors")
    before = Path("m.zip").read_bytes()
    with pytest.raises(UsageError, match=r"got m\.zip to be changed; name an output"):
        tune("m.zip", data, device="cpu")
    assert Path("m.zip").read_bytes() == before
    tune("m.zip", data, output="tuned.safetensors", device="cpu")
    assert Path("m.zip").read_bytes() == before
    assert read_header("tuned.safetensors").decision is not None
