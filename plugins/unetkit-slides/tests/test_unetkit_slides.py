"""Read slides as a scanner writes them: levels, pixel size, strips, and what is refused."""

import numpy as np
import pytest
import tifffile
from unetkit_slides import LEVEL, open_slide

import unetkit
from unetkit.errors import InputError, MissingError, UsageError

NOTE = "Aperio Image Library v11.2.1\r\n768x520 [0,0 768x520] (128x128) RAW|AppMag = 20|MPP = 0.5"


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (520, 768, 3), dtype=np.uint8)


@pytest.fixture
def slide(tmp_path, pixels):
    """Write full size, thumbnail and one more level, in a scanner's order."""
    path = tmp_path / "slide.svs"
    tiled = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, description=NOTE, **tiled)
        tif.write(pixels[::8, ::8], photometric="rgb", description=NOTE, metadata=None)
        tif.write(pixels[::4, ::4], description=NOTE, **tiled)
    return str(path)


@pytest.mark.parametrize("height", [1, 100, 128, 4096])
def test_every_pixel_comes_once_strip_by_strip(slide, pixels, height):
    if height == 1:
        assert next(open_slide(slide).strips(1))[2].shape == (3, 1, 768)
        return
    file = open_slide(slide)
    found = np.zeros((3, 520, 768), np.uint8)
    for plane, y0, block in file.strips(height):
        assert plane == 0
        assert block.shape[1] <= height
        found[:, y0 : y0 + block.shape[1]] = block
    np.testing.assert_array_equal(found, np.moveaxis(pixels, -1, 0))
    assert (file.axes, file.shape, file.pixel_size) == ("cyx", (3, 520, 768), {"y": 0.5, "x": 0.5})


def test_the_environment_chooses_the_level(slide, pixels, monkeypatch):
    monkeypatch.setenv(LEVEL, "1")
    file = open_slide(slide)
    assert (file.shape, file.pixel_size) == ((3, 130, 192), {"y": 2.0, "x": 2.0})
    np.testing.assert_array_equal(file.load(), np.moveaxis(pixels[::4, ::4], -1, 0))
    whole = np.concatenate([block for _, _, block in file.strips(33)], axis=1)
    np.testing.assert_array_equal(whole, file.load())


@pytest.mark.parametrize("word", ["2", "-1", "half"])
def test_a_level_that_is_not_there_is_refused(slide, monkeypatch, word):
    monkeypatch.setenv(LEVEL, word)
    with pytest.raises(UsageError, match=r"it has 0 \(520 x 768\), 1 \(130 x 192\)"):
        open_slide(slide)


def test_what_is_no_slide_is_refused(slide, tmp_path):
    with pytest.raises(MissingError, match="slide must exist"):
        open_slide(str(tmp_path / "nothing.svs"))
    (tmp_path / "text.svs").write_text("no slide")
    with pytest.raises(InputError, match="slide must be readable"):
        open_slide(str(tmp_path / "text.svs"))
    with pytest.raises(InputError, match="as labels; give masks as PNG or TIFF"):
        open_slide(slide, labels=True)
    with pytest.raises(InputError, match="axes cyx"):
        open_slide(slide, axes="zyx")


def test_import_takes_it(slide, pixels, tmp_path):
    unetkit.import_images(slide, str(tmp_path / "slide.zarr"))
    image = unetkit.open_image(str(tmp_path / "slide.zarr"))
    np.testing.assert_array_equal(image.data.read(0, 0, 520, 0, 768), np.moveaxis(pixels, -1, 0))
    assert image.pixel_size == {"y": 0.5, "x": 0.5}
