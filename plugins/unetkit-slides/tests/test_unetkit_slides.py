"""Read slides as a scanner writes them: levels, pixel size, strips, and what is refused."""

import io
import re
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from unetkit_slides import LEVEL, open_slide

import unetkit
from unetkit.errors import InputError, MissingError, UsageError
from unetkit.testing import check_reader

NOTE = "Aperio Image Library v11.2.1\r\n768x520 [0,0 768x520] (128x128) RAW|AppMag = 20|MPP = 0.5"
TILED = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib", "metadata": None}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (520, 768, 3), dtype=np.uint8)


@pytest.fixture
def slide(tmp_path, pixels):
    """Write full size, thumbnail and one more level, in a scanner's order."""
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, description=NOTE, **TILED)
        tif.write(pixels[::8, ::8], photometric="rgb", description=NOTE, metadata=None)
        tif.write(pixels[::4, ::4], description=NOTE, **TILED)
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


@pytest.mark.parametrize("by", ["page", "SubIFD", "both"])
def test_levels_are_found_by_page_and_by_subifd(tmp_path, pixels, monkeypatch, by):
    path = str(tmp_path / "slide.svs")
    below = {"page": [], "SubIFD": [3, 7], "both": [7]}[by]
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, description=NOTE, subifds=len(below), **TILED)
        for step in below:
            tif.write(pixels[::step, ::step], subfiletype=1, **TILED)
        if by != "SubIFD":
            tif.write(pixels[::8, ::8], photometric="rgb", description=NOTE, metadata=None)
            for step in {3, 7} - {*below}:
                tif.write(pixels[::step, ::step], description=NOTE, **TILED)
    check_reader(open_slide, path)
    for level, step in enumerate((1, 3, 7)):
        monkeypatch.setenv(LEVEL, str(level))
        file, kept = open_slide(path), np.moveaxis(pixels[::step, ::step], -1, 0)
        np.testing.assert_array_equal(file.load(), kept)
        # Rows and columns were rounded differently on the way to this level.
        for y0 in range(0, kept.shape[1], 9):
            part = file.read(0, y=(y0, kept.shape[1]), x=(y0, kept.shape[2]))
            np.testing.assert_array_equal(part, kept[:, y0:, y0:])
        assert file.pixel_size["x"] == pytest.approx(0.5 * 768 / kept.shape[2])


def jpeg(pixels, *, markers):
    """Return a JPEG, and where the data between its restart markers start."""
    held = io.BytesIO()
    more = {"restart_marker_blocks": 8} if markers else {}
    Image.fromarray(pixels).save(held, "JPEG", quality=95, subsampling=0, **more)
    held = held.getvalue()
    scan = held.index(b"\xff\xda")
    scan += 2 + int.from_bytes(held[scan + 2 : scan + 4], "big")
    later = [scan + found.end() for found in re.finditer(b"\xff[\xd0-\xd7]", held[scan:])]
    return held, [scan, *later] if markers else []


