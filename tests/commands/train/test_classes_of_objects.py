"""Objects of several classes are learned together, and predicted as such."""

import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.train.initial_weights import open_start, target_of
from unetkit.commands.train.plan import choose_task
from unetkit.errors import InputError
from unetkit.models.model_header import read_header
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset
from unetkit.storage.object_classes import ObjectClasses, write_object_classes

NAMES = ("background", "round", "square")


def classify(url, names=NAMES, samples=None):
    """Give every other object of each sample the second class."""
    for sample in open_dataset(url).samples[:samples]:
        data = sample.labels()
        ids = np.unique(data.read(0, 0, data.height, 0, data.width))[1:]
        classes = ObjectClasses.of_objects(ids, ids % 2 + 1, names)
        write_object_classes(data, classes)
    return url


def test_objects_with_classes_are_learned_with_them(kit, tmp_path):
    url = classify(kit.cells(tmp_path / "data.zarr"))
    task = choose_task(open_dataset(url), None, SILENT)
    assert task.target == "classes+boundary"
    assert task.class_names == ("background", "boundary", "round", "square")
    # Four and five objects of 8 x 9 pixels in each of two samples, without their rims of 30.
    inside = np.sum(task.counts, axis=0)[2:]
    assert inside.tolist() == [8 * 42, 10 * 42]
    assert choose_task(open_dataset(url), "foreground", SILENT).class_names[1] == "foreground"


@pytest.mark.parametrize("samples", [0, 1])
def test_objects_without_classes_can_not_be_learned_with_them(kit, tmp_path, samples):
    url = kit.cells(tmp_path / "data.zarr")
    classify(url, samples=samples)
    with pytest.raises(
        InputError, match=r"must have classes, the same in all samples, got .* none"
    ):
        choose_task(open_dataset(url), "classes+boundary", SILENT)


def test_a_model_of_objects_of_two_classes_is_made_and_used(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = classify(kit.cells("data.zarr", count=3))
    report = train(
        url, output="m.safetensors", steps=3, options=("depth=2", "width=4"), device="cpu"
    )
    header = read_header(report.output)
    assert header.target == "classes+boundary"
    assert header.class_names == ("background", "boundary", "round", "square")
    assert "average_precision" in report.scores
    tile_predict(url, model=("m.safetensors",), output="p.zarr", scheduler="sync")
    found = evaluate("p.zarr", url, scheduler="sync").overall
    assert [one.name for one in found.object_classes] == ["round", "square"]
    assert [one.objects_true for one in found.object_classes] == [12, 15]


@pytest.mark.parametrize("target", ["foreground+boundary", "classes+boundary"])
def test_a_model_that_comes_first_takes_and_gives_no_classes(kit, tmp_path, target):
    between = ("interior", "boundary") if target == "foreground+boundary" else ("boundary", "round")
    names = ("background", *between)
    start = open_start(kit.model(tmp_path / "m.safetensors", classes=names, target=target))
    bare = open_dataset(kit.cells(tmp_path / "bare.zarr"))
    classed = open_dataset(classify(kit.cells(tmp_path / "classed.zarr")))
    targets = [choose_task(data, target_of(start, data), SILENT).target for data in (bare, classed)]
    expected = target if target == "foreground+boundary" else "foreground"
    assert targets == [expected, "classes+boundary"]
