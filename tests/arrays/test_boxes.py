from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unetkit.arrays.boxes import gather
from unetkit.geometry.tiles import mirror

starts = st.integers(-30, 30)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), starts, starts, st.integers(1, 40))
def test_a_box_equals_the_same_box_of_the_padded_plane(
    shape: tuple[int, int], y: int, x: int, size: int
) -> None:
    plane = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape)
    around = 80
    padded = np.pad(plane, ((0, 0), (around, around), (around, around)), mode="reflect")
    found = gather(
        lambda y0, y1, x0, x1: plane[:, y0:y1, x0:x1],
        mirror(y, y + size, shape[0]),
        mirror(x, x + size, shape[1]),
    )
    expected = padded[:, y + around : y + around + size, x + around : x + around + size]
    np.testing.assert_array_equal(found, expected)


def test_only_the_pixels_of_the_box_are_read() -> None:
    asked = []

    def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        asked.append((y0, y1, x0, x1))
        return np.zeros((y1 - y0, x1 - x0))

    gather(read, mirror(-2, 3, 100), mirror(95, 103, 100))
    assert asked == [(0, 3, 95, 100)]
