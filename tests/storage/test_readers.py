"""PNG and JPEG of every mode, and what readers hand out: planes, strips, stored types."""

import os
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage import readers
from unetkit.storage.image_file import PNG_SIGNATURE, ImageFile, check_axes, reading
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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".tf8"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_the_bytes_choose_between_formats_and_not_the_name(kind, suffix, tmp_path):
    path = save(tmp_path / f"a{suffix}", GREY, format=kind)
    file = open_file(path, labels=True)
    assert file.lossy == (kind == "JPEG")
    if kind != "JPEG":
        np.testing.assert_array_equal(file.load(), GREY)


def test_further_pictures_of_a_phone_s_jpeg_are_said(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "b.jpg")
    several = "hold more than one picture, of which the first came in"
    remarks = [open_file(str(tmp_path / name)).remarks for name in ("a.jpg", "b.jpg")]
    assert remarks == [(several,), ()]


def test_the_suffixes_are_those_of_the_readers_in_capitals_too(tmp_path):
    assert set(suffixes()) >= {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
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
        background = ", black as background" if labels else ""
        assert file.remarks == (f"carry a palette, whose greys came in{background}",)


@pytest.mark.parametrize(
    ("palette", "shown"),
    [
        ([255, 255, 255, 0, 0, 0], "white"),  # as ImageJ shows a mask
        ([255, 255, 255, 0, 0, 0, 128, 128, 128], "white"),
        ([9, 9, 9, 255, 255, 255], "#090909"),
        ([10, 20, 30, 255, 0, 0, 0, 255, 0], "#0a141e"),
        ([0, 0, 0] + 2 * [255, 255, 255], "black"),
    ],
)
def test_index_0_of_the_palette_of_a_mask_is_background_and_said(palette, shown, tmp_path):
    indices = GREY % (len(palette) // 3)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette(palette)
    picture.save(tmp_path / "a.png")
    file = open_file(str(tmp_path / "a.png"), labels=True)
    assert np.array_equal(file.load(), indices)
    said = f"carry a palette, whose indices came in, 0 ({shown}) as background"
    assert file.remarks == (said,)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_greys_of_few_bits_come_as_stored(tmp_path, bits, labels):
    values = (np.arange(120).reshape(10, 12) % 2**bits).astype(np.uint8)
    rows = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(10, -1)
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 12, 10, bits, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    path.write_bytes(
        PNG_SIGNATURE
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        )
    )
    assert np.array_equal(open_file(str(path), labels=labels).load(), values)


def test_a_second_picture_of_a_file_is_not_dropped_without_a_word(tmp_path):
    path = str(tmp_path / "a.png")
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    file = open_file(path)
    assert np.array_equal(file.load(), GREY)
    assert file.remarks == ("hold more than one picture, of which the first came in",)


def test_labels_that_a_palette_shows_alike_stay_apart(tmp_path):
    palette = Image.fromarray(GREY % 4).convert("P")
    palette.putpalette([0, 0, 0] + [255, 255, 255] * 3)
    path = str(tmp_path / "a.png")
    palette.save(path, transparency=0)
    assert np.array_equal(open_file(path).load(), (GREY % 4 > 0) * 255)
    labels = open_file(path, labels=True)
    assert np.array_equal(labels.load(), GREY % 4)
    assert "indices" in labels.remarks[0]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [2, 4])
def test_labels_keep_their_alpha(tmp_path, channels, deep):
    pixels = DEEP[..., :channels] if deep else (DEEP[..., :channels] >> 8).astype(np.uint8)
    file = open_file(encode(tmp_path / "a.png", pixels), labels=True)
    assert (file.axes, file.alpha, file.alpha_dropped) == ("cyx", True, False)
    assert np.array_equal(file.load(), np.moveaxis(pixels, -1, 0))


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


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_orientation_is_told_and_not_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    path = save(tmp_path / f"a.{suffix}", RGB, exif=exif)
    file = open_file(path)
    assert file.shape == (3, 11, 13)
    assert "orientation" in file.remarks[0]
    assert file.turned
    assert not open_file(save(tmp_path / f"b.{suffix}", RGB)).remarks


