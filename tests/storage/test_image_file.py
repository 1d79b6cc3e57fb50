"""What readers hand out: planes, strips, stored types, and errors as one sentence."""

import numpy as np
import pytest

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage.image_file import ImageFile, check_axes, reading


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


def test_complex_pixels_are_refused():
    with pytest.raises(InputError, match="real numbers, got complex64"):
        image_file(np.zeros((2, 2), np.complex64), "yx").stored()


def test_a_float64_too_large_becomes_infinite_without_a_warning():
    assert np.isinf(image_file(np.array([[1e300]]), "yx").stored().load()).all()


def test_picked_channels_come_in_the_chosen_order():
    array = np.arange(3 * 4 * 2 * 5, dtype=np.uint8).reshape(3, 4, 2, 5)
    picked = image_file(array, "czyx").pick([2, 0])
    assert np.array_equal(picked.load(), array[[2, 0]])


@pytest.mark.parametrize("axes", ["zy", "yy", "qyx", "", "cyxs"])
def test_axes_that_make_no_sense(axes):
    with pytest.raises(UsageError, match="different letters of tczyx"):
        check_axes(axes)


def test_axes_are_lower_case():
    assert check_axes("ZYX") == "zyx"


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
