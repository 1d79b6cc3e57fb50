"""All scores of a table in one record, strict JSON, and the mean over images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import mean, score_classes, score_instances

LABELS = arrays(np.uint8, (5, 5), elements=st.integers(0, 3))

# 8 x 8: the upper half is background, then two rows of class 1, then two of class 2.
CLASSES = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], 8).reshape(8, 8)
# One row of class 1 is taken for background.
FOUND = np.repeat([0, 0, 0, 0, 0, 1, 2, 2], 8).reshape(8, 8)


def test_classes_by_hand():
    scores = score_classes(from_labels(CLASSES, FOUND), ("background", "myelin"))
    assert scores.pixels == 64
    assert scores.pixel_error == 8 / 64
    background, myelin, third = scores.classes
    assert (background.name, background.dice, background.iou) == ("background", 64 / 72, 32 / 40)
    assert (myelin.name, myelin.dice, myelin.iou) == ("myelin", 16 / 24, 8 / 16)
    assert (third.name, third.dice, third.iou) == ("2", 1, 1)
    assert (myelin.pixels_true, myelin.pixels_predicted) == (16, 8)
    assert scores.dice == pytest.approx((16 / 24 + 1) / 2)
    assert scores.iou == 0.75
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


@given(truth=LABELS, prediction=LABELS, ignore=arrays(bool, (5, 5)))
@settings(max_examples=60, deadline=None)
def test_scores_are_strict_json_and_in_range(truth, prediction, ignore):
    table = from_labels(truth, prediction, ignore=ignore)
    for scores in (score_instances(table), score_classes(table)):
        values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
        for name in ("pixel_error", "dice", "iou", "seg", "average_precision"):
            assert values[name] is None or 0 <= values[name] <= 1
        assert values["adapted_rand_error"] is None or 0 <= values["adapted_rand_error"] <= 1


@given(labels=LABELS)
@settings(max_examples=30, deadline=None)
def test_truth_scored_against_itself_is_perfect(labels):
    scores = score_instances(from_labels(labels, labels))
    assert scores.pixel_error == 0
    assert scores.voi == 0
    assert scores.objects_matched == scores.objects_true == len(np.setdiff1d(labels, [0]))
    if labels.any():
        assert scores.dice == scores.iou == scores.seg == scores.average_precision == 1
        assert scores.adapted_rand_error == 0


def test_mean_leaves_out_images_to_which_a_score_does_not_apply():
    nothing = np.zeros((2, 2), int)
    thing = np.array([[1, 1], [0, 0]])
    tables = [from_labels(nothing, nothing), from_labels(thing, thing), from_labels(thing, nothing)]
    averaged = mean([score_instances(t) for t in tables])
    assert averaged.seg == 0.5
    assert averaged.average_precision_at["0.75"] == 0.5
    assert averaged.objects_true == pytest.approx(2 / 3)
    assert averaged.pixels == 4


def test_overall_and_mean_differ():
    one = from_labels(np.array([[1]]), np.array([[0]]))
    many = from_labels(np.arange(1, 10), np.arange(1, 10))
    assert mean([score_instances(one), score_instances(many)]).seg == 0.5
    assert score_instances(pool([one, many])).seg == 0.9


def test_mean_of_classes_goes_by_label():
    tables = [from_labels(CLASSES, FOUND), from_labels(CLASSES[:4], FOUND[:4])]
    averaged = mean([score_classes(t) for t in tables])
    assert [c.label for c in averaged.classes] == [0, 1, 2]
    assert averaged.classes[0].dice == pytest.approx((64 / 72 + 1) / 2)
    assert averaged.classes[1].dice == 16 / 24
    assert averaged.average_precision_at is None
