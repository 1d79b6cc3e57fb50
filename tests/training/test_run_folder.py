import json
from pathlib import Path

import pytest

from unetkit.errors import OutputError, ResourceError, UsageError
from unetkit.training import run_folder
from unetkit.training.checkpoint import Position
from unetkit.training.run_folder import RunFolder, _belongs


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "model.safetensors")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def train(output, *, overwrite=False, keep=b"best"):
    place = RunFolder(output, inputs=[], overwrite=overwrite)
    with place:
        place.write(event="start", unetkit="1")
        if keep is not None:
            place.keep_best(keep, step=1)
        place.publish()
    return place


def fail(place, *, keep=None):
    """End a training by an error, after it kept a model or without."""

    def work():
        with place:
            place.write(event="start", unetkit="1")
            if keep is not None:
                place.keep_best(keep, step=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_the_best_model_is_published_and_the_folder_goes(output, tmp_path):
    place = RunFolder(output, inputs=[], overwrite=False)
    assert files(tmp_path) == []
    with place:
        place.write(event="start", unetkit="1")
        place.keep_best(b"first", step=1)
        place.keep_best(b"second", step=2)
        assert Path(place.best).read_bytes() == b"second"
        assert not Path(output).exists()
        place.publish()
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]
    assert Path(output).read_bytes() == b"second"


def test_the_log_is_whole_lines_of_strict_json_while_it_is_written(output):
    place = RunFolder(output, inputs=[], overwrite=False)
    with place:
        for step in range(3):
            place.write(event="step", step=step, loss=0.5)
            lines = Path(place.running_log).read_text().splitlines()
            assert [json.loads(line)["step"] for line in lines] == list(range(step + 1))
        with pytest.raises(ValueError, match="JSON"):
            place.write(loss=float("nan"))


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "step", "step": 1, "loss": Infinity}',
        "[1e999]",
        '{"',
        # What goes on after a kill between its end and its publishing ends once more.
        '{"event": "end", "steps": 5}',
    ],
)
def test_a_log_that_goes_on_keeps_only_what_a_training_writes(line):
    position = Position(step=5, validated=5)
    assert _belongs(b'{"event": "step", "step": 1, "loss": 0.5}', position)
    assert not _belongs(line.encode(), position)


def test_after_an_error_the_best_model_and_the_log_stay(output, tmp_path):
    place = RunFolder(output, inputs=[], overwrite=False)
    fail(place, keep=b"best")
    assert files(tmp_path) == ["model.train"]
    assert files(tmp_path / "model.train") == [".unetkit", "best.safetensors", "log.jsonl"]
    assert Path(place.best).read_bytes() == b"best"


def test_after_an_error_without_any_model_nothing_stays(output, tmp_path):
    place = RunFolder(output, inputs=[], overwrite=False)
    fail(place)
    assert files(tmp_path) == []


