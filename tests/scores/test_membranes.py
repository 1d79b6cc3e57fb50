"""Scores of thin borders against plain sums over pixel pairs, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unetkit.scores import isbi2012
from unetkit.scores.contingency import from_labels

LABELS = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))

# Two cells of 8 x 3 with a border of two columns.
TRUTH = np.zeros((8, 8), int)
TRUTH[:, :3], TRUTH[:, 5:] = 1, 2


@given(truth=LABELS, found=LABELS)
@settings(max_examples=30, deadline=None)
def test_scores_are_sums_over_pixel_pairs(truth, found):
    table = from_labels(truth, found)
    inside = truth != 0
    if not inside.any():
        assert isbi2012.v_rand(table) is isbi2012.v_info(table) is None
        assert isbi2012.isbi_rand(table) is None
        return
    t, p = truth[inside], found[inside].astype(int)
    # Every predicted border pixel is a segment of its own.
    p[p == 0] = 10 + np.arange((p == 0).sum())
    same_t, same_p = t[:, None] == t, p[:, None] == p
    expected = 2 * (same_t & same_p).sum() / (same_t.sum() + same_p.sum())
    assert isbi2012.v_rand(table) == pytest.approx(expected, abs=1e-12)
    n = len(t)
    both, one, other = ((s.sum() - n) / 2 for s in (same_t & same_p, same_t, same_p))
    rand = isbi2012.isbi_rand(table)
    if one + other:
        assert rand == pytest.approx(1 - 2 * both / (one + other), abs=1e-12)
    else:
        assert rand is None

    def entropy(labels):
        shares = np.unique(labels, return_counts=True, axis=-1)[1] / n
        return -(shares * np.log2(shares)).sum()

    whole = entropy(t) + entropy(p)
    shared = whole - entropy(np.stack([t, p]))
    expected = 2 * shared / whole if whole > 0 else 1
    assert isbi2012.v_info(table) == pytest.approx(expected, abs=1e-9)


def test_by_hand_a_merger_halves_what_pairs_share():
    # 24 pixels each; joined in one. p_ij: 24, 24; s: 24, 24; t: 48. 2 * 1152 / (1152 + 2304).
    joined = np.where(TRUTH != 0, 1, 0)
    assert isbi2012.v_rand(from_labels(TRUTH, joined)) == 2 * 1152 / (1152 + 2304)
    # One segment tells nothing of two.
    assert isbi2012.v_info(from_labels(TRUTH, joined)) == 0
    assert isbi2012.isbi_rand(from_labels(TRUTH, joined)) == pytest.approx(
        1 - 2 * 552 / (552 + 1128)
    )
    assert isbi2012.isbi_pixel(from_labels(TRUTH, joined)) == 0


def test_borders_are_thinned_to_one_pixel():
    thin = isbi2012.thin(TRUTH)
    assert (thin == 0).sum(axis=1).max() == 1
    assert thin.max() == 2
    assert isbi2012.v_rand(from_labels(thin, thin)) == 1


def test_a_border_of_another_width_costs_nothing_once_thinned():
    wide = TRUTH.copy()
    wide[:, 2] = 0
    thinned = from_labels(isbi2012.thin(TRUTH), isbi2012.thin(wide))
    plain = isbi2012.v_rand(from_labels(TRUTH, wide))
    assert isbi2012.v_rand(thinned) > plain


def test_touching_objects_stay_apart():
    touching = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert isbi2012.pieces(isbi2012.interior(touching)).max() == 2
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 40)), 2)
    labels = ndimage.label(noise > 0.5)[0]
    assert isbi2012.thin(labels).max() == labels.max()


def test_nothing_anywhere():
    none = from_labels(0 * TRUTH, 0 * TRUTH)
    assert isbi2012.isbi_pixel(none) is isbi2012.v_rand(none) is None
