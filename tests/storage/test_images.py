"""The way in to images: every kind of store that holds one image opens as one."""

import numpy as np
import pytest

from unetkit.errors import InputError, MissingError
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image


def dataset(folder, *names):
    writer = DatasetWriter(str(folder / "data.zarr"))
    for name in names:
        writer.add(name, np.full((4, 4), len(name), np.uint8), axes="yx")
    writer.finish()
    return writer.url


def test_what_was_written_reads_back(tmp_path):
    url = str(tmp_path / "slide.ome.zarr")
    array = create_image(
        url, shape=(2, 6, 5), axes="cyx", dtype=np.uint16, channel_names=("DAPI", "GFP")
    )
    content = np.arange(60, dtype=np.uint16).reshape(2, 6, 5)
    array.write(0, 0, 0, content)
    image = open_image(f"{url}/", channels="GFP")
    assert (image.name, image.levels, image.channel_names) == ("slide", 1, ("GFP",))
    np.testing.assert_array_equal(image.data.read(0, 0, 6, 0, 5), content[1:])


def test_a_dataset_of_one_sample_is_an_image(tmp_path):
    assert open_image(dataset(tmp_path, "a01")).name == "a01"


def test_a_dataset_of_more_is_no_image_and_says_how_to_name_one(tmp_path):
    url = dataset(tmp_path, "a01", "a02")
    with pytest.raises(InputError, match=r"dataset of 2; name one, such as .*data\.zarr/a01"):
        open_image(url)
    assert open_image(f"{url}/a02").name == "a02"


def test_an_empty_dataset_is_no_image(tmp_path):
    with pytest.raises(InputError, match="dataset of 0"):
        open_image(dataset(tmp_path))


def test_a_misspelt_path_creates_nothing(tmp_path):
    with pytest.raises(MissingError):
        open_image(str(tmp_path / "slide.zarr"))
    assert list(tmp_path.iterdir()) == []