@pytest.mark.parametrize("there", ["model.safetensors", "model.log.jsonl", "model.train"])
def test_what_is_there_is_refused_and_left_alone(output, tmp_path, there):
    (tmp_path / there).write_text("three years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=there) as caught:
            RunFolder(output, inputs=[], overwrite=overwrite)
        assert caught.value.exit_code == 4
    assert files(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "three years of work"


def test_what_a_stopped_training_left_may_be_overwritten(output, tmp_path):
    place = RunFolder(output, inputs=[], overwrite=False)
    fail(place, keep=b"earlier")
    with pytest.raises(OutputError, match="--overwrite"):
        train(output)
    train(output, overwrite=True, keep=b"later")
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]
    assert Path(output).read_bytes() == b"later"


def test_what_is_overwritten_stays_until_there_is_something_better(output, tmp_path, small_model):
    finished = small_model.read_bytes()
    small_model.unlink()
    train(output, keep=finished)
    fail(RunFolder(output, inputs=[], overwrite=True), keep=b"stopped")
    earlier = Path(output).with_suffix(".log.jsonl").read_bytes()
    again = RunFolder(output, inputs=[], overwrite=True)
    fail(again)
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors", "model.train"]
    assert Path(again.best).read_bytes() == b"stopped"
    assert Path(output).read_bytes() == finished
    assert Path(again.log).read_bytes() == earlier


@pytest.mark.parametrize("had_a_model", [False, True])
def test_a_killed_training_costs_nothing_of_the_one_before(output, had_a_model):
    place = RunFolder(output, inputs=[], overwrite=False)
    fail(place, keep=b"first")
    killed = RunFolder(output, inputs=[], overwrite=True)
    killed.__enter__()
    if had_a_model:
        killed.keep_best(b"second", step=1)
    killed._stream.close()
    fail(RunFolder(output, inputs=[], overwrite=True))
    assert Path(place.best).read_bytes() == (b"second" if had_a_model else b"first")


def die(output, *, keep=None, **how):
    """Leave what a training leaves that is killed before its first state."""
    place = RunFolder(output, inputs=[], **{"overwrite": False, **how})
    place.__enter__()
    place.write(event="start", unetkit="of the dead")
    if keep is not None:
        place.keep_best(keep, step=1)
    Path(place.folder, "pictures").mkdir()
    place._stream.close()


@pytest.mark.parametrize("had_a_model", [False, True])
def test_one_that_was_killed_before_its_first_state_begins_anew(output, tmp_path, had_a_model):
    die(output, keep=b"first" if had_a_model else None)
    with pytest.raises(OutputError, match="add --resume to go on with it"):
        RunFolder(output, inputs=[], overwrite=False)
    # Killed again, and failed once: what the first had reached stays until there is more.
    die(output, resume=True)
    place = RunFolder(output, inputs=[], overwrite=False, resume=True)
    fail(place)
    assert Path(place.best).exists() == had_a_model
    again = RunFolder(output, inputs=[], overwrite=False, resume=True)
    notes = []
    assert (again.resumes, again.begins_anew, again.load(notes.append)) == (False, True, None)
    (note,) = notes
    assert note.endswith(
        "model.train was left before any state was kept: training begins at step 0."
    )
    with again:
        again.write(event="start", unetkit="1")
        assert files(tmp_path / "model.train") == [".unetkit", "log.jsonl"]
        again.keep_best(b"second", step=1)
        again.publish()
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]
    assert Path(output).read_bytes() == b"second"
    assert "dead" not in Path(again.log).read_text()


def test_the_folder_of_a_training_appears_with_its_mark(output, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder(output, inputs=[], overwrite=False).__enter__()
    assert files(tmp_path) == [".model.train.unetkit-partial"]
    train(output)
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]


@pytest.mark.parametrize("name", [None, "best.safetensors", "last.safetensors", "log.jsonl"])
def test_a_foreign_folder_is_not_begun_anew(output, tmp_path, name):
    folder = tmp_path / "model.train"
    folder.mkdir()
    if name is not None:
        (folder / name).write_text("three years of work")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match=r"model\.train must") as caught:
            RunFolder(output, inputs=[], **{"overwrite": False, **how})
        assert caught.value.exit_code == 4
    assert files(tmp_path) == ["model.train"]
    assert files(folder) == ([] if name is None else [name])


@pytest.mark.parametrize("name", ["model.pt", "cells.v2", "model.log.jsonl"])
def test_a_model_has_the_suffix_of_model_files(tmp_path, name):
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        RunFolder(str(tmp_path / name), inputs=[], overwrite=False)


def test_the_input_is_never_the_output(tmp_path):
    source = tmp_path / "data.zarr"
    source.mkdir()
    with pytest.raises(OutputError, match="apart from its input"):
        RunFolder(str(source / "model.safetensors"), inputs=[str(source)], overwrite=True)


def test_a_training_works_on_a_disk():
    with pytest.raises(UsageError, match="must be a path on this machine"):
        RunFolder("s3://bucket/model.safetensors", inputs=[], overwrite=False)


def test_a_disk_that_takes_no_folder_leaves_what_an_earlier_training_left(
    output, tmp_path, monkeypatch
):
    fail(RunFolder(output, inputs=[], overwrite=False), keep=b"earlier")

    def full(path):
        raise ResourceError(f"{path} must be writable, got: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "make_folder", full)
        with pytest.raises(ResourceError), RunFolder(output, inputs=[], overwrite=True):
            pass
    assert files(tmp_path) == ["model.train"]
    assert (tmp_path / "model.train/best.safetensors").read_bytes() == b"earlier"


def test_what_an_earlier_training_left_goes_with_the_model_at_the_latest(output, tmp_path):
    place = RunFolder(output, inputs=[], overwrite=False)
    with place:
        place.keep_best(b"best", step=1)
        # As a kill between the two leaves it.
        (tmp_path / ".model.train.unetkit-earlier").mkdir()
        place.publish()
    assert not (tmp_path / ".model.train.unetkit-earlier").exists()
