"""Scores against scikit-image, against brute force, and against values worked out by hand."""

from __future__ import annotations

from itertools import permutations
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segmentation_models_pytorch import metrics as smp_metrics
from skimage import metrics as skimage_metrics

from unetkit.scores import matching
from unetkit.scores.contingency import from_labels, pool

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
TABLE = from_labels(TRUTH, PREDICTION)
EMPTY = from_labels(np.zeros((8, 8), int), np.zeros((8, 8), int))
NO_PIXELS = from_labels(TRUTH, PREDICTION, ignore=np.ones((8, 8), bool))


def test_pixel_error_by_hand():
    # 4 missed pixels and 1 invented one, of 64.
    assert matching.pixel_error(TABLE.foreground()) == 5 / 64


def test_dice_and_iou_by_hand():
    # TP 28, FN 4, FP 1.
    assert matching.dice(TABLE.foreground()) == 56 / 61
    assert matching.iou(TABLE.foreground()) == 28 / 33


def test_seg_by_hand():
    # Object 1: 12 of 16 covered, union 16. Object 2: 12 of 16, union 16. 9 costs nothing.
    assert matching.seg(TABLE) == 0.75


def test_seg_wants_more_than_half():
    truth, half = np.ones((1, 4), int), np.array([[1, 1, 0, 0]])
    more = np.array([[1, 1, 1, 0]])
    assert matching.seg(from_labels(truth, half)) == 0
    assert matching.seg(from_labels(truth, more)) == 0.75


def test_average_precision_by_hand():
    # 2 true, 4 predicted; both pairs have IoU 12 / 16: 2 / (2 + 2 + 0), above 0.75 0 / 6.
    found = matching.average_precision(TABLE)
    assert [found[k] for k in ("0.50", "0.70", "0.75", "0.80", "0.95")] == [0.5, 0.5, 0.5, 0, 0]
    assert len(found) == 10


def test_halves_of_an_object_match_it_once():
    # Both halves have an IoU of exactly 0.5 with the object: one is a match, one is extra.
    whole, halves = np.full((2, 4), 3), np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    for table in (from_labels(whole, halves), from_labels(halves, whole)):
        assert matching.matches(table, 50) == 1
        assert matching.average_precision(table)["0.50"] == 0.5
    # One object in halves, and two halves taken for one: a match each.
    both = from_labels(np.vstack([whole, halves]), np.vstack([halves + 3, whole + 6]))
    assert matching.matches(both, 50) == 2


def test_adapted_rand_error_by_hand():
    # Pairs within foreground: joint 12·11 + 4·3 + 12·11 + 4·3 = 288; truth 2·16·15 = 480;
    # prediction 12·11 + 12·11 + 4·3 + 4·3 = 288. 1 - 2·288 / (480 + 288) = 0.25.
    assert matching.adapted_rand_error(TABLE) == pytest.approx(0.25)


def test_variation_of_information_by_hand():
    def h(*parts: int) -> float:
        return -sum(p * log2(p / sum(parts)) for p in parts) / 64

    split, merged = matching.variation_of_information(TABLE)
    assert split == pytest.approx(h(12, 4) + h(12, 4) + h(1, 31))
    assert merged == pytest.approx(h(4, 31))  # the predicted background holds 4 pixels of 1


def test_split_and_merge_are_told_apart():
    one, two = np.ones((4, 4), int), np.repeat([[1, 2]], 4, axis=0).repeat(2, axis=1)
    assert matching.variation_of_information(from_labels(one, two)) == (1.0, 0.0)
    assert matching.variation_of_information(from_labels(two, one)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("score", "empty"),
    [
        (matching.pixel_error, 0.0),  # all 64 pixels are right
        (matching.dice, None),
        (matching.iou, None),
        (matching.seg, None),
        (matching.adapted_rand_error, None),
        (matching.variation_of_information, (0.0, 0.0)),
    ],
)
def test_nothing_in_truth_and_prediction(score, empty):
    assert score(EMPTY) == empty
    assert score(NO_PIXELS) is None


def test_average_precision_of_nothing_and_of_one_false_object():
    assert set(matching.average_precision(EMPTY).values()) == {None}
    false = from_labels(np.zeros_like(TRUTH), TRUTH)
    assert set(matching.average_precision(false).values()) == {0.0}
    assert matching.seg(false) is None


def test_single_pixel_objects_have_no_pairs_and_no_error():
    dots = np.array([[1, 0, 2]])
    assert matching.adapted_rand_error(from_labels(dots, dots)) == 0.0
    assert matching.adapted_rand_error(from_labels(dots, np.array([[1, 0, 1]]))) == 1.0


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_image(truth, prediction):
    table = from_labels(truth, prediction)
    split_merge = skimage_metrics.variation_of_information(truth, prediction)
    assert matching.variation_of_information(table) == pytest.approx(tuple(split_merge), abs=1e-11)
    if (truth != 0).any():
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = skimage_metrics.adapted_rand_error(truth, prediction)[0]
        expected = expected if np.isfinite(expected) else 0.0
        assert matching.adapted_rand_error(table) == pytest.approx(expected, abs=1e-11)


