"""The command `curve`: trainings on growing parts, kept when stopped, and one sentence of them."""

import json
import re
import signal
from pathlib import Path

import pytest

from unetkit.cli.app import main
from unetkit.commands.train import curve as module
from unetkit.commands.train.curve import curve
from unetkit.errors import InputError, OutputError, StoppedError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset

TINY = {
    "options": ["depth=1", "width=2"],
    "recipe_set": ["tile=60"],
    "device": "cpu",
    "precision": "exact",
    "workers": 0,
    "steps": 2,
    "draws": 2,
}


@pytest.fixture
def data(kit, tmp_path, monkeypatch):
    """Store five images, of which four are learned from."""
    monkeypatch.chdir(tmp_path)
    return kit.cells("data.zarr", count=5)


def test_every_part_is_trained_and_told(data):
    report = curve(data, more=8, **TINY)
    assert (report.now, report.held_out, report.unit) == (4, 1, "image")
    assert [(one.draw, one.size) for one in report.trainings] == [
        (d, n) for d in (1, 2) for n in (1, 2, 4)
    ]
    assert {one.steps for one in report.trainings} == {2}
    number = r"-?\d\.\d\d"
    assert re.fullmatch(
        rf"8 more images: [+-]\d\.\d\d \({number} to {number}\) of AP", report.sentence
    )
    assert report.gain_low <= report.gain <= report.gain_high
    told = json.loads(Path("data.curve.json").read_text())
    assert told["sentence"] == report.sentence
    page = Path("data.curve.html").read_text()
    assert report.sentence in page
    assert sorted(path.name for path in Path().iterdir()) == [
        "data.curve.html",
        "data.curve.json",
        "data.zarr",
    ]


def test_parts_hold_what_was_drawn(data, monkeypatch):
    seen = []
    train = module.train_one

    def watched(*given, parts, **told):
        seen.append(
            (
                sorted(region.sample for region in parts.train),
                [region.sample for region in parts.validation],
            )
        )
        return train(*given, parts=parts, **told)

    monkeypatch.setattr(module, "train_one", watched)
    curve(data, **TINY)
    assert len({tuple(held) for _, held in seen}) == 1
    for start in (0, 3):
        one, two, four = (set(names) for names, _ in seen[start : start + 3])
        assert one < two < four
        assert four | set(seen[0][1]) == set(open_dataset(data).names)


def test_a_stopped_run_keeps_its_trainings_and_ends_alike(data, kit):
    whole = curve(data, output="whole.html", **TINY)
    stopping = kit.watching(at=8, act=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises((StoppedError, KeyboardInterrupt)):
        curve(data, output="again.html", progress=stopping, **TINY)
    with pytest.raises(OutputError, match=r"must not have been begun.*--resume goes on"):
        curve(data, output="again.html", **TINY)
    with pytest.raises(OutputError, match="same settings to be resumed, got draws: 2 before, 3"):
        curve(data, output="again.html", resume=True, **{**TINY, "draws": 3})
    report = curve(data, output="again.html", resume=True, **TINY)
    assert report.trainings_reused >= 2
    assert report.trainings == whole.trainings
    assert report.sentence == whole.sentence
    done = curve(data, output="again.html", resume=True, **TINY)
    assert done.trainings_reused == len(done.trainings)
    assert done.trainings == whole.trainings


def test_what_is_there_is_not_replaced_unasked(data):
    Path("data.curve.html").write_text("mine")
    with pytest.raises(OutputError, match=r"data\.curve\.html must not exist yet"):
        curve(data, **TINY)
    with pytest.raises(OutputError):
        curve(data, overwrite=True, **TINY)
    assert Path("data.curve.html").read_text() == "mine"
    curve(data, output="a.html", **TINY)
    curve(data, output="a.html", overwrite=True, **{**TINY, "steps": 1})


def test_a_budget_is_shared_by_all(data, kit):
    progress = kit.watching()
    report = curve(data, time_budget="12s", progress=progress, **{**TINY, "draws": 1})
    assert any("3 trainings of 4 s each, on 1, 2, 4 images" in note for note in progress.notes)
    assert len(report.trainings) == 3


def test_too_few_images_are_refused(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.cells("few.zarr", count=3)
    with pytest.raises(InputError, match=r"at least 3 images to learn from.*got 2; annotate more"):
        curve("few.zarr", **TINY)
    kit.cells("one.zarr", count=1)
    with pytest.raises(InputError, match="hold whole images out, got a single one"):
        curve("one.zarr", **TINY)
    with pytest.raises(UsageError, match=r"output must end in \.html, got a\.png"):
        curve("few.zarr", output="a.png", **TINY)
    assert not list(Path().glob(".*curve*"))


def test_groups_are_what_is_counted(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.cells("plain.zarr", count=5)
    writer = DatasetWriter("grouped.zarr")
    for k, sample in enumerate(open_dataset("plain.zarr").samples):
        image, labels = kit.read(sample.data)[0], kit.read(sample.labels())
        writer.add(sample.name, image, axes="yx", labels=labels, group=f"mouse{k}")
    writer.finish()
    report = curve("grouped.zarr", **{**TINY, "draws": 1, "steps": 1})
    assert report.unit == "group"
    assert report.sentence.startswith("4 more groups: ")


def test_it_is_typed_and_told_as_json(data, capsys):
    words = "--steps 1 --draws 1 --set depth=1 --set width=2 --recipe-set tile=60 --device cpu"
    words += " --precision exact --workers 0 --json --more 1"
    assert main(["curve", data, *words.split()]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sentence"].startswith("1 more image: ")
    assert document["expected"][0]["size"] == 1
