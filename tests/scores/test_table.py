"""Every score has its record; all scores of a table, strict JSON, and the mean over images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import (
    SCORES,
    SCORES_BY_NAME,
    mean,
    score_classes,
    score_instances,
    value_of,
)

LABELS = arrays(np.uint8, (5, 5), elements=st.integers(0, 3))

# 8 x 8: the upper half is background, then two rows of class 1, then two of class 2.
CLASSES = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], 8).reshape(8, 8)
# One row of class 1 is taken for background.
FOUND = np.repeat([0, 0, 0, 0, 0, 1, 2, 2], 8).reshape(8, 8)


def test_every_score_says_what_it_means():
    assert len(SCORES_BY_NAME) == len(SCORES)
    overall = score_instances(from_labels(np.eye(3, dtype=int), np.eye(3, dtype=int))).to_dict()
    for score in SCORES:
        assert score.definition.endswith("."), score.name
        assert score.best in (0, 1, None)
        value_of(score.name, overall)
    json.dumps([score.to_dict() for score in SCORES], allow_nan=False)
    # Every number of the report is in the list.
    known = {"pixels", "average_precision_at", "classes"}
    listed = {n for n in SCORES_BY_NAME if not n.startswith("average_precision_")}
    assert overall.keys() - known == listed
    assert "Jain et al. (2010)" in SCORES_BY_NAME["warping_error"].reference


def test_a_bound_is_a_floor_for_scores_and_a_ceiling_for_errors():
    dice, error = SCORES_BY_NAME["dice"], SCORES_BY_NAME["pixel_error"]
    assert dice.fails(0.89, 0.9)
    assert not dice.fails(0.9, 0.9)
    assert error.fails(0.2, 0.1)
    assert not error.fails(0.1, 0.1)
    assert dice.fails(None, 0)


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
        # Objects of a pixel each have no pair that could be wrong.
        assert scores.adapted_rand_error == (
            0 if np.bincount(labels.ravel())[1:].max() > 1 else None
        )


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
