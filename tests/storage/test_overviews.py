"""Planes made smaller: of the pyramid where there is one, else of all pixels, and alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image
from unetkit.storage.pyramids import add_pyramid, block_mean, downscaled


@pytest.fixture
def image(tmp_path):
    url = str(tmp_path / "i.zarr")
    rng = np.random.default_rng(0)
    data = create_image(url, shape=(2, 2050, 300), axes="cyx", dtype="uint8", chunk=256)
    labels = create_labels(url, "instances", shape=(2050, 300), axes="yx", dtype="uint8", chunk=256)
    for y in range(0, 2050, 256):
        for x in range(0, 300, 256):
            size = min(256, 2050 - y), min(256, 300 - x)
            data.write(0, y, x, rng.integers(0, 255, size=(2, *size)).astype(np.uint8))
            labels.write(0, y, x, rng.integers(0, 9, size=size).astype(np.uint8))
    return open_image(url)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_it_is_the_whole_made_smaller(image, factor):
    whole = image.data.read(0, 0, 2050, 0, 300)
    found = downscaled(image.data, 0, factor=factor)
    assert np.array_equal(found, block_mean(whole, factor, factor))
    labels = image.labels["instances"]
    found = downscaled(labels, 0, factor=factor)
    assert np.array_equal(found, labels.read(0, 0, 2050, 0, 300)[::factor, ::factor])


def test_levels_are_read_where_they_are(image):
    labels = image.labels["instances"]
    small = {factor: downscaled(labels, 0, factor=factor) for factor in (3, 6, 8)}
    add_pyramid(image.url)
    # All pixels are needed for a third alone; without them the others come from levels.
    shutil.rmtree(Path(labels.url, "c"))
    assert np.array_equal(downscaled(labels, 0, factor=8), small[8])
    assert np.array_equal(downscaled(labels, 0, factor=6), small[6])
    assert not np.array_equal(downscaled(labels, 0, factor=3), small[3])
    picked = downscaled(image.data.pick([1]), 0, factor=4)
    assert picked.shape == (1, 513, 75)
    assert np.array_equal(picked, downscaled(image.data, 0, factor=4)[1:])