def test_an_orientation_behind_the_pixels_of_a_png_is_told_too(tmp_path):
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    path = Path(save(tmp_path / "a.png", RGB, exif=exif))
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    chunk, rest = content[at:end], content[:at] + content[end:]
    assert rest[-8:-4] == b"IEND"
    path.write_bytes(rest[:-12] + chunk + rest[-12:])
    file = open_file(str(path))
    assert file.turned
    assert np.array_equal(file.load(), np.moveaxis(RGB, -1, 0))


SMOOTH = np.broadcast_to(np.arange(0, 240, dtype=np.uint8)[:, None, None], (240, 300, 3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 100, "subsampling": 0},
        {"progressive": True},
        {"subsampling": 2, "restart_marker_blocks": 3},
        {"optimize": True, "comment": "a"},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_damaged_data_of_a_jpeg_are_seen(tmp_path, options, channels):
    pixels = np.ascontiguousarray(SMOOTH[..., 0] if channels == 1 else SMOOTH)
    path = Path(save(tmp_path / "a.jpg", pixels, **options))
    whole = path.read_bytes()
    for tail in (b"", bytes(64), b"some words"):
        path.write_bytes(whole + tail)
        assert not open_file(str(path)).is_damaged()
    before = open_file(str(path)).load()
    data = bytearray(whole)
    noise = np.random.default_rng(0).integers(0, 255, 64, dtype=np.uint8)
    data[len(data) // 2 : len(data) // 2 + 64] = noise.tobytes()
    path.write_bytes(data)
    file = open_file(str(path))
    assert not np.array_equal(file.load(), before)
    assert file.is_damaged()


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


def png(rows, shape, *, depth, colour, interlaced=0):
    """Make a PNG of rows of bytes, each without its filter."""
    header = struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    chunks = {b"IHDR": header, b"PLTE": bytes([0, 0, 0, *range(9)]), b"IDAT": data, b"IEND": b""}
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
        if name != b"PLTE" or colour == 3
    )


@pytest.mark.parametrize(
    ("depth", "colour", "row"),
    [(1, 0, 2), (2, 0, 4), (8, 0, 13), (16, 0, 26), (8, 2, 39), (16, 2, 78), (2, 3, 4), (8, 4, 26),
     (8, 6, 52)],
)  # fmt: skip
def test_a_png_that_lacks_rows_is_refused_and_a_black_one_is_not(tmp_path, depth, colour, row):
    path = tmp_path / "a.png"
    for labels in (False, True):
        path.write_bytes(png([bytes(row)] * 9, (9, 13), depth=depth, colour=colour))
        assert not open_file(str(path), labels=labels).load().any()
        # The last byte alone is one that decoders fill in.
        for rows in ([bytes(row)] * 8 + [bytes(row - 1)], [bytes([255] * row)] * 5):
            path.write_bytes(png(rows, (9, 13), depth=depth, colour=colour))
            with pytest.raises(InputError, match="damaged or cut short"):
                open_file(str(path), labels=labels).load()


@pytest.mark.parametrize("shape", [(9, 13), (1, 1), (3, 2), (1, 6)])
def test_an_interlaced_png_is_read_whole_or_refused(tmp_path, shape):
    full = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    passes = [full[::8, ::8], full[::8, 4::8], full[4::8, ::4], full[::4, 2::4], full[2::4, ::2],
              full[::2, 1::2], full[1::2]]  # fmt: skip
    rows = [row for part in passes if part.size for row in part]
    path = tmp_path / "a.png"
    path.write_bytes(png(rows, shape, depth=8, colour=0, interlaced=1))
    np.testing.assert_array_equal(open_file(str(path)).load(), full)
    path.write_bytes(png(rows[:-1], shape, depth=8, colour=0, interlaced=1))
    with pytest.raises(InputError, match="damaged or cut short"):
        open_file(str(path)).load()


def test_a_png_whose_data_can_t_hold_its_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png([bytes(2)], (30_000, 30_000), depth=8, colour=0))
    with pytest.raises(InputError, match="fewer pixels than its header promises"):
        open_file(str(path))


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


