import numpy as np
import pytest
from PIL import Image

from unetkit.storage.outputs import written_by_unetkit
from unetkit.views.drawing import edges
from unetkit.views.pictures import (
    ColourBar,
    Panel,
    augmentation_sheet,
    contact_sheet,
    image_panel,
    png_bytes,
    side_by_side,
    weight_panel,
    weight_picture,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def panel(colour, *, height=40, width=60, **more):
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = colour
    return Panel(picture, **more)  # type: ignore[arg-type]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def area(path, colour):
    """Return the box (y0, y1, x0, x1) of a colour."""
    ys, xs = np.nonzero((pixels(path) == colour).all(axis=-1))
    return int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1


def test_panels_stand_beside_each_other_with_every_pixel(tmp_path):
    path = tmp_path / "sheet.png"
    side_by_side(str(path), [panel(RED, caption="left"), panel(BLUE, width=30)], title="two")
    red, blue = area(path, RED), area(path, BLUE)
    assert (red[1] - red[0], red[3] - red[2]) == (40, 60)
    assert (blue[1] - blue[0], blue[3] - blue[2]) == (40, 30)
    assert red[0] == blue[0]
    assert red[3] < blue[2]


def test_a_sheet_goes_on_in_the_next_row(tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet(str(path), [panel(RED), panel(RED), panel(BLUE)], columns=2)
    red, blue = area(path, RED), area(path, BLUE)
    assert blue[0] > red[1]
    assert blue[2] == red[2]


@pytest.mark.parametrize("caption", ["x" * 500, "", "\x1b[2J\n\n", "größe 細胞"])
def test_a_caption_never_changes_the_size(tmp_path, caption):
    path, control = tmp_path / "sheet.png", tmp_path / "control.png"
    side_by_side(str(path), [panel(RED, caption=caption), panel(BLUE, caption="a")])
    side_by_side(str(control), [panel(RED, caption="a"), panel(BLUE, caption="a")])
    assert pixels(path).shape == pixels(control).shape


def test_captions_and_bars_leave_ink(tmp_path):
    plain, full = tmp_path / "plain.png", tmp_path / "full.png"
    side_by_side(str(plain), [panel(RED, height=200)])
    side_by_side(
        str(full), [panel(RED, height=200, caption="a", bar=ColourBar(0.0, 9.6))], title="title"
    )

    def colours(path):
        return len(np.unique(pixels(path).reshape(-1, 3), axis=0))

    assert colours(plain) == 2
    assert colours(full) > 100
    assert area(full, RED)[1] - area(full, RED)[0] == 200


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_holds_the_very_pixels(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(array[:, ::-1]))
    np.testing.assert_array_equal(pixels(path), array[:, ::-1])


def test_a_png_is_known_as_an_earlier_output(tmp_path):
    ours, foreign = tmp_path / "ours.png", tmp_path / "foreign.png"
    side_by_side(str(ours), [panel(RED)])
    Image.new("L", (3, 3)).save(foreign)
    assert written_by_unetkit(str(ours))
    assert not written_by_unetkit(str(foreign))


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
    assert image_panel(image, scale=2).picture.shape == (120, 160, 3)


def test_grid_lines_lie_where_they_are_said_to():
    image = np.zeros((1, 400, 400), dtype=np.uint8)
    lines = np.array([[[0.0], [399.0]], [[100.0], [100.0]]])
    drawn = image_panel(image, grid_lines=lines).picture.copy()
    assert drawn[:, 100].min() > 0
    drawn[:, 100] = 0
    assert not drawn.any()


def test_weights_have_a_bar_up_to_the_largest():
    weights = np.zeros((50, 50), dtype=np.float32)
    weights[0, 0] = 9.5
    assert weight_panel(weights).bar == ColourBar(0.0, 9.5)


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
