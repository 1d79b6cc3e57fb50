"""OME-Zarr images, datasets and plates come in as files do, with the labels of other programs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.commands.import_images.command import import_images
from unetkit.commands.measure import measure
from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_labels, update_attributes
from unetkit.storage.images import open_image
from unetkit.storage.object_classes import (
    ObjectClasses,
    read_object_classes,
    write_object_classes,
)


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


def classified(kit, url, names):
    kit.cells(url)
    for sample in open_dataset(url).samples:
        classes = ObjectClasses.of_objects([1, 2, 3], [1, 2, 2], names)
        write_object_classes(sample.labels(), classes)
        height, width = sample.labels().shape
        ignore = create_labels(
            sample.image.url, "ignore", shape=(height, width), axes="yx", dtype="u1"
        )
        ignore.write(0, 0, 0, np.tri(height, width, dtype=np.uint8))


def named(sample):
    found = read_object_classes(sample.image)
    return dict(zip(found.ids.tolist(), (found.names[n] for n in found.numbers), strict=True))


@pytest.mark.parametrize("options", [{}, {"kind": "instances+classes"}])
def test_what_stands_beside_stored_labels_comes_in_with_them(kit, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    classified(kit, "a.zarr", ("background", "round", "square"))
    report = import_images("a.zarr", "b.zarr", labels="instances", **options)
    assert report.kind == "instances+classes"
    for sample, copy in zip(*(open_dataset(u).samples for u in ("a.zarr", "b.zarr")), strict=True):
        assert named(copy) == {1: "round", 2: "square", 3: "square"}
        np.testing.assert_array_equal(np.asarray(copy.ignore), np.asarray(sample.ignore))
    again = import_images("a.zarr", "b.zarr", labels="instances", append=True)
    assert again.skipped_known == len(open_dataset("a.zarr").samples)


def test_classes_of_stored_objects_go_by_their_names(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classified(kit, "a.zarr", ("background", "round", "square"))
    import_images(
        "a.zarr", "b.zarr", labels="instances", kind="instances+classes", classes="square,round"
    )
    (first, *_) = open_dataset("b.zarr").samples
    assert named(first) == {1: "round", 2: "square", 3: "square"}
    assert read_object_classes(first.image).names == ("background", "square", "round")
    with pytest.raises(LabelError, match="of the classes square, got the class 'round'"):
        import_images(
            "a.zarr", "c.zarr", labels="instances", kind="instances+classes", classes="square"
        )
    with pytest.raises(UsageError, match="must be left out where objects have classes"):
        import_images("a.zarr", "c.zarr", labels="instances", connected_components=True)
    assert not Path("c.zarr").exists()


def test_stored_class_maps_keep_the_names_of_their_classes(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.cells("a.zarr", kind="classes")
    names = ("glass", "tissue")
    for sample in open_dataset("a.zarr").samples:
        update_attributes(f"{sample.image.url}/labels/classes", class_names=list(names))
    import_images("a.zarr", "b.zarr", labels="classes")
    assert open_dataset("b.zarr").samples[0].class_names == names
