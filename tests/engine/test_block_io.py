from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays.boxes import read_tile
from unetkit.engine.block_io import fit_image, write_tile
from unetkit.errors import NonFiniteError
from unetkit.geometry.tiles import cover
from unetkit.storage.image_writer import create_image, create_labels

if TYPE_CHECKING:
    from pathlib import Path


class Array:
    """An array of one plane, seen as `read_tile` sees a stored one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.height, self.width = array.shape[-2:]

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        assert 0 <= y0 < y1 <= self.height
        assert 0 <= x0 < x1 <= self.width
        return self.array[..., y0:y1, x0:x1]


@settings(deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    tile=st.integers(1, 24),
    overlap=st.integers(0, 50),
    surplus=st.integers(0, 9),
)
def test_reading_equals_padding_the_whole_image(
    height: int, width: int, tile: int, overlap: int, surplus: int
) -> None:
    image = np.arange(2 * height * width).reshape(2, height, width)
    size = tile + 2 * overlap + surplus
    far = overlap + tile + surplus
    whole = np.pad(image, ((0, 0), (overlap, far), (overlap, far)), mode="reflect")
    for box in cover(height, width, tile=tile, overlap=overlap, size=size):
        got = read_tile(Array(image), 0, box)
        y, x = box.read_y0 + overlap, box.read_x0 + overlap
        np.testing.assert_array_equal(got, whole[:, y : y + size, x : x + size])


def test_labels_are_read_without_a_channel_axis() -> None:
    labels = np.arange(12).reshape(3, 4)
    (box,) = cover(3, 4, tile=4, overlap=2)
    np.testing.assert_array_equal(
        read_tile(Array(labels), 0, box), np.pad(labels, ((2, 3), (2, 2)), mode="reflect")
    )


def test_tiles_that_are_written_come_back_as_a_whole(tmp_path: Path) -> None:
    place = str(tmp_path / "image.zarr")
    create_image(place, shape=(2, 10, 7), axes="zyx", dtype="u1")
    labels = create_labels(place, "classes", shape=(2, 10, 7), axes="zyx", dtype="u2", chunk=4)
    values = np.arange(140).reshape(2, 10, 7)
    for plane in range(2):
        for box in cover(10, 7, tile=4):
            write_tile(labels, plane, box, values[plane, box.y0 : box.y1, box.x0 : box.x1])
    np.testing.assert_array_equal(labels.read(0, 0, 10, 0, 7), values[0])
    np.testing.assert_array_equal(labels.read(1, 0, 10, 0, 7), values[1])


def test_an_image_is_fitted_as_a_whole(tmp_path: Path) -> None:
    data = create_image(
        str(tmp_path / "image.zarr"), shape=(2, 5, 5), axes="zyx", dtype="f4", chunk=2
    )
    data.write(0, 0, 0, np.full((1, 5, 5), 2.0))
    data.write(1, 0, 0, np.full((1, 5, 5), 6.0))
    fitted = fit_image(data, "range")
    assert (fitted.offset, fitted.scale) == ((2.0,), (0.25,))
    data.write(1, 0, 0, np.full((1, 5, 5), np.nan))
    with pytest.raises(NonFiniteError, match=r"image.zarr.* NaN or Inf"):
        fit_image(data, "range")
    assert fit_image(data, "range", "fill").scale == (0.5,)
