"""TIFF of every layout against the array that was saved, and what a TIFF must say."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unetkit.errors import InputError
from unetkit.storage.readers import open_file
from unetkit.storage.tiff import Bands, open_tiff

RNG = np.random.default_rng(1)
STACK = RNG.integers(0, 65536, (2, 3, 50, 41), dtype=np.uint16)
RGB = RNG.integers(0, 256, (50, 41, 3), dtype=np.uint8)


def save(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return str(path)


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"compression": "zlib"},
    {"compression": "lzw", "tile": (16, 32)},
    {"rowsperstrip": 7},
    {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
    {"metadata": None, "rowsperstrip": 7},
    {"bigtiff": True, "tile": (16, 16), "byteorder": ">", "compression": "zlib"},
    {"tile": (64, 64)},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("height", [50, 16, 1])
def test_pages_of_every_layout(tmp_path, layout, height):
    pages = STACK.reshape(6, 50, 41)
    file = open_tiff(save(tmp_path / "a.tif", pages, **layout), axes="zyx")
    assert (file.axes, file.shape, file.dtype) == ("zyx", (6, 50, 41), np.uint16)
    back = np.zeros_like(pages)
    for plane, y0, block in file.strips(height):
        assert block.shape[0] == 1
        back[plane, y0 : y0 + height] = block[0]
    assert np.array_equal(back, pages)


@pytest.mark.parametrize("options", [{"ome": True, "compression": "zlib"}, {"imagej": True}])
def test_axes_of_ome_and_imagej(tmp_path, options):
    file = open_tiff(save(tmp_path / "a.tif", STACK, metadata={"axes": "ZCYX"}, **options))
    assert file.axes == "czyx"
    assert np.array_equal(file.load(), STACK.swapaxes(0, 1))


@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_and_alpha(tmp_path, tile, planar, channels):
    pixels = np.dstack([RGB, RGB[..., :1]])[..., :channels]
    saved = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
    path = save(
        tmp_path / "a.tif",
        saved,
        photometric="rgb",
        planarconfig=planar,
        tile=tile,
        compression="zlib",
    )
    file = open_tiff(path)
    assert (file.axes, file.channel_names) == ("cyx", ("red", "green", "blue"))
    assert file.alpha_dropped is (channels == 4)
    assert np.array_equal(file.load(), np.moveaxis(RGB, -1, 0))


def test_grey_and_alpha_is_grey_and_a_fourth_channel_that_is_no_alpha_stays(tmp_path):
    path, options = tmp_path / "a.tif", {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
    file = open_tiff(save(path, RGB[..., :2], **options))
    assert (file.axes, file.alpha_dropped) == ("yx", True)
    assert np.array_equal(file.load(), RGB[..., 0])
    pixels = np.dstack([RGB, RGB[..., :1]])
    file = open_tiff(save(path, pixels, photometric="rgb", extrasamples=["unspecified"]))
    assert (file.shape, file.alpha_dropped) == ((4, 50, 41), False)


def test_a_palette_is_colours_or_as_labels_indices(tmp_path):
    colours = RNG.integers(0, 256, (3, 256), dtype=np.uint8)
    path = save(
        tmp_path / "a.tif",
        RGB[..., 0],
        photometric="palette",
        colormap=colours.astype(np.uint16) * 257,
    )
    assert np.array_equal(open_tiff(path).load(), colours[:, RGB[..., 0]])
    assert np.array_equal(open_tiff(path, labels=True).load(), RGB[..., 0])


@pytest.mark.parametrize("dtype", ["bool", "int16", "float16", "float32", "float64", "uint32"])
def test_numbers_of_every_type(tmp_path, dtype):
    pixels = (RGB[..., 0] % 2).astype(dtype)
    path = save(tmp_path / "a.tif", pixels)
    assert np.array_equal(open_tiff(path, labels=True).load(), pixels)
    image = open_file(path)
    assert image.dtype in (np.uint8, np.float32)
    assert np.array_equal(image.load(), pixels)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
def test_images_of_one_row_or_column(tmp_path, shape):
    pixels = RGB[: shape[0], : shape[1], 0]
    for options in ({}, {"compression": "zlib"}, {"ome": True}):
        assert np.array_equal(open_tiff(save(tmp_path / "a.tif", pixels, **options)).load(), pixels)


def test_jpeg_inside_a_tiff_is_lossy(tmp_path):
    smooth = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None, None], (48, 64, 3)).copy()
    path = save(tmp_path / "a.tif", smooth, photometric="rgb", compression="jpeg", tile=(16, 16))
    file = open_tiff(path)
    assert file.lossy
    assert np.abs(file.load().astype(int) - np.moveaxis(smooth, -1, 0)).max() < 8


def test_pages_that_nobody_explains_want_axes_that_fit(tmp_path):
    path = save(tmp_path / "a.tif", STACK[0])
    with pytest.raises(InputError, match=r"\(3, 50, 41\) must say .* --axes, for example --axes z"):
        open_tiff(path)
    for axes in ("tyx", "cyx"):
        assert open_tiff(path, axes=axes).axes == axes
    for axes in ("yx", "zcyx", "yxz"):
        with pytest.raises(InputError, match="axes must fit the dimensions"):
            open_tiff(path, axes=axes)
    assert open_tiff(save(tmp_path / "b.tif", STACK[0, 0]), axes="zyx", labels=True).axes == "yx"


def test_three_pages_taken_for_colours_can_be_named(tmp_path):
    path = save(tmp_path / "a.tif", STACK[0], photometric="rgb", planarconfig="separate")
    assert open_tiff(path).axes == "cyx"
    file = open_tiff(path, axes="zyx")
    assert file.axes == "zyx"
    assert np.array_equal(file.load(), STACK[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "lzw", "tile": (16, 16)},
        {"imagej": True},
        {"ome": True},
        {"metadata": None, "compression": "zlib"},
    ],
)
@pytest.mark.parametrize("kept", [0.001, 0.02, 0.3, 0.7, 0.99])
def test_cut_short(tmp_path, options, kept):
    pages = STACK.reshape(6, 50, 41)
    path = Path(save(tmp_path / "a.tif", pages, **options))
    assert np.array_equal(open_tiff(str(path), axes="zyx").load(), pages)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    try:
        pixels = open_tiff(str(path), axes="zyx").load()
    except InputError:
        return
    # The last bytes may be a text that nobody needs; pixels are never fewer or others.
    assert np.array_equal(pixels, pages)
    assert kept > 0.9


@pytest.mark.parametrize("options", [{"metadata": None, "compression": "zlib"}, {"imagej": True}])
def test_cut_between_two_pages(tmp_path, options):
    path = Path(save(tmp_path / "a.tif", STACK.reshape(6, 50, 41), **options))
    with tifffile.TiffFile(path) as tif:
        # What is left reads without an error, as a file of fewer pages.
        end = tif.pages[5].offset if "metadata" in options else tif.pages[1].dataoffsets[0]
    path.write_bytes(path.read_bytes()[:end])
    assert tifffile.imread(path).shape[0] in (5, 50)
    for axes in ("zyx", None):
        with pytest.raises(InputError, match="all the pages it speaks of"):
            open_tiff(str(path), axes=axes)


def test_what_is_no_tiff_or_in_colours_of_print_is_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.dstack([RGB, RGB])[..., :4], photometric="separated")
    with pytest.raises(InputError, match="got SEPARATED"):
        open_tiff(path)
    Path(path).write_bytes(b"not a TIFF at all")
    with pytest.raises(InputError, match="must be readable"):
        open_tiff(path)


def test_what_else_a_user_should_know(tmp_path):
    path = save(tmp_path / "a.tif", RGB[..., 0], photometric="miniswhite")
    file = open_tiff(path)
    assert "0 is white" in file.remarks[0]
    assert np.array_equal(file.load(), RGB[..., 0])
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(STACK[0, 0])
        writer.write(RGB, photometric="rgb")
    assert "more than one series" in open_tiff(str(tmp_path / "b.tif")).remarks[0]


class CountedBands(Bands):
    """Counts how often each segment of the file is decoded."""

    decoded: Counter[tuple[int, int]]

    def _segment(self, page, number, index):
        if (number, index) not in self.segments:
            self.decoded[number, index] += 1
        return super()._segment(page, number, index)


@pytest.mark.parametrize("options", [{"tile": (48, 32)}, {"rowsperstrip": 20}, {}])
@pytest.mark.parametrize("height", [16, 50, 128])
def test_every_segment_is_decoded_once(tmp_path, options, height):
    pixels = np.random.default_rng(2).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    path = save(tmp_path / "a.tif", pixels, photometric="rgb", compression="zlib", **options)
    with tifffile.TiffFile(path) as tif:
        bands = CountedBands(tif.series[0], path)
        bands.decoded = Counter()
        for y0 in range(0, 128, height):
            for channel in range(3):
                bands.read((slice(y0, min(y0 + height, 128)), slice(None), channel))
        count = len(tif.pages[0].dataoffsets)
    assert bands.decoded == {(0, index): 1 for index in range(count)}


@pytest.mark.parametrize("options", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_memory_is_that_of_a_band(tmp_path, options):
    path = str(tmp_path / "a.tif")
    # 192 MiB of pixels in a file of a few hundred kilobytes; this array takes no memory.
    pixels = np.broadcast_to(np.full((1, 1, 3), 7, np.uint8), (8192, 8192, 3))
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", **options)
    file = open_tiff(path)
    tracemalloc.start()
    try:
        total = sum(int(block[1, ::64, ::64].sum()) for _, _, block in file.strips(512))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 7 * 128 * 128
    band = 512 * 8192 * 3
    assert peak < 6 * band
    assert peak < 8192 * 8192 * 3 / 2


def test_an_uncompressed_file_is_mapped(tmp_path):
    path = save(tmp_path / "a.tif", RGB[..., 0])
    with tifffile.TiffFile(path) as tif:
        assert isinstance(Bands(tif.series[0], path).whole, np.memmap)


def test_a_tile_that_was_never_written_is_black(tmp_path):
    path = tmp_path / "a.tif"
    tiles = [np.full((16, 16), 5, np.uint8), None, None, np.full((16, 16), 9, np.uint8)]
    tifffile.imwrite(
        path, iter(tiles), shape=(32, 32), dtype=np.uint8, tile=(16, 16), compression="zlib"
    )
    expected = np.zeros((32, 32), np.uint8)
    expected[:16, :16], expected[16:, 16:] = 5, 9
    assert np.array_equal(open_tiff(str(path)).load(), expected)


@pytest.mark.parametrize(
    ("options", "metadata", "names"),
    [
        (
            {"ome": True},
            {
                "PhysicalSizeX": 0.25,
                "PhysicalSizeY": 500,
                "PhysicalSizeYUnit": "nm",
                "PhysicalSizeZ": 2,
                "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
            },
            ("DAPI", "GFP", "RFP"),
        ),
        ({"imagej": True, "resolution": (4, 2)}, {"unit": "um", "spacing": 2.0}, ()),
    ],
)
def test_sizes_and_names_of_ome_and_imagej(tmp_path, options, metadata, names):
    path = save(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZCYX", **metadata}, **options)
    file = open_tiff(path)
    assert file.pixel_size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert file.channel_names == names


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"imagej": True, "resolution": (4, 2), "metadata": {"unit": unit}}
            for unit in ("inch", "pixel", "", "furlong")
        ),
        {"resolution": (300, 300), "resolutionunit": "INCH"},
        {"description": "<?xml version='1.0'?><OME>broken"},
    ],
)
def test_neither_other_units_nor_printing_nor_damage_give_a_pixel_size(tmp_path, options):
    assert open_tiff(save(tmp_path / "a.tif", STACK[0, 0], **options)).pixel_size is None
