"""Warping on 8 x 8 images worked out by hand, and simple points against their definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unetkit.scores.isbi2012 import _runs, warp, warping_errors

# Two cells of 6 x 3 and 6 x 2 with a border of one pixel between them.
TRUTH = np.zeros((8, 8), bool)
TRUTH[1:7, 1:4] = TRUTH[1:7, 5:7] = True


def count(found: np.ndarray) -> tuple[int, int]:
    errors = warping_errors(TRUTH, found)
    return errors.splits, errors.mergers


def test_a_border_that_moves_costs_nothing():
    # Each cell moves one row down: the pixels of its edge are flipped one after the other.
    assert count(np.roll(TRUTH, 1, axis=0)) == (0, 0)
    assert (warp(TRUTH, np.roll(TRUTH, 1, axis=0)) == np.roll(TRUTH, 1, axis=0)).all()


def test_a_bridge_is_one_merger_however_wide():
    found = TRUTH.copy()
    found[3, 4] = True  # flipping it joins the two cells
    assert count(found) == (0, 1)
    found[2:5, 4] = True  # the border can give way up to one pixel, which stays
    assert count(found) == (0, 1)
    assert [part.tolist() for part in warping_errors(TRUTH, found).by_block(None)] == [[1], [64]]


def test_a_cut_is_one_split_however_long():
    found = TRUTH.copy()
    found[3, 1:4] = False  # the cut eats in from both sides, up to the last pixel
    assert count(found) == (1, 0)


def test_two_bridges_apart_are_two_mergers():
    found = TRUTH.copy()
    found[1, 4] = found[5, 4] = True
    assert count(found) == (0, 2)


def test_holes_and_lost_cells_are_neither():
    hole = TRUTH.copy()
    hole[3, 2] = False
    assert count(hole) == (0, 0)
    lost = TRUTH.copy()
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
