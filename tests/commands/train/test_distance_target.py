"""Distances are learned, the decision travels, and what touches is parted without being asked."""

from pathlib import Path

import numpy as np
import pytest

from unetkit.arrays.instances import elevation, foreground_of, instances, separate
from unetkit.arrays.targets import make_target
from unetkit.commands.augment.command import augment
from unetkit.commands.tile_predict import plan
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.tune import tune
from unetkit.commands.weights.command import weights
from unetkit.models.decision import Decision, default_decision
from unetkit.models.joint_header import common_header
from unetkit.models.model_file import with_decision
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.images import open_image

TARGET = "foreground+distance"
NAMES = ("background", "rim", "middle", "core")
HOW = {"scheduler": "sync", "precision": "exact"}


def touching(path, *, count=3):
    """Store images of squares in pairs that touch."""
    writer = DatasetWriter(str(path))
    for number in range(count):
        labels = np.zeros((64, 80), np.uint16)
        for place, (top, left) in enumerate(np.ndindex(3, 2)):
            y, x = 4 + 20 * top, 4 + 38 * left + number
            labels[y : y + 14, x : x + 15] = 2 * place + 1
            labels[y : y + 14, x + 15 : x + 30] = 2 * place + 2
        noise = np.random.default_rng(number).normal(0, 4, labels.shape)
        image = (100 * (labels > 0) + 50 + noise).astype(np.uint8)
        writer.add(f"a{number}", image, axes="yx", labels=labels)
    writer.finish()
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "BLOCK", 16)
    return touching("data.zarr")


def read(url, name="a0"):
    made = open_dataset(url)[name].image
    box = (0, 0, made.data.height, 0, made.data.width)
    labels = [made.labels[kind].read(*box) for kind in ("classes", "instances")]
    return made.data.read(*box), *labels


def test_a_model_of_distances_is_made_tuned_and_used(here):
    quick = {"options": ("depth=2", "width=4"), "device": "cpu", "steps": 3}
    report = train(here, output="m.safetensors", target=TARGET, **quick)
    header = read_header(report.output)
    assert (header.target, header.class_names) == (TARGET, NAMES)
    assert {"threshold", "seed_level", "seed_size"} <= header.decision.numbers.keys()
    again = tune("m.safetensors", touching("others.zarr"), output="t.safetensors")
    assert again.decision["seed_level"] is not None
    assert [row["decision"] for row in again.report] == ["fitted", "default", "before"]
    tile_predict(here, model=("m.safetensors",), output="p.zarr", **HOW)
    probabilities, classes, ids = read("p.zarr")
    own = header.decision
    assert len(probabilities) == 4
    np.testing.assert_array_equal(
        foreground_of(classes, TARGET), (255 - probabilities[0]) / 255 >= own.threshold
    )
    seeds = {"seed_level": own.seed_level, "seed_size": own.seed_size}
    parted = separate(elevation(probabilities, TARGET), foreground_of(classes, TARGET), **seeds)
    found = instances(classes, TARGET, min_size=own.min_size, distance=own.grow, parted=parted)
    np.testing.assert_array_equal(ids, found)


@pytest.fixture
def decided(here, kit):
    """Store one image, and return a model whose seeds part what it finds there."""
    here = touching("one.zarr", count=1)
    path = Path(kit.model(Path("m.safetensors"), classes=NAMES, target=TARGET))
    tile_predict(here, model=(str(path),), output="first.zarr", **HOW)
    found = elevation(read("first.zarr")[0], TARGET)
    level = float(np.quantile(found, 0.8)) / 255
    decision = Decision(threshold=0.4, min_size=2, grow=1, seed_level=level, seed_size=2)
    path.write_bytes(with_decision(path.read_bytes(), decision, path=str(path)))
    return str(path)


@pytest.mark.parametrize("stored", ["uint8", "float32"])
def test_ids_are_the_same_for_any_tiles(decided, stored):
    how = {**HOW, "model": (decided,), "probabilities": stored}
    for tile in (16, 32, 64):
        report = tile_predict("one.zarr", tile=tile, output=f"{tile}.zarr", **how)
    plain = tile_predict("one.zarr", output="plain.zarr", separate="components", **how)
    assert plain.objects < report.objects
    told = open_dataset("64.zarr")["a0"].image.attributes["prediction"]
    assert told["separate"] == "watershed"
    for tile in (16, 32):
        np.testing.assert_array_equal(read(f"{tile}.zarr")[2], read("64.zarr")[2])


def test_a_model_without_a_decision_parts_by_the_usual_one(here, kit):
    path = kit.model(Path("m.safetensors"), classes=NAMES, target=TARGET)
    usual = default_decision(TARGET, classes=4)
    tile_predict(here, model=(path,), output="p.zarr", **HOW)
    told = open_dataset("p.zarr")["a0"].image.attributes["prediction"]
    assert {name: told[name] for name in usual.numbers} == usual.numbers
    headers = [read_header(path)] * 2
    assert common_header([path] * 2, headers).decision is None


def test_stored_weights_and_those_of_copies_know_the_target(here):
    report = weights(here, target=TARGET, scheduler="sync")
    assert tuple(report.class_weight) == NAMES
    sample = open_dataset(here)["a0"]
    labels = sample.labels().read(0, 0, 64, 0, 80)
    counts = np.bincount(make_target(labels, TARGET).ravel(), minlength=4)
    # The samples are alike but for where their cells are.
    found = np.array(list(report.class_weight.values()))
    assert found * counts == pytest.approx(np.full(4, labels.size / 4))
    augment(here, "more.zarr", copies=1, scheduler="sync")
    copy = open_image("more.zarr/a0-aug001")
    assert copy.weights_attributes["made_from"] == "moved labels"
    moved = copy.labels["instances"].read(0, 0, 64, 0, 80)
    kept = copy.weights.read(0, 0, 64, 0, 80)
    target = make_target(moved, TARGET)
    # On cells the weight is the balance alone.
    np.testing.assert_allclose(kept[target > 0], found[target[target > 0]], rtol=1e-6)
