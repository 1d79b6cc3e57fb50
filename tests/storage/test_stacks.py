"""A stack: the first axis counts samples, named 0000, 0001, ..."""

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, LabelError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

IMAGES = np.arange(3 * 2 * 8 * 6, dtype=np.uint16).reshape(3, 2, 8, 6)


def stack(folder, arrays, **attributes):
    url = str(folder / "stack.zarr")
    zarr.create_group(url, attributes=attributes)
    for name, array in arrays.items():
        names = ("n", "c", "y", "x") if array.ndim == 4 else None
        zarr.create_array(f"{url}/{name}", data=array, dimension_names=names)
    return url


def test_samples_are_numbered_and_read_one_by_one(tmp_path):
    labels = (IMAGES[:, 0] % 5).astype(np.uint8)
    weights = labels / np.float32(2)
    found = open_dataset(stack(tmp_path, {"images": IMAGES, "labels": labels, "weights": weights}))
    assert (found.kind, found.names) == ("stack", ("0000", "0001", "0002"))
    for number, sample in enumerate(found.samples):
        assert sample.label_kind == "instances"
        assert (sample.data.axes, sample.data.shape) == ("cyx", (2, 8, 6))
        np.testing.assert_array_equal(sample.data.read(0, 1, 8, 0, 6), IMAGES[number, :, 1:])
        np.testing.assert_array_equal(sample.labels().read(0, 0, 8, 0, 6), labels[number])
        assert sample.weights is not None
        np.testing.assert_array_equal(sample.weights.read(0, 0, 8, 0, 6), weights[number])


@pytest.mark.parametrize("axes", [None, "yx", "nyx"])
def test_plain_planes_need_no_axes(axes, tmp_path):
    found = open_dataset(stack(tmp_path, {"images": IMAGES[:, 0]}), axes=axes)
    assert found["0002"].data.read(0, 0, 8, 0, 6).shape == (1, 8, 6)
    assert found["0002"].label_kind is None


def test_the_last_axis_may_be_channels(tmp_path):
    url = str(tmp_path / "s.zarr")
    zarr.create_group(url)
    zarr.create_array(f"{url}/images", data=IMAGES.transpose(0, 2, 3, 1))
    with pytest.raises(InputError, match="--axes"):
        open_dataset(url)
    sample = open_dataset(url, axes="nyxc", channels="1")["0001"]
    np.testing.assert_array_equal(sample.data.read(0, 0, 8, 0, 6), IMAGES[1, 1:])


def test_an_attribute_says_that_labels_are_classes(tmp_path):
    arrays = {"images": IMAGES[:, 0], "labels": (IMAGES[:, 0] % 2).astype(np.uint8)}
    own = {"label_kind": "classes", "class_names": ["a", "b"]}
    found = open_dataset(stack(tmp_path, arrays, unetkit=own))
    assert found["0000"].label_kind == "classes"
    assert found["0000"].class_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("labels", np.zeros((2, 8, 6), np.uint8), "one entry"),
        ("labels", np.zeros((3, 8, 7), np.uint8), "as large as its image"),
        ("weights", np.zeros((3, 8), np.float32), "one entry"),
        ("images", np.zeros((8, 6), np.uint8), r"\(N, Y, X\) or more"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, array, words, tmp_path):
    with pytest.raises(InputError, match=words):
        open_dataset(stack(tmp_path, {"images": IMAGES[:, 0], name: array}))


def test_kinds_are_checked(tmp_path):
    with pytest.raises(LabelError, match="must be integers"):
        open_dataset(stack(tmp_path, {"images": IMAGES[:, 0], "labels": IMAGES[:, 0] / 2}))


def test_an_unknown_label_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="label_kind"):
        open_dataset(stack(tmp_path, {"images": IMAGES}, unetkit={"label_kind": "cells"}))


def test_a_stack_of_one_is_an_image(tmp_path):
    image = open_image(stack(tmp_path, {"images": IMAGES[:1]}))
    assert (image.name, image.data.shape) == ("0000", (2, 8, 6))


def test_a_stack_of_more_is_no_image(tmp_path):
    with pytest.raises(InputError, match="a stack of 3"):
        open_image(stack(tmp_path, {"images": IMAGES}))
