from __future__ import annotations

import json
from pathlib import Path

import pytest

from unetkit.errors import OutputError
from unetkit.training.checkpoint import Workplace


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "model.safetensors")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def train(output: str, *, overwrite: bool = False, keep: bytes | None = b"best") -> Workplace:
    place = Workplace(output, inputs=[], overwrite=overwrite)
    with place:
        place.write(event="start", unetkit="1")
        if keep is not None:
            place.keep_best(keep)
        place.publish()
    return place


def fail(place: Workplace, *, keep: bytes | None = None) -> None:
    """End a training by an error, after it kept a model or without."""

    def work() -> None:
        with place:
            place.write(event="start", unetkit="1")
            if keep is not None:
                place.keep_best(keep)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_the_best_model_is_published_and_the_folder_goes(output: str, tmp_path: Path) -> None:
    place = Workplace(output, inputs=[], overwrite=False)
    assert files(tmp_path) == []
    with place:
        place.write(event="start", unetkit="1")
        place.keep_best(b"first")
        place.keep_best(b"second")
        assert Path(place.best).read_bytes() == b"second"
        assert not Path(output).exists()
        place.publish()
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]
    assert Path(output).read_bytes() == b"second"


def test_the_log_is_whole_lines_of_strict_json_while_it_is_written(output: str) -> None:
    place = Workplace(output, inputs=[], overwrite=False)
    with place:
        for step in range(3):
            place.write(event="step", step=step, loss=0.5)
            lines = Path(place.log).read_text().splitlines()
            assert [json.loads(line)["step"] for line in lines] == list(range(step + 1))
        with pytest.raises(ValueError, match="JSON"):
            place.write(loss=float("nan"))


def test_after_an_error_the_best_model_and_the_log_stay(output: str, tmp_path: Path) -> None:
    place = Workplace(output, inputs=[], overwrite=False)
    fail(place, keep=b"best")
    assert files(tmp_path) == ["model.log.jsonl", "model.train"]
    assert Path(place.best).read_bytes() == b"best"


def test_after_an_error_without_any_model_nothing_stays(output: str, tmp_path: Path) -> None:
    place = Workplace(output, inputs=[], overwrite=False)
    fail(place)
    assert files(tmp_path) == []


@pytest.mark.parametrize("there", ["model.safetensors", "model.log.jsonl", "model.train"])
def test_what_is_there_is_refused_and_left_alone(output: str, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("three years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=there) as caught:
            Workplace(output, inputs=[], overwrite=overwrite)
        assert caught.value.exit_code == 4
    assert files(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "three years of work"


def test_what_a_stopped_training_left_may_be_overwritten(output: str, tmp_path: Path) -> None:
    place = Workplace(output, inputs=[], overwrite=False)
    fail(place, keep=b"earlier")
    with pytest.raises(OutputError, match="--overwrite"):
        train(output)
    train(output, overwrite=True, keep=b"later")
    assert files(tmp_path) == ["model.log.jsonl", "model.safetensors"]
    assert Path(output).read_bytes() == b"later"


def test_a_model_without_the_usual_suffix_has_its_log_and_folder_too(tmp_path: Path) -> None:
    place = train(str(tmp_path / "cells.v2"))
    assert files(tmp_path) == ["cells.v2", "cells.v2.log.jsonl"]
    assert place.folder.endswith("cells.v2.train")


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    source = tmp_path / "data.zarr"
    source.mkdir()
    with pytest.raises(OutputError, match="apart from its input"):
        Workplace(str(source / "model.safetensors"), inputs=[str(source)], overwrite=True)
