import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unetkit.arrays.boxes import gather, inside, read_around, read_tile
from unetkit.geometry.tiles import Tile, cover, mirror

starts = st.integers(-30, 30)


class Array:
    """An array of one plane, seen as `read_tile` sees a stored one."""

    def __init__(self, array):
        self.array = array
        self.height, self.width = array.shape[-2:]

    def read(self, plane, y0, y1, x0, x1):
        assert 0 <= y0 < y1 <= self.height
        assert 0 <= x0 < x1 <= self.width
        return self.array[..., y0:y1, x0:x1]


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), starts, starts, st.integers(1, 40))
def test_a_box_equals_the_same_box_of_the_padded_plane(shape, y, x, size):
    plane = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape)
    around = 80
    padded = np.pad(plane, ((0, 0), (around, around), (around, around)), mode="reflect")
    tile = Tile(0, 0, 0, *shape, y, x, y + size, x + size)
    found = read_tile(Array(plane), 0, tile)
    expected = padded[:, y + around : y + around + size, x + around : x + around + size]
    np.testing.assert_array_equal(found, expected)


def test_only_the_pixels_of_the_box_are_read():
    asked = []

    def read(y0, y1, x0, x1):
        asked.append((y0, y1, x0, x1))
        return np.zeros((y1 - y0, x1 - x0))

    gather(read, mirror(-2, 3, 100), mirror(95, 103, 100))
    assert asked == [(0, 3, 95, 100)]


def test_labels_are_read_without_a_channel_axis():
    labels = np.arange(12).reshape(3, 4)
    (box,) = cover(3, 4, tile=4, overlap=2)
    np.testing.assert_array_equal(
        read_tile(Array(labels), 0, box), np.pad(labels, ((2, 3), (2, 2)), mode="reflect")
    )


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 15), st.data())
def test_labels_around_a_box_are_read_or_0(height, width, reach, data):
    labels = np.arange(1, height * width + 1).reshape(height, width)
    rows, columns = (
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in (height, width)
    )
    got = read_around(Array(labels), 0, rows, columns, reach=reach)
    whole = np.pad(labels, reach)
    expected = whole[rows[0] : rows[1] + 2 * reach, columns[0] : columns[1] + 2 * reach]
    np.testing.assert_array_equal(got, expected)
    y0, y1, x0, x1 = inside(Array(labels), rows, columns, reach=reach)
    np.testing.assert_array_equal(labels[y0:y1, x0:x1].ravel(), got[got > 0])
