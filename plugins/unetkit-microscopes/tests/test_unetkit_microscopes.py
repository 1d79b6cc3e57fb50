"""Read files as microscopes write them: scenes, channels, pixel size, regions, and refusals.

CZI are written here by pylibCZIrw. Real ND2 and LIF lie in the folder microscopes of
UNETKIT_TEST_DATA where there is one.
"""

import os
from pathlib import Path

import nd2
import numpy as np
import pytest
from liffile import LifFile
from pylibCZIrw import czi
from unetkit_microscopes.czi import open_czi
from unetkit_microscopes.lif import open_lif
from unetkit_microscopes.nd2 import open_nd2
from unetkit_microscopes.other import open_other

import unetkit
from unetkit.errors import InputError, ResourceError, UsageError
from unetkit.testing import check_reader

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (2, 2, 3, 70, 90), dtype=np.uint16)  # T, C, Z, Y, X
SIZE = {"scale_x": 0.5e-6, "scale_y": 0.25e-6, "scale_z": 2e-6}


def real(suffix):
    folder = Path(os.environ.get("UNETKIT_TEST_DATA", "nowhere")) / "microscopes"
    found = sorted(folder.glob(f"*{suffix}"))
    if not found:
        pytest.skip(f"no {suffix} in the folder microscopes of UNETKIT_TEST_DATA")
    return found


@pytest.fixture
def two_scenes(tmp_path):
    """Write two regions of different sizes, one of them left of and above the origin."""
    path = str(tmp_path / "slide.czi")
    with czi.create_czi(path) as document:
        for t, c, z in np.ndindex(GREY.shape[:3]):
            plane = {"T": t, "C": c, "Z": z}
            pixels = GREY[t, c, z][..., None]
            document.write(pixels, plane=plane, scene=0, location=(-5, -7))
            cut = np.ascontiguousarray(pixels[:40, :60])
            document.write(cut, plane=plane, scene=1, location=(500, 300))
        document.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, **SIZE)
    return path


def test_a_czi_keeps_the_contract_and_its_pixels(two_scenes):
    check_reader(open_czi, two_scenes)
    file = open_czi(two_scenes)
    assert (file.axes, file.dtype, file.scenes) == ("tczyx", np.uint16, ("0", "1"))
    np.testing.assert_array_equal(file.load(), GREY)
    assert file.pixel_size == {"y": 0.25, "x": 0.5, "z": 2.0}
    assert file.channel_names == ("DAPI", "GFP")
    second = open_czi(two_scenes, scene="1")
    np.testing.assert_array_equal(second.load(), GREY[..., :40, :60])
    part = second.read(4, y=(3, 9), x=(11, 59))
    np.testing.assert_array_equal(part, GREY[1, :, 1, 3:9, 11:59])


# pylibCZIrw writes colours of 32 bits and can't read them.
@pytest.mark.parametrize(
    ("dtype", "samples"),
    [(np.uint8, 1), (np.uint16, 1), (np.float32, 1), (np.uint8, 3), (np.uint16, 3)],
)
def test_pixels_of_every_type_come_in_as_red_green_blue_and_of_unknown_size(
    tmp_path, dtype, samples
):
    pixels = (RNG.random((33, 47, samples)) * 200).astype(dtype)
    path = str(tmp_path / "a.czi")
    with czi.create_czi(path) as document:
        # As a scanner writes it: tile by tile, blue first.
        for x, part in ((0, pixels[:, :20, ::-1]), (20, pixels[:, 20:, ::-1])):
            document.write(np.ascontiguousarray(part), plane={"C": 0}, location=(x, 0))
    check_reader(open_czi, path)
    file = open_czi(path)
    kept = np.moveaxis(pixels, -1, 0) if samples == 3 else pixels[..., 0]
    np.testing.assert_array_equal(file.load(), kept)
    assert (file.pixel_size, file.dtype) == (None, dtype)
    assert file.channel_names == (("red", "green", "blue") if samples == 3 else ())


def test_import_makes_a_sample_of_each_scene_or_an_image_of_one(two_scenes, tmp_path):
    both = str(tmp_path / "both.zarr")
    unetkit.import_images(two_scenes, both)
    assert unetkit.open_dataset(both).names == ("slide-0", "slide-1")
    one = str(tmp_path / "one.zarr")
    unetkit.import_images(two_scenes, one, scene="1", channels="GFP")
    image = unetkit.open_image(one)
    np.testing.assert_array_equal(image.data.read(0, 0, 40, 0, 60), GREY[0, 1:, 0, :40, :60])
    assert (image.channel_names, image.pixel_size["y"]) == (("GFP",), 0.25)
    with pytest.raises(UsageError, match=r"scene must be one of .*got 'top'; it has 0, 1$"):
        unetkit.import_images(two_scenes, str(tmp_path / "no.zarr"), scene="top")
    assert not (tmp_path / "no.zarr").exists()


