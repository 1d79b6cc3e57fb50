"""The job of `augment`: a copy is what the arrays' own functions make of the sample."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from unetkit.arrays.appearance import Appearance, apply_appearance
from unetkit.arrays.deformation import Deformation, deform
from unetkit.arrays.normalization import fit
from unetkit.commands.augment.copies import Copy, make_copy
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.images import open_image

MOVED = Deformation(
    grid=np.random.default_rng(0).normal(0, 5, (2, 3, 3)), angle=10.0, quarter_turns=1
)
GREY = Appearance(gain=1.2, bias=0.05, gamma=0.9, noise_sigma=0.02, noise_seed=3)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 60000, (2, 32, 48)).astype(np.uint16),
        "labels": rng.integers(0, 9, (32, 48)).astype(np.uint8),
        "ignore": rng.integers(0, 2, (32, 48)).astype(np.uint8),
        "weights": rng.random((32, 48), np.float32),
    }


@pytest.fixture
def copy(tmp_path, arrays):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    parts = dict(arrays)
    writer.add("a", parts.pop("image"), axes="cyx", **parts)
    writer.finish()
    sample = open_dataset(writer.url)["a"]
    return Copy(sample, "b", str(tmp_path / "b.zarr"), {"why": "test"}, MOVED, GREY)


def test_a_copy_is_deformed_then_changed_in_grey(copy, arrays):
    make_copy(copy)
    made = open_image(copy.url)
    moved = deform(
        arrays["image"],
        MOVED,
        labels=arrays["labels"],
        weights=arrays["weights"],
        ignore=arrays["ignore"],
    )
    normalization = fit(lambda: [arrays["image"]])
    image = apply_appearance(moved.image, GREY, normalization=normalization)
    box = (0, 0, 48, 0, 32)
    assert (made.data.read(*box) == image).all()
    assert (made.labels["instances"].read(*box) == moved.labels).all()
    assert (made.labels["ignore"].read(*box) == moved.ignore).all()
    assert (made.weights.read(*box) == moved.weights).all()
    assert made.attributes["why"] == "test"


def test_what_a_lost_worker_left_is_made_anew(copy):
    make_copy(copy)
    first = open_image(copy.url).data.read(0, 0, 48, 0, 32)
    make_copy(pickle.loads(pickle.dumps(copy)))
    assert (open_image(copy.url).data.read(0, 0, 48, 0, 32) == first).all()
