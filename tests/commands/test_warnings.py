"""Whatever a command warns of stands in its JSON, its page and what it made, told or not."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.errors import StoppedError
from unetkit.models.model_file import load, to_bytes
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_image, create_labels

FOLDS = "drawn again"
TRAIN = "train data.zarr --set depth=1 --set width=2 --device cpu"
UNLABELLED = "1 of 3 samples have no labels"


@pytest.fixture
def here(kit, tmp_path, monkeypatch):
    """Work where every command has something to warn of."""
    monkeypatch.chdir(tmp_path)
    kit.cells(tmp_path / "data.zarr", unlabelled=1)
    kit.cells(tmp_path / "ours.zarr")
    kit.cells(tmp_path / "few.zarr", unlabelled=1, count=1)
    (tmp_path / "few").mkdir()
    Image.new("RGBA", (8, 8), (9, 9, 9, 255)).save(tmp_path / "few" / "a.png")
    loaded = load(kit.model(tmp_path / "model.safetensors"))
    header = replace(loaded.header, pixel_size={"y": 0.5, "x": 0.5})
    (tmp_path / "model.safetensors").write_bytes(to_bytes(loaded.module, header))
    create_image("ids.zarr", shape=(8, 8), axes="yx", dtype="u1")
    labels = create_labels("ids.zarr", "instances", shape=(8, 8), axes="yx", dtype="u4")
    labels.write(0, 0, 0, np.full((8, 8), 2**24 + 1, np.uint32))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("tile-predict ours.zarr --tile 16", "'s1': the size of its pixels is unknown"),
        ("tile-predict ours.zarr --tile 16 --dry-run", "'s0': the size of its pixels is unknown"),
        ("eval ours.zarr data.zarr --report page.html", "Left out 1 samples of the truth"),
        ("eval few.zarr few.zarr --truth few.zarr", "Left out 1 samples of the truth"),
        (
            "train data.zarr --set depth=1 --set width=2 --device cpu --steps 2 -o new.safetensors",
            UNLABELLED,
        ),
        ("weights data.zarr", UNLABELLED),
        ("augment data.zarr more.zarr --copies 3 --sigma 6", FOLDS),
        ("import few new.zarr", "dropped the alpha channel of 1 image"),
        ("import few/a.png new.zarr", "dropped the alpha channel of 1 image"),
        ("export ids.zarr", "ids as 32-bit floats"),
        ("models export model.safetensors --size 63", "size 63 becomes"),
        ("measure ids.zarr", "its lengths are in pixels"),
    ],
)
def test_json_holds_the_warnings_that_quiet_keeps_back(here, capsys, command, expected):
    assert main([*command.split(), "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert any(expected in text for text in json.loads(out)["warnings"])


def told(url, *, of=""):
    marks = open_dataset(url, mixed=True).attributes
    return (marks[of] if of else marks)["warnings"]


def test_what_was_made_keeps_them(here, kit):
    report = tile_predict("ours.zarr", tile=16)
    assert len(report.warnings) == 2
    for place in ("", "/s0", "/s1"):
        assert told(report.output + place, of="prediction") == list(report.warnings)
    for command in ("import few new.zarr", "augment data.zarr more.zarr --copies 1"):
        assert main([*command.split(), "-q"]) == 0
    Image.new("RGBA", (8, 8)).save("few/b.png")
    assert main(["import", "few", "new.zarr", "--append", "-q"]) == 0
    assert told("new.zarr") == ["dropped the alpha channel of 1 image"]
    assert any(UNLABELLED in text for text in told("more.zarr"))
    assert main(["weights", "data.zarr", "-q"]) == 0
    stored = open_dataset("data.zarr")["s0"].image.weights_attributes["warnings"]
    assert any(UNLABELLED in text for text in stored)


def contents(page):
    return json.loads(page.read_text().split('id="data">', 1)[1].split("</script>", 1)[0])


def test_an_evaluation_passes_on_what_was_warned_of_before(here, capsys):
    tile_predict("ours.zarr", tile=16, output="seen.zarr")
    assert main(["eval", "seen.zarr", "data.zarr", "--report", "page.html", "--json", "-q"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any(text.startswith("When it was predicted: Unlike") for text in warnings)
    assert contents(here / "page.html")["warnings"] == warnings


@pytest.mark.parametrize(
    ("data", "trained_on", "expected"),
    [
        ("ours.zarr", ["s0", "gone"], "has learned from 1 of the 2 images (s0): scores"),
        ("ours.zarr", ["s0", "s1"], "has learned from 2 of the 2 images (s0, s1): scores"),
        # Of another dataset, of none of them, and of what no training writes.
        ("data.zarr", ["s0"], None),
        ("ours.zarr", ["gone"], None),
        ("ours.zarr", 7, None),
    ],
)
def test_images_that_the_model_learned_from_are_told_of_in_their_scores(
    here, capsys, data, trained_on, expected
):
    loaded = load("model.safetensors")
    known = {"data": data, "trained_on": trained_on}
    header = replace(loaded.header, provenance=known)
    (here / "model.safetensors").write_bytes(to_bytes(loaded.module, header))
    assert len(open_dataset("ours.zarr").samples) == 2
    tile_predict("ours.zarr", tile=16, output="seen.zarr")
    assert main(["eval", "seen.zarr", "ours.zarr", "--json", "-q"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    told = [text for text in warnings if "has learned from" in text]
    assert len(told) == (expected is not None)
    assert all(expected in text for text in told)


def test_a_resumed_prediction_keeps_those_of_its_earlier_part(here, kit):
    pixels = np.random.default_rng(0).random((64, 60)).astype("f4")
    pixels[3, 5] = np.nan
    create_image("slide.zarr", shape=(64, 60), axes="yx", dtype="f4").write(0, 0, 0, pixels[None])
    asked = {"tile": 16, "nonfinite": "fill", "scheduler": "sync", "precision": "exact"}
    whole = tile_predict("slide.zarr", output="whole.zarr", **asked)

    def fail():
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        tile_predict("slide.zarr", **asked, progress=kit.watching(at=6, act=fail))
    report = tile_predict("slide.zarr", resume=True, **asked)
    again = tile_predict("slide.zarr", resume=True, **asked)
    assert 0 < report.tiles_reused < report.tiles_total
    assert "1 values of the input were NaN or Inf and read as 0" in report.warnings
    assert report.filled == 1
    assert told(report.output, of="prediction") == list(report.warnings)
    assert report.warnings == whole.warnings == again.warnings


class Stopping:
    """Sends SIGTERM after a few steps of a training."""

    def __init__(self):
        self.left = None

    def start(self, what, *, total):
        self.left = 3 if what == "training" else None

    def advance(self, parts=1, *, status=""):
        if self.left is not None:
            self.left -= parts
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def note(self, text): ...


def test_a_resumed_training_keeps_those_of_its_earlier_part(here, kit):
    options = {"options": ("depth=1", "width=2"), "steps": 6, "device": "cpu"}
    with pytest.raises(StoppedError):
        train("data.zarr", output="m.safetensors", **options, progress=Stopping())
    log = here / "m.train" / "log.jsonl"
    begun = log.read_text().splitlines()
    begun.insert(1, json.dumps({"event": "warning", "text": "the lamp was old"}))
    log.write_text("\n".join(begun) + "\n")
    report = train("data.zarr", output="m.safetensors", resume=True, **options)
    again = train("data.zarr", output="m.safetensors", resume=True, **options)
    assert "the lamp was old" in report.warnings
    assert any(UNLABELLED in text for text in report.warnings)
    assert set(again.warnings) == set(report.warnings)
    assert set(read_header("m.safetensors").provenance["warnings"]) == set(report.warnings)
    assert set(contents(here / "m.training.html")["warnings"]) == set(report.warnings)
