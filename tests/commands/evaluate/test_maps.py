"""Which channels of a prediction are probabilities of which labels."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.commands.evaluate.samples import probability_map
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image


@pytest.fixture
def image(tmp_path):
    def make(names: tuple[str, ...], attributes: dict[str, object]) -> object:
        url = str(tmp_path / "p.zarr")
        data = create_image(
            url,
            shape=(len(names), 6, 7),
            axes="cyx",
            dtype="uint8",
            channel_names=names,
            attributes=attributes,
        )
        stack = np.full((len(names), 6, 7), 51, np.uint8)
        stack[-1] = 255
        data.write(0, 0, 0, stack)
        return open_image(url)

    return make


def test_instances_have_the_channel_of_their_inside(image):
    found = probability_map(image(("boundary", "foreground"), {"scale": 1 / 255}), "instances")
    assert (found.labels, found.names, found.foreground) == ((1,), ("foreground",), True)
    assert found.read(0, 0, 6, 0, 7).tolist() == np.ones((1, 6, 7)).tolist()


def test_classes_have_a_channel_each(image):
    names = ("background", "myelin", "axon")
    found = probability_map(image(names, {"scale": 1 / 255, "prediction": {}}), "classes")
    assert (found.labels, found.names) == ((1, 2), ("myelin", "axon"))
    assert found.read(0, 0, 2, 0, 2)[:, 0, 0] == pytest.approx([0.2, 1])


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_an_image_is_no_map(image, kind):
    assert probability_map(image(("DAPI", "GFP"), {}), kind) is None
