"""Scores of borders against plain distances and pixel pairs, and warping by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unetkit.scores import boundaries, isbi2012
from unetkit.scores.contingency import from_labels
from unetkit.scores.isbi2012 import _runs, warp, warping_errors

LABELS = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))

# Two cells of 8 x 3 with a border of two columns.
TRUTH = np.zeros((8, 8), int)
TRUTH[:, :3], TRUTH[:, 5:] = 1, 2


@given(truth=LABELS, found=LABELS)
@settings(max_examples=30, deadline=None)
def test_scores_are_sums_over_pixel_pairs(scored, truth, found):
    scores = scored.thin(from_labels(truth, found))
    both = (truth != 0) & (found != 0)
    either = 2 * both.sum() + ((truth != 0) != (found != 0)).sum()
    assert scores["isbi_pixel"] == (
        pytest.approx(1 - 2 * both.sum() / either, abs=1e-12) if either else None
    )
    inside = truth != 0
    if not inside.any():
        assert scores["v_rand"] is scores["v_info"] is scores["isbi_rand"] is None
        return
    t, p = truth[inside], found[inside].astype(int)
    # Every predicted border pixel is a segment of its own.
    p[p == 0] = 10 + np.arange((p == 0).sum())
    same_t, same_p = t[:, None] == t, p[:, None] == p
    expected = 2 * (same_t & same_p).sum() / (same_t.sum() + same_p.sum())
    assert scores["v_rand"] == pytest.approx(expected, abs=1e-12)
    n = len(t)
    both, one, other = ((s.sum() - n) / 2 for s in (same_t & same_p, same_t, same_p))
    assert scores["isbi_rand"] == (
        pytest.approx(1 - 2 * both / (one + other), abs=1e-12) if one + other else None
    )

    def entropy(labels):
        shares = np.unique(labels, return_counts=True, axis=-1)[1] / n
        return -(shares * np.log2(shares)).sum()

    whole = entropy(t) + entropy(p)
    shared = whole - entropy(np.stack([t, p]))
    expected = 2 * shared / whole if whole > 0 else 1
    assert scores["v_info"] == pytest.approx(expected, abs=1e-9)


def test_by_hand_a_merger_halves_what_pairs_share(scored):
    # 24 pixels each; joined in one. p_ij: 24, 24; s: 24, 24; t: 48. 2 * 1152 / (1152 + 2304).
    scores = scored.thin(from_labels(TRUTH, np.where(TRUTH != 0, 1, 0)))
    assert scores["v_rand"] == 2 * 1152 / (1152 + 2304)
    assert scores["v_info"] == 0  # one segment tells nothing of two
    assert scores["isbi_rand"] == pytest.approx(1 - 2 * 552 / (552 + 1128))
    assert scores["isbi_pixel"] == 0


def test_borders_of_the_proposal_are_thinned_by_flooding():
    # Flooded from both sides: what meets in the middle of three columns is a line.
    mask = np.ones((4, 7), bool)
    mask[:, 2:5] = False
    assert isbi2012.watershed(mask).tolist() == [[1, 1, 1, 0, 2, 2, 2]] * 4
    # Of two columns each goes to its side, but for the one that sees the other basin by then.
    assert (isbi2012.watershed(TRUTH != 0) > 0).all(axis=1).sum() == 0
    assert isbi2012.watershed(TRUTH != 0).max() == 2
    # Without foreground all is one basin, and so it is without borders.
    assert isbi2012.watershed(mask & False).tolist() == isbi2012.watershed(mask | True).tolist()


def test_the_truth_keeps_its_borders_and_the_proposal_pays_for_none(scored):
    narrow = np.ones((8, 8), bool)
    narrow[:, 4] = False
    wide = TRUTH != 0
    wide[:, 2] = False
    for mask in (narrow, wide, TRUTH != 0):
        table = from_labels(TRUTH, isbi2012.watershed(mask))
        assert scored.thin(table)["v_rand"] == scored.thin(table)["v_info"] == 1
    # Were it not thinned, a wide border would cost pairs.
    assert scored.thin(from_labels(TRUTH, isbi2012.pieces(wide)))["v_rand"] < 1


def test_touching_objects_stay_apart():
    touching = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert isbi2012.pieces(isbi2012.interior(touching)).max() == 2
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 40)), 2)
    labels = ndimage.label(noise > 0.5)[0]
    assert isbi2012.watershed(isbi2012.interior(labels)).max() == labels.max()


# Two cells of 6 x 3 and 6 x 2 with a border of one pixel between them.
CELLS = np.zeros((8, 8), bool)
CELLS[1:7, 1:4] = CELLS[1:7, 5:7] = True


def count(found):
    errors = warping_errors(CELLS, found)
    return errors.splits, errors.mergers


def test_a_border_that_moves_costs_nothing():
    # Each cell moves one row down: the pixels of its edge are flipped one after the other.
    assert count(np.roll(CELLS, 1, axis=0)) == (0, 0)
    assert (warp(CELLS, np.roll(CELLS, 1, axis=0)) == np.roll(CELLS, 1, axis=0)).all()


def test_a_bridge_is_one_merger_however_wide():
    found = CELLS.copy()
    found[3, 4] = True  # flipping it joins the two cells
    assert count(found) == (0, 1)
    found[2:5, 4] = True
    assert count(found) == (0, 1)
    # The challenge's score counts its pixels.
    assert len(warping_errors(CELLS, found).y) == 3


def test_a_cut_is_one_split_however_long():
    found = CELLS.copy()
    found[3, 1:4] = False  # the cut eats in from both sides, up to the last pixel
    assert count(found) == (1, 0)


def test_two_bridges_apart_are_two_mergers():
    found = CELLS.copy()
    found[1, 4] = found[5, 4] = True
    assert count(found) == (0, 2)


def test_holes_and_lost_cells_are_neither():
    hole = CELLS.copy()
    hole[3, 2] = False
    assert count(hole) == (0, 0)
    lost = CELLS.copy()
    lost[:, 4:] = False  # the cell shrinks to its last pixel, which is no split
    assert count(lost) == (0, 0)
    assert count(np.zeros((8, 8), bool)) == (0, 0)


@given(ring=arrays(bool, (3, 3)))
@settings(max_examples=100, deadline=None)
def test_simple_points_have_one_run_of_each(ring):
    ring[1, 1] = False
    objects = ndimage.label(ring)[0]
    touching = {objects[y, x] for y, x in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
    outside = ~ring
    outside[1, 1] = False
    holes = ndimage.label(outside, np.ones((3, 3)))[1]
    simple = len(touching) == 1 and holes == 1
    assert (_runs(ring, 1, 1) == 1) == simple


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_warping_keeps_the_number_of_objects_and_holes(seed):
    rng = np.random.default_rng(seed)
    truth, found = ndimage.gaussian_filter(rng.random((2, 24, 24)), (0, 1.5, 1.5)) > 0.5
    warped = warp(truth, found, certainty=rng.random((24, 24)))
    eight = np.ones((3, 3))
    for before, after in ((truth, warped), (np.pad(~truth, 1, constant_values=True),) * 2):
        assert ndimage.label(before)[1] == ndimage.label(after)[1]
    holes = [ndimage.label(np.pad(~x, 1, constant_values=True), eight)[1] for x in (truth, warped)]
    assert holes[0] == holes[1]
    assert (warped != found).sum() <= (truth != found).sum()


def test_a_split_that_only_a_long_way_round_undoes_is_none():
    ring = np.zeros((12, 12), bool)
    ring[1:11, 1:11] = True
    ring[3:9, 3:9] = False
    found = ring.copy()
    found[1:3, 5] = False  # the ring is opened: it holds together the other way
    errors = warping_errors(ring, found)
    assert (errors.splits, errors.mergers) == (0, 0)


def blobs(seed, shape=(60, 70), size=4):
    noise = np.random.default_rng(seed).random(shape)
    return ndimage.gaussian_filter(noise, size) > 0.5


def measured(truth, found):
    inside = tuple(slice(0, n) for n in truth.shape)
    return boundaries.measure(truth, found, inside=inside)


def distances(one, other):
    edges = [side & ~ndimage.binary_erosion(side) for side in (one, other)]
    a, b = (np.argwhere(edge) for edge in edges)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize(("seed", "size"), [(0, 4), (1, 4), (2, 4), (3, 0.5)])  # few, many pixels
def test_scores_are_those_of_all_distances(scored, seed, size):
    truth, found = blobs(seed, size=size), blobs(seed + 10, size=size)
    sides = distances(truth, found), distances(found, truth)
    recall, precision = ((side <= 2).mean() for side in sides)
    assert scored.outlines(truth, found, tolerance=2) == {
        "boundary_f": pytest.approx(2 * precision * recall / (precision + recall), abs=1e-9),
        "hausdorff95": pytest.approx(max(np.percentile(side, 95) for side in sides), abs=1e-9),
        "surface_distance": pytest.approx(np.concatenate(sides).mean(), abs=1e-9),
    }


def test_blocks_add_up_to_the_whole():
    truth, found = blobs(1), blobs(2)
    reach = boundaries.REACH
    padded = [np.pad(side, reach) for side in (truth, found)]
    parts = []
    for y in range(0, 60, 20):
        for x in range(0, 70, 35):
            box = (slice(y, y + 20 + 2 * reach), slice(x, x + 35 + 2 * reach))
            inside = (slice(reach, reach + 20), slice(reach, reach + 35))
            parts.append(boundaries.measure(*(side[box] for side in padded), inside=inside))
    total, expected = boundaries.merge(parts), measured(truth, found)
    assert total.keys.tolist() == expected.keys.tolist()
    assert total.counts.tolist() == expected.counts.tolist()


def test_perfect_empty_and_far(scored):
    truth = blobs(3)
    assert list(scored.outlines(truth, truth).values()) == [1, 0, 0]
    assert list(scored.outlines(0 * truth, 0 * truth).values()) == [None] * 3
    assert list(scored.outlines(truth, 0 * truth).values()) == [0, None, None]
    far, near = np.zeros((2, 300), bool)[:, None]
    far[0, 0], near[0, 299] = True, True
    assert scored.outlines(far, near)["hausdorff95"] is None


@pytest.mark.parametrize("count", [21, 41, 101])
def test_only_the_next_rank_is_too_far_to_be_known(scored, count):
    # 95 % of the way between the least and the largest of 21 is the 20th itself.
    truth, found = np.zeros((2, count // 20 * 20 + 1, 400), bool)
    truth[:, 0] = True
    found[: count - count // 20, 0] = True
    found[count - count // 20 :, 399] = True
    value = scored.outlines(truth, found)["hausdorff95"]
    assert value is not None
    assert value < 256


def test_a_class_that_one_side_lacks_is_not_left_out(scored):
    truth = np.zeros((20, 20), np.uint8)
    truth[2:8, 2:8], truth[12:18, 12:18] = 1, 2
    scores = scored.outlines(truth, np.where(truth == 1, 1, 0))
    assert scores == {"boundary_f": 0.5, "hausdorff95": None, "surface_distance": None}


def test_outlines_between_touching_instances_count(scored):
    truth = np.zeros((20, 41), np.uint8)
    truth[5:15, 1:20], truth[5:15, 20:40] = 1, 2
    fused = (truth != 0).astype(np.uint8)
    scores = scored.outlines(truth, fused, instances=True, tolerance=1)
    assert [scores[f"foreground_{n}"] for n in ("boundary_f", "hausdorff95")] == [1, 0]
    # The two columns where the cells meet are missed, but for their ends.
    edge = 2 * 39 + 2 * 8
    recall = (edge + 4) / (edge + 16)
    assert scores["boundary_f"] == pytest.approx(2 * recall / (1 + recall))
    assert min(scores["hausdorff95"], scores["surface_distance"]) > 0
    assert scored.outlines(truth, truth, instances=True)["hausdorff95"] == 0
    # Where nothing touches, both are the same.
    apart = np.where(np.arange(41) == 20, 0, truth)
    scores = scored.outlines(apart, np.roll(apart, 1, axis=0), instances=True)
    assert scores["surface_distance"] == scores["foreground_surface_distance"] > 0


def test_what_the_annotation_leaves_out_has_no_outline():
    truth, found = blobs(4), blobs(5)
    counted = np.zeros_like(truth)
    inside = tuple(slice(0, n) for n in truth.shape)
    result = boundaries.measure(truth, found, inside=inside, counted=counted)
    assert result.counts.sum() == 0 < measured(truth, found).counts.sum()


def test_each_class_has_an_outline_and_the_scores_are_their_mean(scored):
    truth, found = (blobs(n) + 2 * (blobs(n + 20) & ~blobs(n)) for n in (6, 7))
    apart = [scored.outlines(truth == label, found == label) for label in (1, 2)]
    for name, value in scored.outlines(truth, found).items():
        assert value == pytest.approx(np.mean([one[name] for one in apart]), abs=1e-12), name


def test_images_add_up(scored):
    plain = measured(blobs(8), blobs(9))
    twice = boundaries.merge([plain.in_unit(0), plain.in_unit(1)])
    assert scored.surfaces(twice, units=2) == pytest.approx(scored.surfaces(plain), abs=1e-12)
