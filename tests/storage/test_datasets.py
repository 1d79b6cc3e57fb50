"""Datasets as they are read: samples with their parts, and sentences for what is not there."""

import json

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image

PIXELS = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)


def dataset(folder, **shapes):
    """Write samples of the named channel counts."""
    writer = DatasetWriter(str(folder / "data.zarr"))
    for name, count in shapes.items():
        writer.add(name, PIXELS[:count], axes="cyx", source="s", channel_names="rgb"[:count])
    writer.finish()
    return writer.url


def test_a_dataset_reads_back_sample_by_sample(tmp_path):
    found = open_dataset(dataset(tmp_path, a=3, b=3), channels="b,r")
    assert (found.kind, found.names) == ("dataset", ("a", "b"))
    sample = found["b"]
    assert (sample.source, sample.image.channel_names) == ("s", ("b", "r"))
    np.testing.assert_array_equal(sample.data.read(0, 0, 4, 0, 4), PIXELS[[2, 0]])
    with pytest.raises(InputError, match="one of a, b, got 'c'"):
        found["c"]


def test_labels_that_are_not_there_name_the_remedy(tmp_path):
    sample = open_dataset(dataset(tmp_path, a01=1))["a01"]
    assert (sample.label_kind, sample.ignore, sample.weights) == (None, None, None)
    assert sample.class_names == ()
    with pytest.raises(InputError) as caught:
        sample.labels()
    assert str(caught.value) == (
        "sample 'a01' in data.zarr has no labels; run 'unetkit import' with --labels"
    )
    with pytest.raises(InputError, match="no labels of the kind 'classes'"):
        sample.labels("classes")


def test_samples_with_other_channel_counts_are_named(tmp_path):
    url = dataset(tmp_path, a=3, b=3, odd=1)
    with pytest.raises(InputError, match="3 in 'a' and 1 in 'odd'; choose some with --channels"):
        open_dataset(url)
    assert open_dataset(url, channels="r").names == ("a", "b", "odd")
    assert open_dataset(url, mixed=True).names == ("a", "b", "odd")
    with pytest.raises(UsageError, match=r"those of odd, got 'g'; it has channel 0 \(r\)$"):
        open_dataset(url, channels="g")


def test_an_empty_dataset_is_refused(tmp_path):
    url = dataset(tmp_path)
    with pytest.raises(InputError, match="at least one sample"):
        open_dataset(url)
    assert open_dataset(url, mixed=True).samples == ()


def test_an_image_counts_as_a_dataset_of_one(tmp_path):
    url = str(tmp_path / "slide.zarr")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    found = open_dataset(url)
    assert (found.kind, found.names, found["slide"].source) == ("image", ("slide",), "slide")


def test_so_does_a_bare_array(tmp_path):
    url = str(tmp_path / "bare.zarr")
    zarr.create_array(url, data=PIXELS)
    assert open_dataset(url, axes="cyx", channels="2")["bare"].data.channels == 1


def edit(folder, samples):
    path = folder / "data.zarr" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["unetkit"]["samples"] = samples
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["../other", "/etc", "a/../..", "s3://b", "", "x\0", 7])
def test_hostile_sample_names_are_refused(name, tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": name}])
    with pytest.raises(InputError, match="must be a path inside it"):
        open_dataset(url)


def test_a_listed_sample_must_be_there_and_be_an_image(tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": "b"}])
    with pytest.raises(MissingError, match=r"data\.zarr/b must exist"):
        open_dataset(url)
    zarr.create_array(f"{url}/b", data=PIXELS[0])
    with pytest.raises(InputError, match=r"sample 'b' .* must be an OME-Zarr image"):
        open_dataset(url)
