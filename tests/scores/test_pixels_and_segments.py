"""Scores of pixels and segments against scikit-image, brute force, and values by hand."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segmentation_models_pytorch import metrics as smp_metrics
from skimage import metrics as skimage_metrics

from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import Scores, score_instances

LABELS = arrays(np.uint16, (8, 8), elements=st.integers(0, 4))

# Two squares of 4 x 4. The first is predicted one column short; the second is cut into a piece
# of 4 x 3 and one of 4 x 1; a single pixel of background is taken for an object.
TRUTH = np.array(
    [
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 2, 2, 2, 2],
        [0, 0, 0, 0, 2, 2, 2, 2],
        [0, 0, 0, 0, 2, 2, 2, 2],
        [0, 0, 0, 0, 2, 2, 2, 2],
    ]
)
PREDICTION = np.array(
    [
        [5, 5, 5, 0, 0, 0, 0, 9],
        [5, 5, 5, 0, 0, 0, 0, 0],
        [5, 5, 5, 0, 0, 0, 0, 0],
        [5, 5, 5, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 6, 6, 6, 7],
        [0, 0, 0, 0, 6, 6, 6, 7],
        [0, 0, 0, 0, 6, 6, 6, 7],
        [0, 0, 0, 0, 6, 6, 6, 7],
    ]
)
# Pixels: (1,5) 12, (1,0) 4, (2,6) 12, (2,7) 4, (0,9) 1, (0,0) 31.


def scores(truth: np.ndarray, found: np.ndarray) -> Scores:
    return score_instances(from_labels(truth, found))


def test_by_hand():
    found = scores(TRUTH, PREDICTION)
    # 4 missed pixels and 1 invented one, of 64: TP 28, FN 4, FP 1.
    assert (found.pixel_error, found.dice, found.iou) == (5 / 64, 56 / 61, 28 / 33)
    # Object 1: 12 of 16 covered, union 16. Object 2: 12 of 16, union 16. 9 costs nothing.
    assert found.seg == 0.75
    # 2 true, 4 predicted; both pairs have IoU 12 / 16: 2 / (2 + 2 + 0), above 0.75 0 / 6.
    at = found.average_precision_at
    assert [at[k] for k in ("0.50", "0.70", "0.75", "0.80", "0.95")] == [0.5, 0.5, 0.5, 0, 0]
    assert len(at) == 10
    # Pairs within foreground: joint 12·11 + 4·3 + 12·11 + 4·3 = 288; truth 2·16·15 = 480;
    # prediction 12·11 + 12·11 + 4·3 + 4·3 = 288. 1 - 2·288 / (480 + 288) = 0.25.
    assert found.adapted_rand_error == pytest.approx(0.25)


def test_variation_of_information_by_hand():
    def h(*parts: int) -> float:
        return -sum(p * log2(p / sum(parts)) for p in parts) / 64

    found = scores(TRUTH, PREDICTION)
    assert found.voi_split == pytest.approx(h(12, 4) + h(12, 4) + h(1, 31))
    assert found.voi_merge == pytest.approx(h(4, 31))  # predicted background holds 4 pixels of 1


def test_split_and_merge_are_told_apart():
    one, two = np.ones((4, 4), int), np.repeat([[1, 2]], 4, axis=0).repeat(2, axis=1)
    split, merged = scores(one, two), scores(two, one)
    assert (split.voi_split, split.voi_merge) == (merged.voi_merge, merged.voi_split) == (1, 0)


def test_nothing_in_truth_and_prediction():
    names = ("pixel_error", "dice", "iou", "seg", "adapted_rand_error", "voi_split", "voi_merge")
    # All 64 pixels are right.
    empty = scores(0 * TRUTH, 0 * TRUTH)
    assert [getattr(empty, n) for n in names] == [0, None, None, None, None, 0, 0]
    nothing = score_instances(from_labels(TRUTH, PREDICTION, ignore=np.ones((8, 8), bool)))
    assert {getattr(nothing, name) for name in names} == {None}


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        # No true object has two pixels and none is joined to another: there is no pair to judge,
        # and scikit-image divides 0 by 0.
        ([1, 0, 2], [1, 0, 2], None),
        ([1, 2], [3, 4], None),
        ([1, 0, 0], [0, 0, 0], None),
        # The only pair is joined by one side alone.
        ([1, 0, 2], [1, 0, 1], 1),
        ([1, 1], [1, 2], 1),
        # The only pair is joined by both.
        ([1, 1], [2, 2], 0),
    ],
)
def test_an_adapted_rand_error_needs_a_pair_of_pixels(truth, found, expected):
    sides = np.array([truth]), np.array([found])
    assert scores(*sides).adapted_rand_error == expected
    with np.errstate(invalid="ignore", divide="ignore"):
        theirs = float(skimage_metrics.adapted_rand_error(*sides)[0])
    assert np.isnan(theirs) if expected is None else theirs == expected


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_image(truth, prediction):
    found = scores(truth, prediction)
    split_merge = skimage_metrics.variation_of_information(truth, prediction)
    ours = (found.voi_split, found.voi_merge)
    assert ours == pytest.approx(tuple(split_merge), abs=1e-11)
    assert found.voi == sum(ours)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = skimage_metrics.adapted_rand_error(truth, prediction)[0]
    expected = pytest.approx(expected, abs=1e-11) if np.isfinite(expected) else None
    assert found.adapted_rand_error == expected


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=60, deadline=None)
def test_pixel_scores_are_what_they_say(truth, prediction):
    true, pred = truth > 0, prediction > 0
    both, either = (true & pred).sum(), (true | pred).sum()
    found = scores(truth, prediction)
    assert found.pixel_error == (true != pred).mean()
    assert found.iou == (both / either if either else None)
    assert found.dice == (2 * both / (either + both) if either else None)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=40, deadline=None)
def test_pooled_images_score_like_one_image_whose_ids_differ(truth, prediction):
    table = from_labels(truth, prediction)
    alone, pooled = score_instances(table), score_instances(pool([table, table]))
    # Background apart, ids that are renamed in the second image keep its objects apart.
    names = np.array([0, 70000, 65536, 2**40, 9], np.uint64)
    beside = scores(np.hstack([truth, names[truth]]), np.hstack([prediction, names[prediction]]))
    if truth.any():
        assert pooled.seg == pytest.approx(alone.seg)
        assert beside.seg == pytest.approx(alone.seg)
    assert pooled.average_precision_at == beside.average_precision_at
    assert pooled.pixel_error == beside.pixel_error
    for name in ("voi_split", "voi_merge"):
        assert getattr(pooled, name) == pytest.approx(getattr(alone, name), abs=1e-11)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=20, deadline=None)
def test_pixel_scores_are_those_of_segmentation_models_pytorch(truth, prediction):
    sides = (torch.tensor((side > 0).astype(np.int64))[None] for side in (prediction, truth))
    counts = smp_metrics.get_stats(*sides, mode="binary")
    scored = scores(truth, prediction)
    for ours, theirs in (
        (scored.iou, smp_metrics.iou_score),
        (scored.dice, smp_metrics.f1_score),
        (scored.precision, smp_metrics.precision),
        (scored.recall, smp_metrics.recall),
        (scored.accuracy, smp_metrics.accuracy),
    ):
        if ours is not None:
            assert ours == pytest.approx(float(theirs(*counts, reduction="micro")), abs=1e-5)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=20, deadline=None)
def test_rand_counts_pixel_pairs(truth, prediction):
    t, p = truth.ravel(), prediction.ravel()
    agree = (t[:, None] == t) == (p[:, None] == p)
    upper = np.triu_indices(len(t), 1)
    assert scores(truth, prediction).rand == pytest.approx(agree[upper].mean())
    assert scores(truth[:1, :1], prediction[:1, :1]).rand is None
