"""Squares tell parts of an image apart, however it comes in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.scores import contingency
from unetkit.scores.units import Squares, squares_of


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ((100, 100), None),
        ((512, 512), 128),
        ((4096, 4096), 1024),
        ((400, 520), 128),
        ((50_000, 50_000), 2048),
    ],
)
def test_squares_are_large_where_the_image_is(size, side):
    found = squares_of(*size)
    assert (None if found is None else found.side) == side


def test_pixels_and_tables_agree_on_the_number():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, size=(2, 70, 90)).astype(np.uint8)
    ignore = rng.integers(0, 2, size=(70, 90))
    squares = Squares(32, 70, 90)
    assert (squares.across, squares.count) == (3, 9)
    parts = [
        squares.tables(truth[a], found[a], origin=(a.start, 0), ignore=ignore[a])
        for a in (slice(0, 40), slice(40, 70))
    ]
    table = contingency.merge(parts)
    y, x = np.nonzero(ignore == 0)
    by_pixel = np.bincount(squares.at(y, x), minlength=9)
    assert np.bincount(table.image, table.counts, minlength=9).tolist() == by_pixel.tolist()
