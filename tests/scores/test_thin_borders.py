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


def test_borders_are_thinned_to_one_pixel(scored):
    thin = isbi2012.thin(TRUTH)
    assert (thin == 0).sum(axis=1).max() == 1
    assert thin.max() == 2
    assert scored.thin(from_labels(thin, thin))["v_rand"] == 1


def test_a_border_of_another_width_costs_nothing_once_thinned(scored):
    wide = TRUTH.copy()
    wide[:, 2] = 0
    plain = from_labels(TRUTH, wide)
    thinned = from_labels(isbi2012.thin(TRUTH), isbi2012.thin(wide))
    assert scored.thin(plain, thinned)["v_rand"] > scored.thin(plain)["v_rand"]


def test_touching_objects_stay_apart():
    touching = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert isbi2012.pieces(isbi2012.interior(touching)).max() == 2
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 40)), 2)
    labels = ndimage.label(noise > 0.5)[0]
    assert isbi2012.thin(labels).max() == labels.max()
