"""Every score of a table: its record, by hand, against others and brute force, and the mean."""

import json
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segmentation_models_pytorch import metrics as smp_metrics
from skimage import metrics as skimage_metrics

from unetkit.scores import contingency, threshold_curve
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import (
    SCORES,
    SCORES_BY_NAME,
    ClassScores,
    mean,
    score_classes,
    score_instances,
    value_of,
)

LABELS = arrays(np.uint16, (8, 8), elements=st.integers(0, 4))

# Two squares of 4 x 4. The first is predicted one column short; the second is cut into a piece
# of 4 x 3 and one of 4 x 1; a single pixel of background is taken for an object.
TRUTH = np.kron([[1, 0], [0, 2]], np.ones((4, 4), int))
PREDICTION = np.kron([[5, 0], [0, 6]], np.ones((4, 4), int))
PREDICTION[:4, 3], PREDICTION[4:, 7], PREDICTION[0, 7] = 0, 7, 9
# Pixels: (1,5) 12, (1,0) 4, (2,6) 12, (2,7) 4, (0,9) 1, (0,0) 31.


def scores(truth, found):
    return score_instances(from_labels(truth, found))


def test_by_hand():
    found = scores(TRUTH, PREDICTION)
    # 4 missed pixels and 1 invented one, of 64: TP 28, FN 4, FP 1.
    assert (found.pixel_error, found.dice, found.iou) == (5 / 64, 56 / 61, 28 / 33)
    # Object 1: 12 of 16 covered, union 16. Object 2: 12 of 16, union 16. 9 costs nothing.
    assert found.seg == 0.75
    # 2 true, 4 predicted; both pairs have IoU 12 / 16: 2 / (2 + 2 + 0), above 0.75 0 / 6.
    at = found.average_precision_at
    assert list(at.values()) == [0.5] * 6 + [0] * 4
    # Pairs within foreground: joint 12·11 + 4·3 + 12·11 + 4·3 = 288; truth 2·16·15 = 480;
    # prediction 12·11 + 12·11 + 4·3 + 4·3 = 288. 1 - 2·288 / (480 + 288) = 0.25.
    assert found.adapted_rand_error == pytest.approx(0.25)


def test_variation_of_information_by_hand():
    def h(*parts):
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
        # It has 1 where nothing is predicted.
        (scored.precision if prediction.any() else None, smp_metrics.precision),
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


@pytest.fixture
def sides():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, size=(30, 40))
    chance = np.clip((truth == 2) * 0.3 + rng.random((30, 40)) * 0.7, 0, 1)
    ignore = rng.integers(0, 2, size=(30, 40))
    return truth, np.round(chance * 255).astype(np.uint8) / 255, ignore


def test_scores_are_those_of_each_thresholded_map(sides):
    truth, chance, ignore = sides
    counts = threshold_curve.count(truth, chance[None], labels=[2], ignore=ignore)
    right = truth[ignore == 0] == 2
    for row in threshold_curve.curve(counts[0]):
        found = chance[ignore == 0] > row["threshold"]
        table = contingency.from_labels(right, found)
        scored = score_instances(table)
        for name in ("precision", "recall", "dice", "iou", "pixel_error"):
            assert row[name] == getattr(scored, name), name


def test_blocks_add_up_and_labels_stand_apart(sides):
    truth, chance, _ = sides
    both = np.stack([1 - chance, chance])
    whole = threshold_curve.count(truth, both, labels=[1, 2])
    parts = [
        threshold_curve.count(truth[rows], both[:, rows], labels=[1, 2])
        for rows in (slice(0, 7), slice(7, 30))
    ]
    assert (sum(parts) == whole).all()
    assert (whole[1] == threshold_curve.count(truth, chance[None], labels=[2])[0]).all()


def test_nothing_to_find_is_no_share():
    counts = threshold_curve.count(np.zeros((4, 4)), np.zeros((1, 4, 4)), labels=[1])
    row = threshold_curve.curve(counts[0])[10]
    assert row["dice"] is row["precision"] is row["recall"] is None
    assert row["pixel_error"] == 0


# 8 x 8: the upper half is background, then two rows of class 1, then two of class 2.
CLASSES = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], 8).reshape(8, 8)
# One row of class 1 is taken for background.
FOUND_CLASSES = np.repeat([0, 0, 0, 0, 0, 1, 2, 2], 8).reshape(8, 8)


def test_every_score_says_what_it_means():
    assert len(SCORES_BY_NAME) == len(SCORES)
    overall = score_instances(from_labels(np.eye(3, dtype=int), np.eye(3, dtype=int))).to_dict()
    for score in SCORES:
        assert score.definition.endswith("."), score.name
        assert score.best in (0, 1, None)
        value_of(score.name, overall)
    json.dumps([score.to_dict() for score in SCORES], allow_nan=False)
    # Every number of the report is in the list.
    known = {"pixels", "average_precision_at", "classes", "object_classes"}
    listed = {n for n in SCORES_BY_NAME if not n.startswith("average_precision_")}
    assert overall.keys() - known == listed
    assert "Jain et al. (2010)" in SCORES_BY_NAME["warping_error"].reference


