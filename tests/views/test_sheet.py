import numpy as np
import pytest
from PIL import Image

from unetkit.storage.outputs import written_by_unetkit
from unetkit.views.pictures import ColourBar, Panel, contact_sheet, png_bytes, side_by_side

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
