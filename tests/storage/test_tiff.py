"""TIFF of every layout against the array that was saved, and what a TIFF must say."""

from __future__ import annotations

import os
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.errors import InputError, LabelError
from unetkit.storage.readers import open_file
from unetkit.storage.tiff import open_tiff
from unetkit.storage.tiff_bands import Bands

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
    mask = open_tiff(path, labels=True)
    assert np.array_equal(mask.load(), RGB[..., 0])
    code = "".join(f"{part:02x}" for part in colours[:, 0])
    assert mask.remarks == (f"carry a palette, whose indices came in, 0 (#{code}) as background",)


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
        with pytest.raises(InputError, match=r"all that it speaks of, got \d pages"):
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


PLANES = RNG.integers(1, 4000, (3, 20, 30), dtype=np.uint16)
OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">{inside}</OME>'
PIXELS = (
    '<Image ID="Image:{k}"><Pixels DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20"'
    ' SizeC="{c}" SizeZ="{z}" SizeT="1">{inside}</Pixels></Image>'
)
PLANE = (
    '<TiffData FirstC="{c}" IFD="{ifd}" PlaneCount="{count}">'
    '<UUID FileName="{name}">{uuid}</UUID></TiffData>'
)


def uuid(k):
    return f"urn:uuid:0000000{k}-0000-4000-8000-000000000000"


def one_image(places):
    """Return metadata of one image whose channels lie at (file, page)."""
    lines = [
        PLANE.format(c=c, ifd=ifd, count=1, name=f"s{k}.ome.tif", uuid=uuid(k))
        for c, (k, ifd) in enumerate(places)
    ]
    return PIXELS.format(k=0, c=len(places), z=1, inside="".join(lines))


def write_set(folder, contents, inside, *, options=({},), binary_only=()):
    """Write files of a set: the pages of each, and what all say or that another one says it."""
    for k, pages in enumerate(contents):
        said = inside
        if k in binary_only:
            said = f'<BinaryOnly MetadataFile="s0.ome.tif" UUID="{uuid(0)}"/>'
        save(
            folder / f"s{k}.ome.tif",
            pages,
            metadata=None,
            description=OME.format(uuid=uuid(k), inside=said),
            **options[k % len(options)],
        )
    return [str(folder / f"s{k}.ome.tif") for k in range(len(contents))]


SETS = [
    ({},),
    ({"compression": "zlib"},),
    ({"compression": "lzw", "tile": (16, 16)}, {"byteorder": ">"}, {"rowsperstrip": 7}),
]


@pytest.mark.parametrize("options", SETS)
@pytest.mark.parametrize("binary_only", [(), (1, 2)])
def test_each_plane_of_a_set_comes_from_its_own_file(tmp_path, options, binary_only):
    inside = one_image([(0, 0), (1, 0), (2, 0)])
    contents = [plane[None] for plane in PLANES]
    paths = write_set(tmp_path, contents, inside, options=options, binary_only=binary_only)
    for path in paths:
        file = open_tiff(path)
        assert np.array_equal(file.load(), PLANES)
        assert set(file.files) == set(paths) - {path}
        back = np.concatenate([block for *_, block in file.strips(6)], axis=1)
        assert np.array_equal(back, PLANES)


def test_a_plane_on_a_later_page_of_another_file(tmp_path):
    contents = [PLANES[:1], np.stack([PLANES[0], PLANES[2], PLANES[1]])]
    paths = write_set(tmp_path, contents, one_image([(0, 0), (1, 2), (1, 1)]))
    assert np.array_equal(open_tiff(paths[0]).load(), PLANES)


def test_an_image_of_its_own_in_each_file_of_a_set(tmp_path):
    # A plate: every file tells of all images.
    planes = [
        PLANE.format(c=0, ifd=0, count=1, name=f"s{k}.ome.tif", uuid=uuid(k)) for k in range(3)
    ]
    inside = "".join(PIXELS.format(k=k, c=1, z=1, inside=line) for k, line in enumerate(planes))
    for path, plane in zip(write_set(tmp_path, PLANES, inside), PLANES, strict=True):
        file = open_tiff(path)
        assert np.array_equal(file.load(), plane)
        assert (file.files, file.remarks) == ((), ())


