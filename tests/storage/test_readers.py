"""PNG and JPEG of every mode, and the door that all readers come in by."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from unetkit.errors import InputError, MissingError
from unetkit.storage import readers
from unetkit.storage.readers import open_file, suffixes

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (11, 13), dtype=np.uint8)
RGB = RNG.integers(0, 256, (11, 13, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (11, 13, 4), dtype=np.uint16)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def encode(path, pixels):
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    return str(path)


def test_the_suffixes_are_those_of_the_readers():
    assert set(suffixes()) >= {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def test_suffixes_in_capitals(tmp_path):
    path = Path(save(tmp_path / "a.png", GREY)).rename(tmp_path / "A.PNG")
    assert np.array_equal(open_file(str(path)).load(), GREY)


def test_unknown_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"must end in one of .*, got 'a\.gif'"):
        open_file("a.gif")
    with pytest.raises(MissingError, match="must exist"):
        open_file(str(tmp_path / "none.png"))


@pytest.mark.parametrize(
    ("pixels", "axes", "alpha"),
    [
        (GREY, "yx", False),
        (GREY > 99, "yx", False),
        (GREY.astype(np.uint16) * 257, "yx", False),
        (RGB, "cyx", False),
        (np.dstack([GREY, GREY]), "yx", True),
        (np.dstack([RGB, GREY]), "cyx", True),
    ],
)
def test_pictures_of_every_mode(tmp_path, pixels, axes, alpha):
    file = open_file(save(tmp_path / "a.png", pixels))
    kept = np.moveaxis(pixels[..., :3], -1, 0) if axes == "cyx" else pixels
    kept = kept[..., 0] if kept.ndim == 3 and axes == "yx" else kept
    assert (file.axes, file.alpha_dropped, file.lossy) == (axes, alpha, False)
    loaded = file.load()
    assert loaded.dtype == file.dtype
    assert np.array_equal(loaded, kept)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay_sixteen(tmp_path, channels):
    pixels = DEEP[..., :channels] if channels > 1 else DEEP[..., 0]
    file = open_file(encode(tmp_path / "a.png", pixels))
    kept = np.moveaxis(DEEP[..., :3], -1, 0) if channels > 2 else DEEP[..., 0]
    assert file.dtype == np.uint16
    assert file.alpha_dropped is (channels in (2, 4))
    assert np.array_equal(file.load(), kept)


def test_a_colour_palette_is_colours_or_as_labels_indices(tmp_path):
    indices = GREY % 4
    palette = Image.fromarray(indices).convert("P")
    palette.putpalette([10, 20, 30, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = str(tmp_path / "a.png")
    palette.save(path)
    colours = np.array([[10, 20, 30], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert np.array_equal(open_file(path).load(), np.moveaxis(colours[indices], -1, 0))
    assert np.array_equal(open_file(path, labels=True).load(), indices)


def test_a_grey_palette_is_greys_either_way(tmp_path):
    palette = Image.fromarray(GREY % 2).convert("P")
    palette.putpalette([0, 0, 0, 200, 200, 200])
    path = str(tmp_path / "a.png")
    palette.save(path)
    for labels in (False, True):
        file = open_file(path, labels=labels)
        assert file.axes == "yx"
        assert np.array_equal(file.load(), (GREY % 2) * 200)


def test_jpeg_is_lossy_whatever_its_name(tmp_path):
    path = save(tmp_path / "a.jpg", RGB)
    assert open_file(path).lossy
    renamed = Path(path).rename(tmp_path / "b.png")
    file = open_file(str(renamed))
    assert file.lossy
    assert file.load().shape == (3, 11, 13)


def test_colours_of_print_are_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).convert("CMYK").save(path)
    with pytest.raises(InputError, match="grey, RGB or of a palette, got CMYK"):
        open_file(str(path))


def test_an_orientation_is_told_and_not_applied(tmp_path):
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    path = save(tmp_path / "a.jpg", RGB, exif=exif)
    file = open_file(path)
    assert file.shape == (3, 11, 13)
    assert "orientation" in file.remarks[0]
    assert not open_file(save(tmp_path / "b.jpg", RGB)).remarks


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("kept", [4, 12, 30, 0.5, 0.9])
def test_cut_short(tmp_path, name, kept):
    path = Path(save(tmp_path / name, RGB))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(InputError, match=name):
        open_file(str(path)).load()


def test_a_flipped_bit(tmp_path):
    path = Path(save(tmp_path / "a.png", GREY))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="it may be damaged"):
        open_file(str(path)).load()


def test_more_pixels_than_pillow_likes_come_in(tmp_path, monkeypatch):
    # Pillow warns above this many pixels and refuses twice as many; scientific images have more.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "a.png", GREY)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert np.array_equal(open_file(path).load(), GREY)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    data = bytearray(imagecodecs.png_encode(GREY))
    header = b"IHDR" + (2**20).to_bytes(4, "big") + (2**20).to_bytes(4, "big") + data[24:29]
    path.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    with pytest.raises(InputError, match=r"at most 4 GiB, got 1048576 x 1048576 pixels"):
        open_file(str(path))


def test_strips_cover_the_picture(tmp_path):
    file = open_file(save(tmp_path / "a.png", RGB))
    strips = list(file.strips(4))
    assert [(plane, y0, block.shape) for plane, y0, block in strips] == [
        (0, 0, (3, 4, 13)),
        (0, 4, (3, 4, 13)),
        (0, 8, (3, 3, 13)),
    ]
    assert np.array_equal(np.concatenate([b for *_, b in strips], axis=1), file.load())


def test_axes_that_the_picture_has_not(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert open_file(path, axes="yxc").axes == "cyx"
    with pytest.raises(InputError, match=r"those of the picture .*, cyx, got 'zyx'"):
        open_file(path, axes="zyx")
    assert open_file(path, axes="zyx", labels=True).axes == "cyx"
