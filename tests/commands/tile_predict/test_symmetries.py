"""Where networks look: turns are those of a square, and read boxes hold what is needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.commands.tile_predict.averaging import (
    BLEND_SIDE,
    SYMMETRIES,
    Averaging,
    EnsembleMember,
    Symmetry,
)
from unetkit.geometry.sizes import SizeContract

CLASSIC = SizeContract(step=16, minimum=188, margin=92)
PADDED = SizeContract(step=8, minimum=8, halo=24)


def member(contract=CLASSIC, overlap=None):
    return EnsembleMember("m", "0", contract, contract.need if overlap is None else overlap)


def test_there_are_eight_ways_to_lay_a_square_upon_itself():
    square = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    ways = {symmetry.apply(square).tobytes() for symmetry in SYMMETRIES["rotations"]}
    turned = [np.rot90(square, k, axes=(1, 2)) for k in range(4)]
    expected = {way.tobytes() for t in turned for way in (t, t.swapaxes(1, 2))}
    assert ways == expected
    assert len(ways) == 8
    assert {symmetry.swapped for symmetry in SYMMETRIES["flips"]} == {False}
    assert len(set(SYMMETRIES["flips"])) == 4
    assert SYMMETRIES["none"] == (Symmetry(),)


@given(
    symmetry=st.sampled_from(SYMMETRIES["rotations"]),
    rows=st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted),
    columns=st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted),
)
def test_a_box_is_found_in_the_turned_square(symmetry, rows, columns):
    square = np.arange(64).reshape(1, 8, 8)
    (top, bottom), (left, right) = symmetry.place(tuple(rows), tuple(columns), size=8)
    inside = symmetry.undo(symmetry.apply(square)[:, top:bottom, left:right])
    np.testing.assert_array_equal(inside, square[:, slice(*rows), slice(*columns)])


@given(
    step=st.sampled_from([1, 4, 16]),
    least=st.integers(0, 60),
    margin=st.integers(0, 20),
    halo=st.integers(0, 20),
    extra=st.integers(0, 3),
    tiles=st.integers(1, 5),
    origin=st.integers(0, 9),
)
def test_mirrored_reading_keeps_the_phase(step, least, margin, halo, extra, tiles, origin):
    contract = SizeContract(step=step, minimum=2 * margin + 1 + least, margin=margin, halo=halo)
    one = member(contract, contract.need + extra * step)
    side, start = tiles * step, origin * step
    upright = one.reads(start, side, mirrored=False)
    mirrored = one.reads(start, side, mirrored=True)
    for first, last in (upright, mirrored):
        assert contract.is_legal(last - first)
        assert first <= start - one.overlap
        assert last >= start + side + one.overlap
    # From the far end of an image of whole steps the mirrored box begins as the upright one does.
    whole = 20 * step
    assert (whole - mirrored[1] + one.overlap) % step == 0
    assert (upright[0] + one.overlap) % step == 0


@pytest.mark.parametrize("tta", ["none", "flips"])
def test_a_tile_is_read_once_for_all_looks(tta):
    averaging = Averaging((member(), member(PADDED)), tile=384, tta=tta)
    assert averaging.size == 572
    (first, *_) = tiles = averaging.tiles(1000, 700)
    assert len(tiles) == 6
    # The classic network reads 4 pixels more than it needs, at the side that is far for it.
    surplus = 0 if tta == "none" else 4
    assert (first.read_y0, first.read_y1) == (-92 - surplus, 572 - 92)
    assert averaging.passes(1000, 700) == 2 * 6 * len(averaging.symmetries)
    assert averaging.computed(1000, 700) == 6 * (572**2 + 432**2) * len(averaging.symmetries)


def test_windows_that_touch_a_block():
    averaging = Averaging((member(PADDED),), tile=16, merge="gaussian")
    (one,) = averaging.members
    # 24 pixels around a tile of 16 reach into the second tile on each side.
    assert averaging.windows(one, 64, 80) == [32, 48, 64, 80, 96]
    assert averaging.windows(one, 64, 80, length=85) == [32, 48, 64, 80]
    assert averaging.windows(one, 0, 16, length=85) == [0, 16, 32]


def test_what_blending_costs():
    def factor(tile, side):
        averaging = Averaging((member(PADDED),), tile=tile, merge="gaussian")
        block = averaging.side(side, side)
        assert block % tile == 0
        assert block <= max(tile, BLEND_SIDE)
        return averaging.passes(side, side) / (side // tile) ** 2

    assert factor(512, 200 * 512) == pytest.approx(36 / 16, rel=0.02)
    assert factor(2048, 50 * 2048) == pytest.approx(9, rel=0.1)
    assert factor(512, 512) == 1


@given(
    tile=st.sampled_from([8, 16, 32]),
    length=st.integers(1, 200),
    tta=st.sampled_from(["none", "rotations"]),
    merge=st.sampled_from(["crop", "gaussian"]),
)
def test_a_read_box_holds_every_look(tile, length, tta, merge):
    odd = SizeContract(step=8, minimum=21, margin=2, halo=8)
    averaging = Averaging((member(PADDED), member(odd, 18)), tile, tta, merge)
    for box in averaging.tiles(length, 1):
        for one in averaging.members:
            for origin in averaging.windows(one, box.y0, box.y1, length=length):
                for mirrored in {symmetry.rows for symmetry in averaging.symmetries}:
                    first, last = one.reads(origin, tile, mirrored=mirrored)
                    assert box.read_y0 <= first < last <= box.read_y1


def test_boxes_of_one_layout_are_alike():
    averaging = Averaging((member(PADDED),), tile=512, merge="gaussian")
    tiles = averaging.tiles(8192, 8192)
    layouts = [averaging.layout(tile, shape=(8192, 8192)) for tile in tiles]
    # Corners, edges and what is inside.
    assert len(set(layouts)) == 9