@pytest.mark.parametrize("binary_only", [(), (1, 2)])
def test_a_file_that_is_absent_from_a_set_is_named(tmp_path, binary_only):
    inside = one_image([(0, 0), (1, 0), (2, 0)])
    contents = [plane[None] for plane in PLANES]
    paths = write_set(tmp_path, contents, inside, binary_only=binary_only)
    Path(paths[0]).unlink()
    with pytest.raises(InputError, match=r"s0\.ome\.tif.*copy the whole set into one folder"):
        open_tiff(paths[2])


@pytest.mark.parametrize("name", ["../s1.ome.tif", "/etc/passwd", "pipe"])
def test_a_set_reaches_for_no_file_elsewhere(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    inside = one_image([(0, 0), (1, 0)]).replace("s1.ome.tif", name)
    (path,) = write_set(tmp_path, PLANES[:1], inside)
    with pytest.raises(InputError, match="1 of 1 absent"):
        open_tiff(path)


def test_files_of_a_set_that_differ_are_refused(tmp_path):
    paths = write_set(tmp_path, [PLANES[0], PLANES[1, :10]], one_image([(0, 0), (1, 0)]))
    with pytest.raises(InputError, match="planes of one size and type"):
        open_tiff(paths[0])


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "<TiffData/>",
        '<TiffData FirstZ="1" IFD="0"/>' * 9,
        '<TiffData IFD="0" PlaneCount="1000000000"/>',
    ],
)
@pytest.mark.parametrize("z", [3, 10**4, 10**9])
def test_planes_that_metadata_promise_and_no_page_holds(tmp_path, inside, z):
    described = PIXELS.format(k=0, c=1, z=z, inside=inside)
    (path,) = write_set(tmp_path, PLANES[:1], described)
    with pytest.raises(InputError, match=f"got 1 of {z} planes"):
        open_tiff(path)


