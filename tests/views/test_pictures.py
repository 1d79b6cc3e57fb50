import numpy as np
import pytest
from PIL import Image

from unetkit.views.drawing import edges
from unetkit.views.pictures import augmentation_sheet, image_panel, weight_panel, weight_picture


def nuclei(height=60, width=80):
    labels = np.zeros((height, width), dtype=np.uint16)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    image = (labels > 0).astype(np.uint16)[None] * 900 + 7
    return image, labels


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((60, 80), (240, 320)),
        ((512, 512), (512, 512)),
        ((3000, 1500), (640, 320)),
        ((1, 1), (320, 320)),
        ((5000, 1), (640, 1)),
    ],
)
def test_a_panel_has_a_size_to_look_at(shape, shown):
    panel = image_panel(np.zeros((1, *shape)), labels=np.ones(shape, dtype=int))
    assert panel.picture.shape == (*shown, 3)
    assert panel.picture.dtype == np.uint8


def test_outlines_are_drawn_on_the_enlarged_labels():
    image, labels = nuclei()
    plain, drawn = image_panel(image), image_panel(image, labels=labels)
    changed = (plain.picture != drawn.picture).any(axis=-1)
    np.testing.assert_array_equal(changed, edges(np.kron(labels, np.ones((4, 4), dtype=int))))


def test_a_scale_can_be_asked_for():
    image, _ = nuclei()
    assert image_panel(image, scale=2).picture.shape == (120, 160, 3)


def test_grid_lines_lie_where_they_are_said_to():
    image = np.zeros((1, 400, 400), dtype=np.uint8)
    lines = np.array([[[0.0], [399.0]], [[100.0], [100.0]]])
    drawn = image_panel(image, grid_lines=lines).picture.copy()
    assert drawn[:, 100].min() > 0
    drawn[:, 100] = 0
    assert not drawn.any()


def test_weights_have_a_bar_up_to_the_largest(tmp_path):
    weights = np.zeros((50, 50), dtype=np.float32)
    weights[0, 0] = 9.5
    panel = weight_panel(weights)
    assert panel.bar is not None
    assert (panel.bar.low, panel.bar.high) == (0.0, 9.5)


@pytest.mark.parametrize("value", [0.0, np.nan, 1e-12, 1e6])
def test_any_weights_give_a_picture(tmp_path, value):
    image, labels = nuclei()
    path = tmp_path / "weights.png"
    weights = np.full(labels.shape, value, dtype=np.float32)
    weight_picture(str(path), image, labels, weights=weights, title="a01")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 2 * 320


def test_an_augmentation_sheet_has_two_panels_a_row(tmp_path):
    image, labels = nuclei()
    lines = np.stack(np.meshgrid([0.0, 30.0, 59.0], [0.0, 40.0, 79.0], indexing="ij"))
    full = {
        "original": image,
        "deformed": image,
        "labels": labels,
        "deformed_labels": labels,
        "grid_lines": lines,
        "title": "a01",
    }
    bare = full | {"labels": None, "deformed_labels": None, "grid_lines": None}
    one, two, many = (tmp_path / f"{name}.png" for name in ("one", "two", "many"))
    augmentation_sheet(str(one), [full])
    augmentation_sheet(str(two), [full, bare])
    augmentation_sheet(str(many), [bare] * 40)
    heights = []
    for path in (one, two, many):
        with Image.open(path) as picture:
            heights.append(picture.size[1])
    assert heights[1] > 1.8 * heights[0]
    assert heights[2] < 25 * heights[0]
