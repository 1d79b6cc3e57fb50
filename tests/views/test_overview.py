"""The overview shows images side by side, each with outlines in colours."""

import numpy as np
import pytest
from PIL import Image

from unetkit.views.overview import SIDE, columns_for, overview_picture, side_for


@pytest.mark.parametrize("count", range(1, 30))
def test_sheets_are_about_square(count):
    columns = columns_for(count)
    assert columns**2 >= count > (columns - 1) ** 2
    assert columns * side_for(count) <= SIDE


def draw(path, labels):
    grey = np.full((1, 1200, 900), 100, np.uint8)
    grey[0, :600] = 50
    overview_picture(str(path), [("slide", grey, labels)], title="slide.prediction")
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_what_was_found_is_outlined_in_colour(tmp_path):
    labels = np.zeros((600, 450), np.uint16)
    plain = draw(tmp_path / "plain.png", labels)
    labels[100:200, 100:200] = 3
    shown = draw(tmp_path / "shown.png", labels)
    assert shown.shape == plain.shape
    assert shown.shape[0] > 1200
    y, x = np.nonzero((shown != plain).any(axis=-1))
    # The object, twice as large on the image, and nothing else.
    assert (y.max() - y.min() + 1, x.max() - x.min() + 1) == (200, 200)
    colours = shown[y, x]
    assert (colours.max(axis=1) - colours.min(axis=1)).min() > 10


def test_small_images_are_enlarged_and_many_stand_on_one_sheet(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 30), np.uint8)
    shown = [(f"s{k}", image, np.eye(40, 30, dtype=np.uint8)) for k in range(5)]
    overview_picture(str(tmp_path / "a.png"), shown, title="data")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 3 * 30 * (side_for(5) // 40)
        assert picture.info["Software"] == "unetkit"
