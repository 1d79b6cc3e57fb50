"""OME-Zarr images, datasets and plates come in as files do, with the labels of other programs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.commands.import_images.command import import_images
from unetkit.commands.measure import measure
from unetkit.errors import InputError, OutputError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_with_labels_becomes_a_dataset(kit, tmp_path, monkeypatch, version):
    monkeypatch.chdir(tmp_path)
    url = kit.plate("plate.zarr", fields=2, version=version, labels="nuclei")
    report = import_images(url, "data.zarr", labels="nuclei")
    assert (report.samples, report.labelled, report.kind) == (8, 8, "instances")
    theirs, ours = open_dataset(url, labels="nuclei"), open_dataset("data.zarr")
    assert ours.kind == "dataset"
    for one, other in zip(theirs.samples, ours.samples, strict=True):
        assert (one.name, one.source, one.position) == (other.name, other.source, other.position)
        assert other.image.pixel_size == {"y": 0.5, "x": 0.5}
        np.testing.assert_array_equal(kit.read(one.data), kit.read(other.data))
        np.testing.assert_array_equal(kit.read(one.labels()), kit.read(other.labels()))
    table = measure("data.zarr").output
    with Path(table).open(newline="") as stream:
        assert {row["row"] + row["column"] for row in csv.DictReader(stream)} == {
            *("A1", "A2", "B1", "B2")
        }


def test_labels_that_are_classes_are_said_to_be(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = kit.plate("plate.zarr", rows="A", columns="1", labels="tissue")
    report = import_images(url, "data.zarr", labels="tissue=classes", classes="no,one,two")
    assert (report.kind, report.class_names) == ("classes", ("no", "one", "two"))
    with pytest.raises(InputError, match=r"got 'nuclei'; it has 'tissue'"):
        import_images(url, "other.zarr", labels="nuclei")
    with pytest.raises(OutputError, match="must lie apart from its input"):
        import_images(url, f"{url}/A/1/data.zarr", labels="tissue")


def test_an_image_alone_stays_one_and_a_dataset_is_added_to(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.image(Path("image.zarr"), (2, 40, 44), axes="cyx")
    assert import_images("image.zarr", "copy.zarr", channels="1").made == "image"
    theirs, ours = open_image("image.zarr", channels="1"), open_image("copy.zarr")
    np.testing.assert_array_equal(kit.read(theirs.data), kit.read(ours.data))
    kit.cells("cells.zarr")
    assert main(["import", "cells.zarr", "data.zarr", "--labels", "instances", "-q"]) == 0
    kit.plate("plate.zarr", rows="A", columns="1", labels="nuclei")
    report = import_images("plate.zarr", "data.zarr", labels="nuclei", append=True)
    assert report.samples == 1
    assert open_dataset("data.zarr").names == ("s0", "s1", "A-1-0")
