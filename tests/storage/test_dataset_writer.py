"""Datasets as they are built: parts of every kind, the list last, and nothing replaced."""

import numpy as np
import pytest
import yaozarrs
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, label_dtype, open_dataset, write_sample
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

PLANE = np.arange(20, dtype=np.uint8).reshape(5, 4)


def test_a_sample_with_all_its_parts_reads_back_and_is_valid(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"), attributes={"command": "import"})
    labels = PLANE.astype(np.int64) * 1000
    writer.add(
        "a01",
        np.stack([PLANE, PLANE + 1]),
        axes="cyx",
        source="slide 7",
        labels=labels,
        ignore=PLANE > 3,
        weights=PLANE / 2,
        channel_names=("DAPI", "GFP"),
        pixel_size={"y": 0.5, "x": 0.25},
        attributes={"a": np.float64(1)},
        label_attributes={"objects": 19},
        weights_attributes={"preset": "paper2015"},
    )
    writer.add("b", PLANE, axes="yx", labels=PLANE % 2, kind="classes", class_names=("bg", "cell"))
    writer.finish()
    found = open_dataset(writer.url, mixed=True)
    assert found.attributes["command"] == "import"
    a, b = found["a01"], found["b"]
    assert (a.source, a.label_kind, b.source, b.label_kind) == (
        "slide 7", "instances", "b", "classes"
    )  # fmt: skip
    assert b.class_names == ("bg", "cell")
    assert a.image.pixel_size == {"y": 0.5, "x": 0.25}
    assert a.image.attributes["a"] == 1.0
    assert a.image.label_attributes["instances"]["objects"] == 19
    assert a.image.weights_attributes["preset"] == "paper2015"
    assert a.labels().dtype == np.uint16
    assert a.ignore is not None
    assert a.weights is not None
    everything = (0, 0, 5, 0, 4)
    np.testing.assert_array_equal(a.data.read(*everything), [PLANE, PLANE + 1])
    np.testing.assert_array_equal(a.labels().read(*everything), labels)
    np.testing.assert_array_equal(a.ignore.read(*everything), PLANE > 3)
    np.testing.assert_array_equal(a.weights.read(*everything), PLANE / np.float32(2))
    for name in ("a01", "a01/labels", "a01/weights", "b", "b/labels"):
        yaozarrs.validate_zarr_store(f"{writer.url}/{name}")


@settings(max_examples=20, deadline=None)
@given(
    axes=st.sampled_from(["yx", "cyx", "zyx", "tyx", "tczyx", "tcyx", "czyx"]),
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
)
def test_arrays_of_any_axes_read_back(axes, sizes, tmp_path_factory):
    shape = tuple(size for size, axis in zip(sizes, "tczyx", strict=True) if axis in axes)
    content = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    url = str(tmp_path_factory.mktemp("w") / "a.zarr")
    labels = content.take(0, axis=axes.index("c")) if "c" in axes else content
    write_sample(url, content, axes=axes, labels=labels)
    image = open_image(url)
    # The oracle: planes in t, z order.
    order = [axes.index(axis) for axis in "tzcyx" if axis in axes]
    lead = sum(axis in "tz" for axis in axes)
    planes = content.transpose(order).reshape(-1, *content.transpose(order).shape[lead:])
    for number, plane in enumerate(planes):
        box = (number, 0, image.data.height, 0, image.data.width)
        wanted = plane if "c" in axes else plane[np.newaxis]
        np.testing.assert_array_equal(image.data.read(*box), wanted)
        np.testing.assert_array_equal(image.labels["instances"].read(*box), wanted[0])


def test_samples_are_listed_when_all_are_there(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", PLANE, axes="yx")
    assert open_dataset(writer.url, mixed=True).names == ()
    writer.finish()
    assert open_dataset(writer.url).names == ("a",)


def test_more_samples_can_be_added_later(tmp_path):
    url = str(tmp_path / "data.zarr")
    for name in ("a", "b"):
        writer = DatasetWriter(url, attributes={name: 1})
        writer.add(name, PLANE, axes="yx")
        writer.finish()
    found = open_dataset(url)
    assert found.names == ("a", "b")
    assert {"a", "b"} <= set(found.attributes)
    with pytest.raises(OutputError, match="must be new, got 'a' twice"):
        DatasetWriter(url).add("a", PLANE, axes="yx")


def test_what_an_interrupted_run_left_is_written_again(tmp_path):
    url = str(tmp_path / "data.zarr")
    DatasetWriter(url).add("a", PLANE, axes="yx")
    writer = DatasetWriter(url)
    writer.add("a", PLANE + 1, axes="yx")
    writer.finish()
    np.testing.assert_array_equal(open_dataset(url)["a"].data.read(0, 0, 5, 0, 4)[0], PLANE + 1)


def test_a_place_can_be_reserved_for_another_writer(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    place = writer.reserve("a", source="s")
    with pytest.raises(InputError, match=r"sample 'a' .* must be written"):
        writer.finish()
    create_image(place, shape=(1, 2000, 4), axes="cyx", dtype=np.uint8)
    writer.finish()
    assert open_dataset(writer.url)["a"].image.levels == 2


def test_a_sample_that_fails_leaves_its_name_free(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    with pytest.raises(InputError, match="labels must be as large"):
        writer.add("a", PLANE, axes="yx", labels=PLANE[1:])
    writer.add("a", PLANE, axes="yx")
    writer.finish()
    assert open_dataset(writer.url).names == ("a",)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", ".hidden", "a\n", "zarr.json", "__x"])
def test_names_that_are_no_folders_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="plain folder name"):
        DatasetWriter(str(tmp_path / "data.zarr")).reserve(name)


@pytest.mark.parametrize("name", ["exp[control]", "img[bold]", "a b", "äö", "-rf", "🔬"])
def test_strange_names_work(name, tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add(name, PLANE, axes="yx", labels=PLANE)
    writer.finish()
    assert open_dataset(writer.url)[name].label_kind == "instances"


def test_only_a_dataset_gets_samples(tmp_path):
    url = str(tmp_path / "a.zarr")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    with pytest.raises(InputError, match="must be a dataset"):
        DatasetWriter(url)


@pytest.mark.parametrize(
    "options", [{"kind": "cells"}, {"axes": "cyx"}, {"axes": "yy"}, {"axes": "xy"}]
)
def test_unknown_words_are_refused(options, tmp_path):
    with pytest.raises(UsageError, match="must"):
        write_sample(str(tmp_path / "a"), PLANE, **{"axes": "yx", **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(0, "u1"), (255, "u1"), (256, "u2"), (70_000, "u4"), (2**24 + 1, "u4"), (2**32 - 1, "u4")],
)
def test_ids_keep_their_values_in_the_narrowest_type(top, dtype):
    assert label_dtype(np.array([0, top])) == np.dtype(dtype)


@pytest.mark.parametrize(
    "labels", [np.array([-1]), np.array([2**32]), np.array([1.0]), np.array([np.nan])]
)
def test_labels_that_no_viewer_knows_are_refused(labels):
    with pytest.raises(LabelError, match="labels must"):
        label_dtype(labels)
