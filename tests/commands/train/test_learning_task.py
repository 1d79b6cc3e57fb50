import numpy as np
import pytest

from unetkit.arrays.targets import make_target
from unetkit.arrays.weight_map import class_weights
from unetkit.commands.augment.command import augment
from unetkit.commands.train.plan import choose_task
from unetkit.errors import InputError, UsageError
from unetkit.progress import SILENT
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.training.split import Region


def task(url, target=None):
    return choose_task(open_dataset(url), target, SILENT)


def one(path, labels, **parts):
    """Store a dataset of one image with these labels."""
    writer = DatasetWriter(str(path))
    writer.add("a", np.zeros(labels.shape, np.uint8), axes="yx", labels=labels, **parts)
    writer.finish()
    return str(path)


@pytest.mark.parametrize(
    "target", [None, "foreground", "foreground+boundary", "foreground+distance", "boundary"]
)
def test_the_pixels_of_each_class_are_counted_with_gaps_cut(kit, tmp_path, target):
    url = kit.cells(tmp_path / "data.zarr")
    found = task(url, target)
    for sample, counts in zip(found.samples, found.counts, strict=True):
        labels = kit.read(sample.labels()).astype(np.int64) % 2**32
        pixels = make_target(labels, target or "foreground")
        assert list(counts) == np.bincount(pixels.ravel(), minlength=len(counts)).tolist()
    assert found.target == (target or "foreground")
    assert len(found.class_names) == len(found.counts[0])
    assert found.background == pixels[0, 0]
    assert found.instances
    total = np.sum(found.counts, axis=0)
    assert found.balance == class_weights(total.tolist())
    assert np.dot(found.balance, total) == pytest.approx(total.sum())


def test_counting_stops_at_no_tile_border(tmp_path):
    labels = np.zeros((1100, 1050), np.uint16)
    labels[1000:1060, 1000:1040] = 1
    labels[1000:1060, 1040:1050] = 2  # touches: a gap is cut across two tiles
    found = task(one(tmp_path / "data.zarr", labels))
    pixels = make_target(labels, "foreground")
    assert found.counts == (tuple(np.bincount(pixels.ravel()).tolist()),)


def test_ignored_pixels_do_not_count(tmp_path):
    labels = np.zeros((30, 30), np.uint8)
    labels[5:10, 5:10] = 1
    ignore = np.zeros((30, 30), np.uint8)
    ignore[:20] = 1
    url = one(tmp_path / "data.zarr", labels, ignore=ignore)
    with pytest.raises(InputError, match="got no foreground in any of 1 samples"):
        task(url)
    ignore[5:7] = 0
    assert task(one(tmp_path / "more.zarr", labels, ignore=ignore)).counts == ((350, 10),)


def test_samples_without_labels_are_counted_and_left_out(kit, tmp_path):
    dataset = open_dataset(kit.cells(tmp_path / "data.zarr", unlabelled=3))
    watching = kit.watching()
    found = choose_task(dataset, None, watching)
    assert [sample.name for sample in found.samples] == ["s0", "s1"]
    assert found.unlabelled == 3
    assert watching.notes == ["3 of 5 samples have no labels; left out."]


def test_copies_are_known_by_their_source(kit, tmp_path):
    url = kit.cells(tmp_path / "data.zarr")
    augment(url, str(tmp_path / "more.zarr"), copies=2)
    origins = task(str(tmp_path / "more.zarr")).origins()
    assert [(o.source, o.augmented) for o in origins] == [
        (source, copy) for source in ("s0", "s1") for copy in (False, True, True)
    ]
    assert (origins[0].height, origins[0].width) == (40, 44)


def test_origins_know_whether_there_is_foreground(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, value in (("empty", 0), ("full", 1)):
        labels = np.zeros((20, 20), np.uint8)
        labels[5:9, 5:9] = value
        writer.add(name, labels, axes="yx", labels=labels)
    writer.finish()
    origins = task(str(tmp_path / "data.zarr")).origins()
    assert [origin.foreground for origin in origins] == [False, True]


def test_foreground_is_looked_for_in_a_region(tmp_path):
    labels = np.zeros((1500, 60), np.uint8)
    labels[1200:1210, 30:40] = 1
    found = task(one(tmp_path / "data.zarr", labels))
    assert found.has_foreground(Region("a", 0, 0, 1500, 60))
    assert found.has_foreground(Region("a", 1209, 0, 1300, 31))
    assert not found.has_foreground(Region("a", 0, 0, 1200, 60))
    assert not found.has_foreground(Region("a", 1100, 40, 1500, 60))


def test_named_classes_keep_their_names_and_order(kit, tmp_path):
    names = ("background", "myelin", "axon")
    url = kit.cells(tmp_path / "data.zarr", kind="classes", class_names=names)
    found = task(url)
    # The third does not occur, and is predicted all the same.
    assert found.class_names == names
    assert (found.target, found.instances) == ("classes", False)


def test_classes_without_names_go_by_their_numbers(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[3:9] = 2
    assert task(one(tmp_path / "d.zarr", labels, kind="classes")).class_names == ("0", "1", "2")


def test_a_class_beyond_the_names_is_refused(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[3:9] = 2
    url = one(tmp_path / "d.zarr", labels, kind="classes", class_names=("no", "yes"))
    with pytest.raises(InputError, match="got class 2 beside 2 names"):
        task(url)


def test_names_that_differ_among_samples_are_refused(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    labels = np.eye(20, dtype=np.uint8)
    for name, names in (("a", ("no", "yes")), ("b", ("yes", "no"))):
        writer.add(name, labels, axes="yx", labels=labels, kind="classes", class_names=names)
    writer.finish()
    with pytest.raises(InputError, match="no, yes in 'a' and yes, no in 'b'"):
        task(str(tmp_path / "data.zarr"))


@pytest.mark.parametrize(("value", "missing"), [(0, "foreground"), (1, "background")])
def test_labels_of_one_class_teach_nothing(tmp_path, value, missing):
    url = one(tmp_path / "data.zarr", np.full((20, 20), value, np.uint8))
    with pytest.raises(InputError, match=f"got no {missing}") as caught:
        task(url)
    assert caught.value.exit_code == 3


def test_no_labels_at_all_name_the_way_to_them(kit, tmp_path):
    with pytest.raises(InputError, match="run 'unetkit import' with --labels"):
        task(kit.cells(tmp_path / "data.zarr", count=0, unlabelled=1))


def test_instances_and_classes_do_not_mix(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    labels = np.eye(20, dtype=np.uint8)
    for kind in ("instances", "classes"):
        writer.add(kind, labels, axes="yx", labels=labels, kind=kind)
    writer.finish()
    with pytest.raises(InputError, match="labels of one kind, got classes and instances"):
        task(str(tmp_path / "data.zarr"))


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("classes", "foreground", "target must be classes for labels of classes"),
        ("instances", "classes", "foreground.*boundary for labels of instances, got 'classes'"),
        ("instances", "nuclei", "one of foreground, .*got 'nuclei'"),
    ],
)
def test_a_target_must_fit_the_labels(kit, tmp_path, *, kind, target, words):
    url = kit.cells(tmp_path / "data.zarr", kind=kind)
    with pytest.raises(UsageError, match=words):
        task(url, target)
