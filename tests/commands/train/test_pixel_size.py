"""Images of several pixel sizes, read at one."""

import numpy as np
import pytest

from unetkit.commands.train.command import train
from unetkit.engine.rescaling import at_pixel_size
from unetkit.errors import InputError, OutputError
from unetkit.models.model_file import load
from unetkit.storage.datasets import DatasetWriter, open_dataset

WANTED = {"y": 0.5, "x": 0.5}


@pytest.fixture
def mixed(tmp_path):
    """Return a dataset of the same cells at half, a quarter and one micrometre a pixel."""
    writer = DatasetWriter(str(tmp_path / "mixed.zarr"))
    labels = np.zeros((48, 52), np.uint8)
    for number, corner in enumerate(range(2, 40, 10), start=1):
        labels[corner : corner + 6, 4 : 40 - corner // 2] = number
    image = (60 + 100 * (labels > 0) + np.arange(52)).astype(np.uint8)
    sized = {
        "same": (image, labels, 0.5),
        "fine": (image.repeat(2, 0).repeat(2, 1), labels.repeat(2, 0).repeat(2, 1), 0.25),
        "coarse": (image[::2, ::2], labels[::2, ::2], 1.0),
    }
    for name, (pixels, truth, size) in sized.items():
        writer.add(
            *(name, pixels),
            axes="yx",
            labels=truth,
            ignore=truth == 1,
            weights=np.ones(truth.shape, np.float32),
            pixel_size={"y": size, "x": size},
        )
    writer.finish()
    return str(tmp_path / "mixed.zarr")


def test_images_and_labels_have_one_pixel_size(kit, mixed):
    same, fine, coarse = at_pixel_size(open_dataset(mixed), WANTED).samples
    for sample in (same, fine, coarse):
        assert sample.image.pixel_size == WANTED
        assert kit.read(sample.data).shape == (1, 48, 52)
    for read in (lambda one: one.data, lambda one: one.labels(), lambda one: one.ignore):
        np.testing.assert_array_equal(kit.read(read(fine)), kit.read(read(same)))
    assert (same.weights is None, fine.weights) == (False, None)
    stored = open_dataset(mixed)["coarse"].labels()
    twice = kit.read(stored).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(kit.read(coarse.labels()), twice)
    assert coarse.labels().read(0, 5, 9, 7, 30).tolist() == twice[5:9, 7:30].tolist()


def test_a_network_learns_from_all_at_that_size(mixed, tmp_path):
    model = str(tmp_path / "model.safetensors")
    asked = {
        **{"options": ("depth=1", "width=2"), "recipe_set": ("tile=32", "batch=1"), "steps": 2},
        **{"device": "cpu", "precision": "exact", "workers": 0, "output": model},
    }
    report = train(mixed, **asked, pixel_size="0.5", keep_state=True)
    assert load(model).header.pixel_size == WANTED
    assert report.trained_on + report.validated_on == 3
    with pytest.raises(OutputError, match="input"):
        train(mixed, **{**asked, "pixel_size": "0.4"}, resume=True)


@pytest.mark.parametrize(("size", "words"), [(None, "must have a pixel size"), (90.0, "1/64 to 8")])
def test_a_size_that_is_unknown_or_wrong_is_refused(kit, tmp_path, size, words):
    sizes = {} if size is None else {"pixel_size": {"y": size, "x": size}}
    kit.cells(tmp_path / "cells.zarr", **sizes)
    with pytest.raises(InputError, match=words):
        at_pixel_size(open_dataset(str(tmp_path / "cells.zarr")), WANTED)