def image_file(array, axes):
    """Make an image file that lies in memory, along any of the axes t, c, z, y, x in order."""
    whole = array.reshape([array.shape[axes.index(a)] if a in axes else 1 for a in "tczyx"])

    def strips(height):
        planes = whole.transpose(0, 2, 1, 3, 4).reshape(-1, whole.shape[1], *whole.shape[3:])
        for number, plane in enumerate(planes):
            for y0 in range(0, plane.shape[1], height):
                yield number, y0, plane[:, y0 : y0 + height]

    return ImageFile("a.tif", axes, array.shape, array.dtype, strips)


@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tcyx", "czyx", "tczyx"])
def test_load_puts_planes_and_channels_in_their_places(axes):
    sizes = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
    shape = [sizes[axis] for axis in axes]
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    file = image_file(array, axes)
    assert np.array_equal(file.load(), array)
    assert file.planes == file.size("t") * file.size("z")


@pytest.mark.parametrize(
    ("dtype", "stored", "remark"),
    [
        ("uint8", "uint8", False),
        ("uint16", "uint16", False),
        ("float32", "float32", False),
        ("bool", "uint8", False),
        ("float64", "float32", True),
        ("int16", "float32", True),
        ("int32", "float32", True),
    ],
)
def test_stored_types(dtype, stored, remark):
    array = np.array([[0, 1], [1, 0]], dtype=dtype)
    file = image_file(array, "yx").stored()
    loaded = file.load()
    assert file.dtype == loaded.dtype == stored
    assert np.array_equal(loaded, array)
    assert bool(file.remarks) is remark


def test_complex_pixels_are_refused_and_a_large_float64_is_infinite_without_a_warning():
    with pytest.raises(InputError, match="real numbers, got complex64"):
        image_file(np.zeros((2, 2), np.complex64), "yx").stored()
    assert np.isinf(image_file(np.array([[1e300]]), "yx").stored().load()).all()


def test_picked_channels_come_in_the_chosen_order():
    array = np.arange(3 * 4 * 2 * 5, dtype=np.uint8).reshape(3, 4, 2, 5)
    picked = image_file(array, "czyx").pick([2, 0])
    assert np.array_equal(picked.load(), array[[2, 0]])


@pytest.mark.parametrize("axes", ["zy", "yy", "qyx", "", "cyxs"])
def test_axes_that_make_no_sense(axes):
    assert check_axes("ZYX") == "zyx"
    with pytest.raises(UsageError, match="different letters of tczyx"):
        check_axes(axes)


def test_decoders_errors_become_one_sentence():
    words = r"got 'a\.png' \(broken in two\); it may be damaged"
    with pytest.raises(InputError, match=words), reading("a.png"):
        raise RuntimeError("broken\n  in two")
    with pytest.raises(MissingError), reading("a.png"):
        raise FileNotFoundError
    with pytest.raises(UsageError), reading("a.png"):
        raise UsageError("kept")
    with pytest.raises(MemoryError), reading("a.png"):
        raise MemoryError


@pytest.mark.parametrize("suffix", ["tf2", "tf8", "btf", "BTF"])
def test_big_tiff_by_the_names_of_ome(tmp_path, suffix):
    path = tmp_path / f"a.ome.{suffix}"
    tifffile.imwrite(path, GREY, bigtiff=True, ome=True)
    assert np.array_equal(open_file(str(path)).load(), GREY)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="got a folder, pipe or device"):
        open_file(str(tmp_path / f"a.{suffix}"))
