"""One side scored: curves of class maps, reasons sample by sample, and none where maps differ."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.storage.datasets import DatasetWriter


def write(url: str, samples: dict[str, tuple[np.ndarray, np.ndarray, str]], **parts: object) -> str:
    writer = DatasetWriter(url)
    for name, (image, labels, kind) in samples.items():
        axes = "czyx"[-image.ndim :] if image.ndim != 3 else "cyx"
        writer.add(name, image, axes=axes, labels=labels, kind=kind, **parts)
    writer.finish()
    return url


@pytest.fixture
def place(tmp_path):
    return lambda name: str(tmp_path / name)


def test_a_class_map_has_a_curve_for_each_class(place):
    truth = np.repeat([0, 1, 2, 2], 4).reshape(4, 4).astype(np.uint8)
    chance = np.stack([truth == n for n in range(3)]).astype(np.uint8) * 255
    chance[2, 3, 3], chance[1, 3, 3] = 100, 155
    made = {"attributes": {"prediction": {}, "scale": 1 / 255}}
    names = ("outside", "myelin", "axon")
    prediction = write(
        place("p.zarr"), {"a": (chance, truth, "classes")}, channel_names=names, **made
    )
    wanted = write(place("t.zarr"), {"a": (truth, truth, "classes")}, class_names=names)
    report = evaluate(prediction, wanted, scheduler="sync")
    rows = {(row["name"], row["threshold"]): row for row in report.curve}
    assert len(rows) == 100
    assert rows["axon", 0.38]["recall"] == 1 > rows["axon", 0.4]["recall"] == 7 / 8
    assert rows["myelin", 0.6]["precision"] == 4 / 5 < rows["myelin", 0.62]["precision"] == 1


def test_only_maps_of_all_samples_make_a_curve(place):
    labels = np.zeros((6, 6), np.uint8)
    labels[1:3, 1:3] = 1
    one = dict.fromkeys("ab", (labels[None] * 255, labels, "instances"))
    truth = write(place("t.zarr"), one)
    named = write(place("p.zarr"), one, channel_names=("foreground",))
    assert len(evaluate(named, truth, scheduler="sync").curve) == 50
    assert evaluate(truth, truth, scheduler="sync").curve == ()


def test_a_sample_says_only_what_does_not_hold_for_all(place):
    labels = np.zeros((6, 6), np.uint8)
    labels[1:3, 1:3] = 1
    sides = {"full": labels, "empty": 0 * labels}
    url = write(place("t.zarr"), {n: (one, one, "instances") for n, one in sides.items()})
    document = evaluate(url, url, scheduler="sync").to_dict()
    assert set(document["overall"]["reasons"]) == {
        "boundary_f",
        "hausdorff95",
        "surface_distance",
        "v_rand",
        "v_info",
        "warping_error",
        "isbi_rand",
        "isbi_pixel",
    }
    reasons = {sample["name"]: sample["reasons"] for sample in document["samples"]}
    assert reasons["full"] == {}
    assert reasons["empty"]["seg"] == "it does not apply without true objects"
