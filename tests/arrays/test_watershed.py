"""Floods part objects alike for any blocks, against plain Python and scikit-image."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import segmentation

from unetkit.arrays.components import components
from unetkit.arrays.instances import merge_across_blocks, summarize
from unetkit.arrays.watershed import FloodExchange, arrivals, heights_and_seeds, watershed
from unetkit.errors import UsageError

# Few heights make plateaus, and few seeds long ways.
HEIGHTS = arrays(
    np.uint8, st.tuples(st.integers(1, 2), *[st.integers(1, 11)] * 2), elements=st.integers(0, 255)
)


def beside(y, x, shape):
    """List the four neighbours in raster order."""
    around = [(y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)]
    return [(v, u) for v, u in around if 0 <= v < shape[0] and 0 <= u < shape[1]]


def by_definition(heights, mask, seeds):
    """Relax all arrivals until none becomes earlier, then go from each pixel to its seed."""
    came, count = {}, components(mask & seeds)[1]
    found = components(mask & seeds)[0]
    pixels = [(int(y), int(x)) for y, x in np.argwhere(mask)]
    came = {p: (-256 + int(heights[p]), 0) if seeds[p] else (999, 0) for p in pixels}
    changed = True
    while changed:
        changed = False
        for p in pixels:
            for q in beside(*p, mask.shape):
                level, steps = came.get(q, (999, 0))
                if level < 999:
                    high = int(heights[p])
                    new = (high, 0) if high > level else (level, steps + 1)
                    if new < came[p]:
                        came[p], changed = new, True
    for p in sorted(pixels, key=came.get):
        if 0 <= came[p][0] < 999:
            near = [q for q in beside(*p, mask.shape) if q in came]
            found[p] = found[min(near, key=came.get)]
    left, _ = components(mask & (found == 0))
    return np.where(left > 0, left + np.uint32(count), found)


def in_raster_order(labels):
    ids, first = np.unique(labels, return_index=True)
    order = ids[np.argsort(first)]
    table = np.zeros(int(labels.max()) + 1, np.uint32)
    table[order[order > 0]] = np.arange(1, np.count_nonzero(order) + 1)
    return table[labels]


def by_blocks(heights, mask, seeds, tile, *, most=99):
    """Flood a stack of planes block by block, round by round, as a prediction does."""
    planes, height, width = mask.shape
    tops, lefts = range(0, height, tile[0]), range(0, width, tile[1])
    grid = (planes, len(tops), len(lefts))
    boxes = [
        np.s_[plane, y : y + tile[0], x : x + tile[1]]
        for plane, y, x in itertools.product(range(planes), tops, lefts)
    ]
    exchange, rounds = FloodExchange(grid), 0
    while exchange.outdated and rounds < most:
        rounds += 1
        exchange.update(
            {
                n: arrivals(heights[boxes[n]], mask[boxes[n]], seeds[boxes[n]], around=around)
                for n, around in [(n, exchange.around(n)) for n in exchange.outdated]
            }
        )
    basins = [
        watershed(heights[box], mask[box], seeds[box], around=exchange.around(n))
        for n, box in enumerate(boxes)
    ]
    summaries = [
        summarize(
            each.labels,
            each.count,
            y0=box[1].start,
            x0=box[2].start,
            width=width,
            start=box[0] * height * width,
            flooded_faces=each.flooded_faces,
        )
        for each, box in zip(basins, boxes, strict=True)
    ]
    joined = merge_across_blocks(summaries, grid=grid)
    whole = np.zeros(mask.shape, joined.ids.dtype)
    for n, (each, box) in enumerate(zip(basins, boxes, strict=True)):
        whole[box] = joined.lookup(n)[each.labels]
    return whole, rounds


@given(
    noise=HEIGHTS,
    levels=st.sampled_from([1, 2, 5, 256]),
    free=st.sampled_from([0, 30, 90]),
    sown=st.sampled_from([0, 4, 30]),
    tile=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
@settings(max_examples=25, deadline=None)
def test_floods_part_objects_as_their_definition_says_for_any_blocks(
    noise, levels, free, sown, tile
):
    drawn = np.random.default_rng(noise).random((2, *noise.shape)) * 100
    heights = (noise.astype(int) % levels).astype(np.uint8)
    mask, seeds = drawn[0] >= free, drawn[1] < sown
    found, _ = by_blocks(heights, mask, seeds, tile)
    highest = 0
    for plane, labels in enumerate(found):
        expected = in_raster_order(by_definition(heights[plane], mask[plane], seeds[plane]))
        got = watershed(heights[plane], mask[plane], seeds[plane]).labels
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(labels, np.where(got > 0, got + np.uint32(highest), 0))
        highest = max(highest, int(labels.max()))


@given(seed=st.integers(0, 9999), sown=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_without_ties_it_is_that_of_scikit_image(seed, sown):
    heights = np.random.default_rng(seed).permutation(144).reshape(12, 12).astype(np.uint8)
    seeds, everywhere = heights < sown, np.ones((12, 12), bool)
    expected = segmentation.watershed(heights, components(seeds)[0].astype(np.int32))
    found = watershed(heights, everywhere, seeds).labels
    np.testing.assert_array_equal(found, in_raster_order(expected))


def test_on_flat_ground_floods_meet_half_way_and_the_first_neighbour_takes_what_is_between():
    flat, everywhere, seeds = np.zeros((1, 9), np.uint8), np.ones((1, 9), bool), np.eye(1, 9) > 0
    seeds[0, 8] = True
    assert watershed(flat, everywhere, seeds).labels.tolist() == [[1] * 5 + [2] * 4]


def test_a_bridge_of_one_pixel_parts_where_it_is_highest():
    # Two cells of 3 x 3 in one component; the dip between them is nearer to the second.
    mask = np.zeros((3, 9), bool)
    mask[:, :3] = mask[:, 6:] = mask[1] = True
    heights = np.where(mask, 10, 255).astype(np.uint8)
    heights[1, 3:6] = [60, 70, 120]
    found = watershed(heights, mask, heights == 10).labels
    assert found[1].tolist() == [1] * 5 + [2] * 4
    assert components(mask)[1] == 1


def test_an_object_without_a_seed_stays_whole_across_blocks():
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 1:5, 1:5] = True
    heights = np.full(mask.shape, 100, np.uint8)
    for tile in ((6, 6), (2, 3), (1, 1)):
        np.testing.assert_array_equal(by_blocks(heights, mask, mask & False, tile)[0], mask)


def test_a_flood_through_a_maze_takes_a_round_a_face_that_it_crosses():
    # A path that winds through both blocks and ends where the other seed waits.
    mask = np.ones((1, 9, 8), bool)
    mask[0, 1::4, :7] = mask[0, 3::4, 1:] = False
    seeds = np.zeros(mask.shape, bool)
    seeds[0, 0, 0] = seeds[0, 8, 7] = True
    heights = np.zeros(mask.shape, np.uint8)
    whole, _ = by_blocks(heights, mask, seeds, (9, 8))
    parted, rounds = by_blocks(heights, mask, seeds, (9, 4))
    np.testing.assert_array_equal(parted, whole)
    assert set(np.unique(whole)) == {0, 1, 2}
    # The floods meet in the third of five corridors: two faces each, after the first round.
    assert rounds == 3
    too_early, _ = by_blocks(heights, mask, seeds, (9, 4), most=1)
    assert (too_early != whole).any()


def test_heights_and_seeds_are_the_same_from_bytes_and_from_floats():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for level in (0.5, 0.9, 1.0):
        bytes_, floats = (
            heights_and_seeds(stored, level),
            heights_and_seeds(stored / np.float32(255), level),
        )
        np.testing.assert_array_equal(bytes_[0], floats[0])
        np.testing.assert_array_equal(bytes_[1], floats[1])
    assert np.count_nonzero(heights_and_seeds(stored, 1.0)[1]) == 1
    with pytest.raises(UsageError, match=r"seed-level must be above 0 and at most 1, got 1\.5"):
        heights_and_seeds(stored, 1.5)
