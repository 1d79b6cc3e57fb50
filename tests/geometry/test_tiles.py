import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import UsageError
from unetkit.geometry.tiles import cover, mirror, mirror_span

SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.integers(1, 17), st.integers(0, 9), st.integers(0, 5))
def test_write_boxes_cover_every_pixel_once(height, width, tile, overlap, surplus):
    size = tile + 2 * overlap + surplus
    hits = np.zeros((height, width), int)
    for t in cover(height, width, tile=tile, overlap=overlap, size=size):
        assert 0 <= t.y0 < t.y1 <= height
        assert 0 <= t.x0 < t.x1 <= width
        hits[t.y0 : t.y1, t.x0 : t.x1] += 1
    assert (hits == 1).all()


@given(SIZES, SIZES, st.integers(1, 17), st.integers(0, 9), st.integers(0, 5))
def test_read_boxes_have_one_size_and_hold_the_context(height, width, tile, overlap, surplus):
    size = tile + 2 * overlap + surplus
    tiles = cover(height, width, tile=tile, overlap=overlap, size=size)
    for index, t in enumerate(tiles):
        assert t.index == index
        assert (t.y0 % tile, t.x0 % tile) == (0, 0)
        assert (t.read_y0, t.read_x0) == (t.y0 - overlap, t.x0 - overlap)
        assert (t.read_y1 - t.read_y0, t.read_x1 - t.read_x0) == (size, size)
        assert t.read_y1 >= t.y1 + overlap
        assert t.read_x1 >= t.x1 + overlap


@given(SIZES, SIZES, st.integers(1, 17), st.integers(0, 9), st.integers(0, 4))
def test_crop_finds_the_write_box_in_what_a_model_returns(height, width, tile, overlap, margin):
    overlap += margin
    picture = np.arange(height * width).reshape(height, width)
    for t in cover(height, width, tile=tile, overlap=overlap):
        rows = mirror(t.read_y0 + margin, t.read_y1 - margin, height)
        columns = mirror(t.read_x0 + margin, t.read_x1 - margin, width)
        returned = picture[np.ix_(rows, columns)]
        assert (returned[t.crop(margin)] == picture[t.y0 : t.y1, t.x0 : t.x1]).all()


def test_a_cover_is_a_lazy_sequence_in_y_x_order():
    tiles = cover(2**34, 2**34, tile=16, overlap=92)
    assert (tiles.rows, tiles.columns) == (2**30, 2**30)
    assert tiles[2**30 + 1].y0 == tiles[2**30 + 1].x0 == 16
    small = cover(33, 20, tile=16)
    assert len(small) == 6
    assert [(t.y0, t.x0) for t in small] == [(y, x) for y in (0, 16, 32) for x in (0, 16)]
    assert small[-1] == small[5]
    assert small[1:3] == [small[1], small[2]]
    assert pickle.loads(pickle.dumps(small)) == small
    for index in (6, -7):
        with pytest.raises(IndexError, match="one of 6"):
            small[index]


def test_the_classic_tile_reads_92_before_and_the_surplus_behind():
    tile = cover(1024, 1024, tile=384, overlap=92, size=572)[0]
    assert (tile.read_y0, tile.read_y1) == (-92, 480)
    assert tile.read_y1 - tile.y1 == 96


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 0}, "height of a cover must be at least 1, got 0"),
        ({"width": -1}, "width of a cover"),
        ({"tile": 0}, "tile of a cover"),
        ({"overlap": -1}, "overlap of a cover must be at least 0"),
        ({"size": 23}, "size of a cover must be at least 24, got 23"),
    ],
)
def test_impossible_covers_are_refused(change, words):
    numbers = {"height": 9, "width": 9, "tile": 16, "overlap": 4, "size": 24, **change}
    with pytest.raises(UsageError, match=words):
        cover(numbers.pop("height"), numbers.pop("width"), **numbers)


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 60))
def test_mirror_equals_numpys_reflection_of_the_whole_axis(n, before, after):
    expected = np.pad(np.arange(n), (before, after), mode="reflect")
    assert mirror(-before, n + after, n) == expected.tolist()


@given(st.integers(1, 12), st.integers(-60, 60), st.integers(0, 30))
def test_mirror_of_a_part_is_that_part_of_the_mirror(n, start, length):
    whole = mirror(-60, 100, n)
    assert mirror(start, start + length, n) == whole[start + 60 : start + 60 + length]


@given(n=st.integers(1, 40), start=st.integers(-60, 39), length=st.integers(1, 100))
def test_the_span_of_a_mirrored_range_holds_its_pixels_and_no_others_at_its_ends(n, start, length):
    start = min(start, n - 1)
    stop = max(start + length, 1)
    pixels = mirror(start, stop, n)
    assert mirror_span(start, stop, n) == (min(pixels), max(pixels) + 1)


def test_mirror_of_no_pixels_is_refused():
    with pytest.raises(UsageError, match="at least 1 pixel, got 0"):
        mirror(0, 3, 0)
