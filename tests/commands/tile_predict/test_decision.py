"""A prediction decides as its model says, unless it is asked otherwise; the output tells which."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.models.decision import Decision
from unetkit.storage.images import open_image

FITTED = Decision(threshold=0.4, min_size=6, grow=2, score=0.7, default_score=0.6, images=3)
PARTED = dataclasses.replace(FITTED, threshold=0.3, seed_level=0.5, seed_size=3)
NUMBERS = ("threshold", "min_size", "grow")
USUAL = {"threshold": 0.5, "min_size": 0, "grow": 1}


def decided(report):
    found = {name: getattr(report, name) for name in (*NUMBERS, "seed_level", "seed_size")}
    return {name: value for name, value in found.items() if value is not None}


def pixels(kit, url):
    image = open_image(url)
    return [kit.read(image.labels[name]).tobytes() for name in ("classes", "instances")]


@pytest.mark.parametrize(
    ("fitted", "asked"),
    [
        (FITTED, {}),
        (FITTED, {"threshold": 0.5}),
        (FITTED, {"grow": 0, "min_size": 0}),
        (FITTED, {"separate": "watershed", "seed_level": 0.6, "seed_size": 2}),
        (PARTED, {}),
        (PARTED, {"seed_size": 2}),
        (PARTED, {"separate": "components"}),
    ],
)
def test_the_model_decides_unless_it_is_asked_otherwise(kit, slide, fitted, asked):
    plain, own = "model.safetensors", kit.model(Path("own.safetensors"), decision=fitted)
    numbers = fitted.numbers | asked
    if numbers.pop("separate", "watershed") == "components":
        numbers = {name: numbers[name] for name in NUMBERS}
    parts = {"separate": "watershed"} if "seed_level" in numbers else {}
    progress = kit.watching()
    tile_predict(slide, model=plain, output="asked.zarr", tile=16, **numbers, **parts)
    report = tile_predict(slide, model=own, output="own.zarr", tile=16, progress=progress, **asked)
    assert decided(report) == numbers
    assert report.separate == parts.get("separate", "components")
    assert report.decision == fitted.to_dict()
    assert pixels(kit, "own.zarr") == pixels(kit, "asked.zarr")
    assert any(str(fitted) in note for note in progress.notes)
    assert any("asked for instead" in note for note in progress.notes) == bool(asked)

    told = open_image("own.zarr").attributes["prediction"]
    assert {name: told[name] for name in numbers} == numbers
    assert told["decision"] == fitted.to_dict()
    # The command makes the same from the model as it is now and as it was before.
    for model in (own, plain):
        words = shlex.split(told["command"].replace("own.safetensors", model))
        assert main([*words[1:], "-o", f"{Path(model).stem}-again.zarr"]) == 0
        assert pixels(kit, f"{Path(model).stem}-again.zarr") == pixels(kit, "own.zarr")


def test_a_model_without_a_decision_predicts_as_before(kit, slide, capsys):
    progress = kit.watching()
    report = tile_predict(slide, tile=16, progress=progress)
    assert decided(report) == USUAL
    assert report.decision is None
    assert not any("decides" in note for note in progress.notes)
    assert "decision" not in open_image(report.output).attributes["prediction"]
    command = open_image(report.output).attributes["prediction"]["command"]
    assert not any(word in command for word in ("threshold", "grow", "min-size"))


def test_plan_and_info_tell_the_decision(kit, slide, capsys):
    own = kit.model(Path("own.safetensors"), decision=FITTED)
    for line in (["tile-predict", slide, "--model", own, "--dry-run"], ["info", own]):
        assert main(line) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "threshold 0.4" in told
        assert "min size 6" in told


def test_what_several_models_decide(kit, slide):
    other = Decision(threshold=0.6, min_size=1, grow=2, score=0.5)
    one = kit.model(Path("one.safetensors"), decision=FITTED, seed=3)
    same = kit.model(Path("same.safetensors"), decision=FITTED, seed=4)
    two = kit.model(Path("two.safetensors"), decision=other, seed=5)
    report = tile_predict(slide, model=[one, same], tile=16, dry_run=True)
    assert decided(report) == FITTED.numbers
    progress = kit.watching()
    report = tile_predict(slide, model=[one, two], tile=16, dry_run=True, progress=progress)
    assert decided(report) == {"threshold": 0.5, "min_size": 3, "grow": 2}
    # A watershed parts objects where it does for all.
    parted = kit.model(Path("parted.safetensors"), decision=PARTED, seed=6)
    report = tile_predict(slide, model=[one, parted], tile=16, dry_run=True)
    assert (report.separate, report.seed_level) == ("components", None)
    assert any("were not fitted together" in note for note in progress.notes)
    report = tile_predict(slide, model=[one, two], tile=16, dry_run=True, min_size=0)
    assert decided(report)["min_size"] == 0


def test_a_decision_that_a_target_has_no_use_for_is_left_aside(kit, slide):
    names = ("background", "a", "b")
    model = kit.model(Path("own.safetensors"), classes=names, target="classes", decision=FITTED)
    assert decided(tile_predict(slide, model=model, tile=16)) == USUAL