def test_a_bound_is_a_floor_for_scores_and_a_ceiling_for_errors():
    dice, error = SCORES_BY_NAME["dice"], SCORES_BY_NAME["pixel_error"]
    assert [dice.fails(value, 0.9) for value in (0.89, 0.9, None)] == [True, False, True]
    assert [error.fails(value, 0.1) for value in (0.2, 0.1, None)] == [True, False, True]


def test_classes_by_hand():
    scores = score_classes(from_labels(CLASSES, FOUND_CLASSES), ("background", "myelin"))
    assert (scores.pixels, scores.pixel_error) == (64, 8 / 64)
    background, myelin, third = scores.classes
    assert (background.name, background.dice, background.iou) == ("background", 64 / 72, 32 / 40)
    assert myelin == ClassScores(1, "myelin", 16 / 24, 8 / 16, 1, 8 / 16, 16, 8)
    assert (third.name, third.dice, third.iou) == ("2", 1, 1)
    assert (scores.dice, scores.iou) == (pytest.approx((16 / 24 + 1) / 2), 0.75)
    assert scores.seg is scores.voi is scores.objects_true is scores.average_precision is None


def test_a_named_class_that_is_nowhere_has_no_score_and_does_not_enter_the_mean():
    scores = score_classes(from_labels(CLASSES, CLASSES), ("a", "b", "c", "never"))
    assert scores.classes[3].dice is None
    assert scores.dice == 1


def test_instances_by_hand():
    truth = np.zeros((8, 8), int)
    truth[:2, :2], truth[4:6, 4:6], truth[7, 0] = 1, 2, 3
    found = np.zeros((8, 8), int)
    found[:2, :2], found[4:6, 4] = 4, 5
    scores = score_instances(from_labels(truth, found))
    # 1 is met, 2 half met (IoU 0.5; not more than half), 3 missed.
    assert (scores.objects_true, scores.objects_predicted, scores.objects_matched) == (3, 2, 2)
    assert scores.seg == pytest.approx(1 / 3)
    assert scores.average_precision_at["0.50"] == 2 / 3
    assert scores.average_precision_at["0.55"] == 1 / 4
    assert scores.average_precision == pytest.approx((2 / 3 + 9 / 4) / 10)
    assert scores.pixel_error == 3 / 64
    assert scores.voi == scores.voi_split + scores.voi_merge


@given(truth=LABELS, prediction=LABELS, ignore=arrays(bool, (8, 8)))
@settings(max_examples=60, deadline=None)
def test_scores_are_strict_json_and_in_range(truth, prediction, ignore):
    table = from_labels(truth, prediction, ignore=ignore)
    for scores in (score_instances(table), score_classes(table)):
        values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
        for one in SCORES:
            value = value_of(one.name, values)
            assert value is None or 0 <= value <= (1 if one.range == "0 to 1" else np.inf)


@given(labels=LABELS)
@settings(max_examples=30, deadline=None)
def test_truth_scored_against_itself_is_perfect(labels):
    scores = score_instances(from_labels(labels, labels))
    assert scores.pixel_error == scores.voi == 0
    assert scores.objects_matched == scores.objects_true == len(np.setdiff1d(labels, [0]))
    if labels.any():
        assert scores.dice == scores.iou == scores.seg == scores.average_precision == 1
        # Objects of a pixel each have no pair that could be wrong.
        pairs = np.bincount(labels.ravel())[1:].max() > 1
        assert scores.adapted_rand_error == (0 if pairs else None)


def test_mean_leaves_out_images_to_which_a_score_does_not_apply():
    nothing = np.zeros((2, 2), int)
    thing = np.array([[1, 1], [0, 0]])
    tables = [from_labels(nothing, nothing), from_labels(thing, thing), from_labels(thing, nothing)]
    averaged = mean([score_instances(t) for t in tables])
    assert averaged.seg == averaged.average_precision_at["0.75"] == 0.5
    assert averaged.objects_true == pytest.approx(2 / 3)
    assert averaged.pixels == 4


def test_overall_and_mean_differ():
    one = from_labels(np.array([[1]]), np.array([[0]]))
    many = from_labels(np.arange(1, 10), np.arange(1, 10))
    assert mean([score_instances(one), score_instances(many)]).seg == 0.5
    assert score_instances(pool([one, many])).seg == 0.9


def test_mean_of_classes_goes_by_label():
    tables = [from_labels(CLASSES, FOUND_CLASSES), from_labels(CLASSES[:4], FOUND_CLASSES[:4])]
    averaged = mean([score_classes(t) for t in tables])
    assert [c.label for c in averaged.classes] == [0, 1, 2]
    assert averaged.classes[0].dice == pytest.approx((64 / 72 + 1) / 2)
    assert averaged.classes[1].dice == 16 / 24
    assert averaged.average_precision_at is None
