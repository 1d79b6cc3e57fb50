import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.commands.demo import command as command_
from unetkit.commands.demo import command as module
from unetkit.commands.demo.command import demo
from unetkit.errors import OutputError, StoppedError, UsageError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image
from unetkit.storage.readers import open_file


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Walk the demo once with a network too small to learn anything."""
    folder = tmp_path_factory.mktemp("walked") / "my demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_, "STEPS", 2)
        patch.setattr(command_, "MODEL_OPTIONS", ("depth=2", "width=2"))
        return demo(str(folder))


def test_the_threshold_is_as_good_as_it_can_be(walked):
    otsu = walked.scores[1]
    assert otsu.method == "otsu"
    assert otsu.average_precision_50 == 0.5
    assert (otsu.objects, otsu.matched, otsu.objects_true) == (24, 18, 30)


def test_nothing_of_the_scored_part_is_learnt_from(walked):
    slide = open_file(f"{walked.output}/slide.png").load()
    trained = open_dataset(f"{walked.output}/training.zarr").samples
    (scored,) = open_dataset(f"{walked.output}/truth.zarr").samples
    assert [sample.data.width for sample in trained] == [384]
    np.testing.assert_array_equal(trained[0].data.read(0, 0, 512, 0, 384)[0], slide[:, :384])
    np.testing.assert_array_equal(scored.data.read(0, 0, 512, 0, 128)[0], slide[:, 384:])


def test_the_slide_is_predicted_in_more_than_one_tile(walked):
    prediction = open_image(f"{walked.output}/slide.prediction.zarr")
    assert (prediction.data.height, prediction.data.width) == (512, 512)
    assert module.TILE < 512
    assert "instances" in prediction.labels


def test_the_pictures_are_there(walked):
    assert len(walked.pictures) == 3
    for path in walked.pictures:
        assert Path(path).read_bytes().startswith(b"\x89PNG")


def test_the_report_is_json_and_kept(walked):
    kept = json.loads(Path(walked.output, "demo.json").read_text())
    assert kept == {"unetkit": walked.to_dict()}


def test_what_to_run_next_runs(walked, capsys):
    ours = [command for command in walked.commands if "my demo" in command]
    assert len(ours) >= 2
    for command in ours:
        name, *arguments = shlex.split(command)
        assert name == "unetkit"
        assert main(arguments) == 0
    assert "average precision" in capsys.readouterr().out


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    foreign = tmp_path / "unetkit-demo"
    (foreign / "images").mkdir(parents=True)
    (foreign / "images" / "mine.png").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="must"):
            demo(str(foreign), overwrite=overwrite)
    assert (foreign / "images" / "mine.png").read_bytes() == b"mine"


def test_overwriting_replaces_what_the_demo_wrote_and_nothing_else(tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    def stop(*arguments, **options):
        raise StopError

    monkeypatch.setattr(command_, "train", stop)
    folder = tmp_path / "cut short"
    with pytest.raises(StopError):
        demo(str(folder))
    (folder / "notes.txt").write_text("mine")
    (folder / "slide.png").write_text("spoilt")
    with pytest.raises(OutputError, match="--overwrite"):
        demo(str(folder))
    with pytest.raises(StopError):
        demo(str(folder), overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert open_file(str(folder / "slide.png")).shape == (512, 512)


def test_after_a_stop_the_demo_says_how_it_begins_anew(tmp_path, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise StoppedError("give the same command with --resume", signal=2)

    with monkeypatch.context() as patched:
        patched.setattr(command_, "train", stop)
        assert main(["demo", str(tmp_path / "my demo"), "-q"]) == 130
    (advice,) = re.findall("'unetkit (.*)' begins anew", capsys.readouterr().err)
    monkeypatch.setattr(command_, "_walk", stop)
    assert main([*shlex.split(advice), "-q"]) == 130


def test_a_url_is_no_folder():
    with pytest.raises(UsageError, match="local path"):
        demo("s3://bucket/demo")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learning_beats_the_threshold(tmp_path, seed):
    learnt, otsu = demo(str(tmp_path / "demo"), seed=seed).scores
    assert learnt.average_precision_50 is not None
    assert otsu.average_precision_50 is not None
    assert learnt.average_precision_50 > otsu.average_precision_50
    assert abs(learnt.objects - 30) < abs(otsu.objects - 30)