def brute_matches(truth, prediction, percent):
    """Try every pairing of the few objects."""
    true, pred = (np.setdiff1d(a, [0]).tolist() for a in (truth, prediction))

    def close(t, p):
        shared = ((truth == t) & (prediction == p)).sum()
        return shared * 100 >= percent * ((truth == t) | (prediction == p)).sum()

    swap = len(true) > len(pred)
    few, many = (pred, true) if swap else (true, pred)
    return max(
        sum(close(*((m, f) if swap else (f, m))) for f, m in zip(few, order, strict=True))
        for order in permutations(many, len(few))
    )


@given(
    truth=arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
    prediction=arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
    percent=st.sampled_from(matching.THRESHOLDS),
)
@settings(max_examples=80, deadline=None)
def test_matches_are_the_best_pairing(truth, prediction, percent):
    expected = brute_matches(truth, prediction, percent)
    assert matching.matches(from_labels(truth, prediction), percent) == expected


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=60, deadline=None)
def test_seg_and_pixel_scores_are_what_they_say(truth, prediction):
    table = from_labels(truth, prediction)
    true, pred = truth > 0, prediction > 0
    both, either = (true & pred).sum(), (true | pred).sum()
    assert matching.pixel_error(table.foreground()) == (true != pred).mean()
    if either:
        assert matching.iou(table.foreground()) == both / either
        assert matching.dice(table.foreground()) == 2 * both / (either + both)
    jaccards = []
    for t in np.setdiff1d(truth, [0]):
        covered = [
            ((truth == t) & (prediction == p)).sum() / ((truth == t) | (prediction == p)).sum()
            for p in np.setdiff1d(prediction, [0])
            if 2 * ((truth == t) & (prediction == p)).sum() > (truth == t).sum()
        ]
        jaccards.append(sum(covered))  # never more than one
    assert matching.seg(table) == (pytest.approx(np.mean(jaccards)) if jaccards else None)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=40, deadline=None)
def test_pooled_images_score_like_one_image_whose_ids_differ(truth, prediction):
    table = from_labels(truth, prediction)
    pooled = pool([table, table])
    # Background apart, ids that are renamed in the second image keep its objects apart.
    names = np.array([0, 70000, 65536, 2**40, 9], np.uint64)
    beside = from_labels(
        np.hstack([truth, names[truth]]), np.hstack([prediction, names[prediction]])
    )
    if truth.any():
        assert matching.seg(pooled) == pytest.approx(matching.seg(table))
        assert matching.seg(beside) == pytest.approx(matching.seg(table))
    assert matching.average_precision(pooled) == matching.average_precision(beside)
    assert matching.pixel_error(pooled.foreground()) == matching.pixel_error(beside.foreground())
    assert matching.variation_of_information(pooled) == pytest.approx(
        matching.variation_of_information(table), abs=1e-11
    )


def test_pooling_keeps_the_same_id_in_two_images_apart():
    dot = from_labels(np.array([[1, 1]]), np.array([[1, 1]]))
    miss = from_labels(np.array([[1, 1]]), np.array([[0, 0]]))
    assert matching.seg(pool([dot, miss])) == 0.5
    assert matching.matches(pool([dot, miss]), 50) == 1
    # Taken for blocks of one image they are one object, half of it found: no match at all.
    assert matching.seg(dot + miss) == 0.0


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=20, deadline=None)
def test_pixel_scores_are_those_of_segmentation_models_pytorch(truth, prediction):
    table = from_labels(truth, prediction).foreground()
    sides = (torch.tensor((side > 0).astype(np.int64))[None] for side in (prediction, truth))
    counts = smp_metrics.get_stats(*sides, mode="binary")
    for ours, theirs in (
        (matching.iou, smp_metrics.iou_score),
        (matching.dice, smp_metrics.f1_score),
        (matching.precision, smp_metrics.precision),
        (matching.recall, smp_metrics.recall),
        (matching.accuracy, smp_metrics.accuracy),
    ):
        found = ours(table)
        if found is not None:
            assert found == pytest.approx(float(theirs(*counts, reduction="micro")), abs=1e-5)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=20, deadline=None)
def test_rand_counts_pixel_pairs(truth, prediction):
    t, p = truth.ravel(), prediction.ravel()
    agree = (t[:, None] == t) == (p[:, None] == p)
    upper = np.triu_indices(len(t), 1)
    assert matching.rand(from_labels(truth, prediction)) == pytest.approx(agree[upper].mean())


def test_one_side_that_joins_no_pixels_does_not_agree_with_one_that_does():
    # Two pixels of one true object, found as two objects: the only pair is parted.
    assert matching.adapted_rand_error(from_labels(np.array([[1, 1]]), np.array([[1, 2]]))) == 1
    assert matching.adapted_rand_error(from_labels(np.array([[1, 2]]), np.array([[3, 4]]))) == 0