def test_grey_and_colours_side_by_side_and_foreign_axes_are_refused(tmp_path, two_scenes):
    path = str(tmp_path / "a.czi")
    with czi.create_czi(path) as document:
        document.write(np.zeros((9, 9, 1), np.uint8), plane={"C": 0})
        document.write(np.zeros((9, 9, 3), np.uint8), plane={"C": 1})
    with pytest.raises(InputError, match="grey or colours of one kind, got Gray8, Bgr24"):
        open_czi(path)
    with pytest.raises(InputError, match="axes must be those of"):
        open_czi(two_scenes, axes="zyx")
    with pytest.raises(InputError, match="labels must be masks"):
        open_czi(two_scenes, labels=True)


def test_real_nd2_keep_the_contract_and_give_what_nd2_gives():
    for path in real(".nd2"):
        check_reader(open_nd2, str(path))
        file = open_nd2(str(path))
        if not file.scenes:
            np.testing.assert_array_equal(file.load().squeeze(), nd2.imread(path).squeeze())
        with nd2.ND2File(path) as opened:
            size = opened.voxel_size()
        assert file.pixel_size is None or file.pixel_size["x"] == size.x


def test_real_lif_keep_the_contract_and_give_what_liffile_gives():
    for path in real(".lif"):
        check_reader(open_lif, str(path))
        for number, scene in enumerate(open_lif(str(path)).scenes):
            file = open_lif(str(path), scene=scene)
            with LifFile(path) as opened:
                pixels = opened.images[number].asarray()
            # Axes may be in another order.
            assert sorted(pixels.shape) == sorted(n for n in file.shape if n > 1)
            assert int(pixels.sum(dtype=np.int64)) == int(file.load().sum(dtype=np.int64))


def test_a_scan_along_x_and_z_is_a_plane_or_a_volume():
    path = next((path for path in real(".lif") if path.name == "xz-example.lif"), None)
    if path is None:
        pytest.skip("xz-example.lif is not among the files")
    with LifFile(path) as opened:
        volume = opened.images["xzy"].asarray()  # Y, C, Z, X
    file = open_lif(str(path), scene="xzy")
    assert (file.axes, file.scenes) == ("czyx", ("xzt", "xzy", "xz"))
    np.testing.assert_array_equal(file.load(), volume.transpose(1, 2, 0, 3))
    assert open_lif(str(path), scene="xz").axes == "cyx"


@pytest.mark.parametrize("opened", [open_nd2, open_lif])
def test_other_files_are_refused_in_a_sentence(opened, tmp_path):
    for content in (b"", b"no image", bytes(4096)):
        (tmp_path / "a.nd2").write_bytes(content)
        with pytest.raises(InputError, match="image file must be readable"):
            opened(str(tmp_path / "a.nd2"))


def test_what_bioio_opens_or_what_to_install(tmp_path):
    path = str(tmp_path / "a.dv")
    try:
        import bioio  # noqa: F401
        import mrc
    except ImportError:
        Path(path).write_bytes(bytes(2048))
        with pytest.raises(ResourceError, match=r"pip install 'unetkit-microscopes\[bioio\]'"):
            open_other(path)
        return
    # Of fewer than five planes mrc makes channels.
    planes = GREY.reshape(-1, 70, 90)[:7].astype(np.int16)
    mrc.imsave(path, planes, resolution=(0.5, 0.25, 2))
    check_reader(open_other, path)
    file = open_other(path)
    np.testing.assert_array_equal(file.load(), planes)
    assert (file.axes, file.pixel_size) == ("zyx", {"y": 0.25, "x": 0.5, "z": 2.0})
    np.testing.assert_array_equal(file.read(5, y=(3, 9), x=(11, 59))[0], planes[5, 3:9, 11:59])
    mrc.imsave(path, planes[:3], ifExists="overwrite")
    check_reader(open_other, path)
    file = open_other(path)
    assert (file.axes, file.channel_names) == ("cyx", ())
    np.testing.assert_array_equal(file.load(), planes[:3])


def test_bioio_gives_the_pixels_of_real_nd2_that_nd2_gives():
    pytest.importorskip("bioio_nd2")
    for path in map(str, real(".nd2")):
        check_reader(open_other, path)
        other, own = open_other(path), open_nd2(path)
        assert (other.axes, other.channel_names) == (own.axes, own.channel_names)
        np.testing.assert_array_equal(other.load(), own.load())