def write_ndpi(path, pages):
    """Write levels as Hamamatsu's scanners do, and return their pixels.

    It is TIFF with offsets of pages in 64 bits, the upper halves of values behind each page, and
    one JPEG a level, whose restart markers are listed; small levels have none, a macro comes last.
    """
    out, chain, shown = bytearray(b"II*\0" + bytes(8)), 4, []
    for pixels, lens, microns in pages:
        encoded, starts = jpeg(pixels, markers=lens > 5)
        shown.append(np.asarray(Image.open(io.BytesIO(encoded))))
        at, (height, width) = len(out), pixels.shape[:2]
        out += encoded + bytes(-len(encoded) % 2)
        per_cm = struct.pack("<II", round(1e7 / microns), 1000)
        tags = [(256, "I", [width]), (257, "I", [height]), (258, "H", [8, 8, 8]), (259, "H", [7])]
        tags += [(262, "H", [6]), (271, "s", b"Hamamatsu\0"), (272, "s", b"NanoZoomer\0")]
        tags += [(273, "I", [at]), (277, "H", [3]), (278, "I", [height])]
        tags += [
            (279, "I", [len(encoded)]),
            (282, "r", per_cm),
            (283, "r", per_cm),
            (296, "H", [3]),
        ]
        tags += [(305, "s", b"NDP.scan 2.5\0"), (65420, "I", [1]), (65421, "f", [lens])]
        tags += [(65426, "I", starts)] * bool(starts) + [(65441, "I", [0])]
        entries = b""
        for code, kind, value in tags:
            raw = value if kind in "sr" else struct.pack(f"<{len(value)}{kind}", *value)
            count = len(value) if kind != "r" else 1
            entries += struct.pack("<HHI", code, " sHIrxxxxxxf".index(kind) + 1, count)
            entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", len(out))
            out += raw + bytes(len(raw) % 2) if len(raw) > 4 else b""
        struct.pack_into("<Q", out, chain, len(out))
        chain = len(out) + 2 + len(entries)
        out += struct.pack("<H", len(tags)) + entries + bytes(8) + bytes(4 * len(tags))
    path.write_bytes(out)
    return shown


def test_an_ndpi_as_a_scanner_writes_it_is_read(tmp_path, monkeypatch):
    y, x = np.mgrid[:192, :256]
    smooth = np.stack([y, x, (y + x) // 2], -1).astype(np.uint8)
    path = tmp_path / "slide.ndpi"
    pages = [(smooth, 20.0, 0.5), (smooth[::4, ::4].copy(), 5.0, 2.0), (smooth[:96], -1.0, 50.0)]
    shown = write_ndpi(path, pages)
    for level in (0, 1):
        monkeypatch.setenv(LEVEL, str(level))
        check_reader(open_slide, str(path))
        file = open_slide(str(path))
        np.testing.assert_allclose(file.load(), np.moveaxis(shown[level], -1, 0), atol=2)
        assert file.pixel_size == pytest.approx({"y": 0.5 * 4**level, "x": 0.5 * 4**level})
    monkeypatch.setenv(LEVEL, "2")
    with pytest.raises(UsageError, match=r"it has 0 \(192 x 256\), 1 \(48 x 64\)$"):
        open_slide(str(path))


def test_a_tiff_with_the_tags_and_name_of_ndpi_alone_is_read_as_what_it_is(tmp_path, pixels):
    path = str(tmp_path / "slide.ndpi")
    tags = [(271, "s", 0, "Hamamatsu", True), (65420, "I", 1, 1, True), (65421, "f", 1, 20.0, True)]
    size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, extratags=tags, **size, **TILED)
        tif.write(pixels[::4, ::4], extratags=tags, **TILED)
    check_reader(open_slide, path)
    file = open_slide(path)
    np.testing.assert_array_equal(file.load(), np.moveaxis(pixels, -1, 0))
    assert file.pixel_size == {"y": 0.5, "x": 0.5}


@pytest.mark.parametrize(("samples", "dtype"), [(1, np.uint16), (1, np.uint8), (3, np.uint16)])
def test_grey_and_deep_slides_keep_their_channels_and_type(tmp_path, samples, dtype):
    pixels = np.arange(160 * 192 * samples).reshape(160, 192, samples).astype(dtype)
    path = str(tmp_path / "slide.svs")
    with tifffile.TiffWriter(path) as tif:
        how = {**TILED, "photometric": "rgb" if samples == 3 else "minisblack"}
        tif.write(pixels if samples == 3 else pixels[..., 0], description=NOTE, **how)
    check_reader(open_slide, path)
    file = open_slide(path)
    kept = np.moveaxis(pixels, -1, 0) if samples == 3 else pixels[..., 0]
    assert (file.axes, file.dtype) == ("cyx" if samples == 3 else "yx", dtype)
    np.testing.assert_array_equal(file.load(), kept)


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