def with_tags(path, **tags):
    """Overwrite tags of the first page."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name, value in tags.items():
            tif.pages[0].tags[name].overwrite(value)
    return str(path)


HUGE = {"ImageWidth": 10**6, "ImageLength": 10**6, "RowsPerStrip": 10**6}


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "jpeg"])
@pytest.mark.parametrize(
    "tags",
    [HUGE, {**HUGE, "RowsPerStrip": 20}, {"ImageDepth": 10**6}, {**HUGE, "ImageDepth": 10**6}],
)
def test_a_small_file_that_claims_much_is_refused_before_it_is_read(tmp_path, compression, tags):
    path = tmp_path / "a.tif"
    deep = "ImageDepth" in tags
    pixels = np.zeros((2, 20, 30) if deep else (20, 30), np.uint8)
    save(path, pixels, compression=compression, rowsperstrip=20, volumetric=deep)
    with_tags(path, **tags)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="must hold"):
            open_tiff(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tag", ["StripOffsets", "StripByteCounts"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_strip_that_is_absent(tmp_path, tag, compression):
    path = save(tmp_path / "a.tif", STACK[0, 0], rowsperstrip=10, compression=compression)
    with tifffile.TiffFile(path) as tif:
        values = list(tif.pages[0].tags[tag].value)
    file = open_tiff(with_tags(path, **{tag: [*values[:2], 0, *values[3:]]}))
    assert (file.absent, file.parts) == (1, 5)
    expected = STACK[0, 0].copy()
    expected[20:30] = 0
    assert np.array_equal(file.load(), expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_without_a_single_strip_is_refused(tmp_path, compression):
    path = save(tmp_path / "a.tif", STACK[0, 0], compression=compression)
    with pytest.raises(InputError, match="got none of 1 tiles or strips"):
        open_tiff(with_tags(path, StripOffsets=0))


@pytest.mark.parametrize("imagej", [True, False])
def test_a_lookup_table_of_imagej_is_no_colour(tmp_path, imagej):
    table = np.stack([np.arange(255, -1, -1, dtype=np.uint16) * 257] * 3)
    options = {"metadata": None, "description": "ImageJ=1.54f\nimages=1\n"} if imagej else {}
    path = save(tmp_path / "a.tif", RGB[..., 0], photometric="palette", colormap=table, **options)
    file = open_tiff(path)
    assert file.axes == "yx"
    # Any other palette of greys gives its greys.
    assert np.array_equal(file.load(), RGB[..., 0] if imagej else 255 - RGB[..., 0])
    assert ("lookup table" in str(file.remarks)) is imagej


CELL = np.zeros((20, 30), bool)
CELL[5:9, 4:20] = True


@pytest.mark.parametrize(
    ("write", "inverted"),
    [
        (lambda path: tifffile.imwrite(path, CELL), False),
        (lambda path: tifffile.imwrite(path, CELL, metadata=None), False),
        (lambda path: tifffile.imwrite(path, CELL, photometric="minisblack"), False),
        (lambda path: Image.fromarray(CELL).save(path), False),
        (lambda path: Image.fromarray(CELL).save(path, tiffinfo={262: 0}), True),
        (lambda path: Image.fromarray(CELL).save(path, compression="group4"), False),
        (
            lambda path: Image.fromarray(CELL).save(path, compression="group4", tiffinfo={262: 0}),
            True,
        ),
    ],
)
def test_objects_of_a_yes_no_mask_whoever_wrote_it(tmp_path, write, inverted):
    path = str(tmp_path / "a.tif")
    write(path)
    file = open_tiff(path, labels=True)
    assert np.array_equal(file.load(), CELL)
    assert ("as viewers show them" in str(file.remarks)) is inverted


def test_more_bits_that_are_said_to_be_inverted(tmp_path):
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, RGB[..., 0], photometric="miniswhite", software="", metadata=None)
    with pytest.raises(LabelError, match="PhotometricInterpretation 0"):
        open_tiff(path, labels=True)
    text = "ImageJ=1.54f\nimages=1\n"
    tifffile.imwrite(
        path, RGB[..., 0], photometric="miniswhite", software="", metadata=None, description=text
    )
    assert np.array_equal(open_tiff(path, labels=True).load(), RGB[..., 0])


def test_labels_keep_their_alpha(tmp_path):
    path = save(
        tmp_path / "a.tif", RGB[..., :2], extrasamples=["unassalpha"], planarconfig="contig"
    )
    file = open_tiff(path, labels=True)
    assert (file.axes, file.alpha, file.alpha_dropped) == ("cyx", True, False)
    assert np.array_equal(file.load(), np.moveaxis(RGB[..., :2], -1, 0))


@pytest.mark.parametrize(
    ("metadata", "resolution", "expected"),
    [
        # FileOpener of ImageJ: only "um" makes a resolution by the centimetre one in micrometres.
        ({"unit": "um"}, (40000, 20000), {"y": 0.5, "x": 0.25}),
        ({"unit": "cm"}, (4, 2), {"y": 5000, "x": 2500}),
        ({"unit": "mm", "yunit": "um"}, (4000, 2), {"y": 0.5, "x": 0.25}),
        ({"unit": "\\u00C5", "yunit": "nm"}, (0.0004, 0.002), {"y": 0.5, "x": 0.25}),
    ],
)
def test_units_of_imagej(tmp_path, metadata, resolution, expected):
    options = {"imagej": True, "resolution": resolution, "metadata": metadata}
    unit = 3 if "yunit" not in metadata else 1
    path = save(tmp_path / "a.tif", STACK[0, 0], resolutionunit=unit, **options)
    assert open_tiff(path).pixel_size == expected


def test_an_angstrom_of_ome(tmp_path):
    sizes = {f"PhysicalSize{axis}": 2500 for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": "\u00c5" for axis in "XY"}
    path = save(tmp_path / "a.ome.tif", STACK[0, 0], ome=True, metadata={**sizes, **units})
    assert open_tiff(path).pixel_size == {"y": 0.25, "x": 0.25}


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("shape", [(6, 20, 30), (10**6, 20, 30), (2, 3, 20, 30)])
def test_pages_that_tifffile_wrote_down_and_no_page_holds(tmp_path, shape, compression):
    options = {"metadata": None, "compression": compression}
    said = f'{{"shape": {list(shape)}}}'
    path = save(tmp_path / "a.tif", PLANES[0], description=said, **options)
    with pytest.raises(InputError, match="must hold all that it speaks of"):
        open_tiff(path)
    # A program that changes the size keeps the words.
    path = save(tmp_path / "a.tif", PLANES[0, :10], description=said, **options)
    assert open_tiff(path).shape == (10, 30)
