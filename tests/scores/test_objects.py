"""Matches, errors and scores of objects: by hand, and against every pairing."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import matching
from unetkit.scores.contingency import from_labels, merge, pool
from unetkit.scores.table import score_instances

LABELS = arrays(np.uint16, (8, 8), elements=st.integers(0, 4))
SMALL = arrays(np.uint8, (3, 4), elements=st.integers(0, 3))

# Object 1 is found as 4; 2 is cut into 5 and 6; 3 and 4 are joined in 7; 5 is missed; 8 is false.
TRUTH, FOUND = (
    np.repeat([upper, [0] * 8, lower, [0] * 8], [2, 1, 2, 1], axis=0)
    for upper, lower in (
        ([1, 1, 0, 2, 2, 2, 2, 0], [3, 3, 4, 4, 0, 5, 5, 0]),
        ([4, 4, 0, 5, 5, 6, 6, 0], [7, 7, 7, 7, 0, 0, 0, 0]),
    )
)
FOUND[5, 7] = 8


def scores(truth, found):
    return score_instances(from_labels(truth, found))


def counts(truth, found):
    one = scores(truth, found)
    return one.splits, one.merges, one.misses, one.false_objects


def kinds(side, words):
    return {int(n): str(word) for n, word in zip(side.ids, words, strict=True) if n}


def test_errors_by_hand():
    pairs = matching.overlaps(from_labels(TRUTH, FOUND))
    true, pred = matching.errors(pairs)
    # 5 and 6 each have half of 2, an IoU of exactly 0.5: one of them is its match. So is 7 with
    # an IoU of 4/8 to 3 or 4.
    assert counts(TRUTH, FOUND) == (1, 1, 1, 1)
    true, pred = kinds(pairs.true, true.kinds), kinds(pairs.pred, pred.kinds)
    assert (true[1], true[2], true[5], pred[8]) == ("match", "match", "miss", "false")
    assert sorted([true[3], true[4]]) == ["match", "merge"]
    assert sorted([pred[5], pred[6]]) == ["match", "split"]


def test_unequal_parts_are_a_split_and_unequal_wholes_a_merge():
    truth, found = np.zeros((2, 3, 10), int)
    truth[0], found[0, :4], found[0, 4:8] = 1, 1, 2
    truth[2, :3], truth[2, 4:7], found[2, :8] = 2, 3, 3
    pairs = matching.overlaps(from_labels(truth, found))
    true, pred = matching.errors(pairs)
    assert kinds(pairs.true, true.kinds) == {1: "split", 2: "merge", 3: "merge"}
    assert kinds(pairs.pred, pred.kinds) == {1: "split", 2: "split", 3: "merge"}
    assert true.iou[1:].tolist() == [0.4, 3 / 8, 3 / 8]


@pytest.mark.parametrize(("truth", "found"), [((1, 2), (1, 9)), ((1, 9), (1, 2))])
def test_an_object_that_covers_one_other_and_misses_half_is_inexact(truth, found):
    # All of the smaller, an eighth of the larger.
    sides = np.zeros((2, 1, 12), int)
    sides[0, 0, slice(*truth)], sides[1, 0, slice(*found)] = 1, 2
    pairs = matching.overlaps(from_labels(*sides))
    errors = matching.errors(pairs)
    assert [one.kinds.tolist() for one in errors] == [["", "inexact"]] * 2
    assert counts(*sides) == (0, 0, 0, 0)


def test_detection_by_hand():
    # 7 covers both 3 and 4: one split. 5 is missed; 2 too, as neither half has more than half.
    # 5, 6 and 8 detect nothing: three false. 1 is found. By hand, five misses.
    cost = 5 * 1 + 10 * 2 + 1 * 3
    assert scores(TRUTH, FOUND).det == 1 - cost / 50
    many = np.arange(1, 101).reshape(10, 10)
    one = np.zeros((10, 10), int)
    one[9, 9] = 1
    assert scores(one, np.where(one, 0, many)).det == 0
    assert scores(0 * one, one).det is None


def test_panoptic_quality_by_hand():
    truth, found = np.zeros((2, 4, 8), int)
    truth[0, :4], truth[2, :4] = 1, 2
    found[0, :3], found[3, :4] = 5, 6
    # One match with IoU 3/4, one miss, one false object.
    result = scores(truth, found)
    assert (result.pq, result.sq, result.rq) == (0.75 / 2, 0.75, 0.5)
    nothing = scores(0 * truth, 0 * found)
    assert nothing.pq is nothing.sq is nothing.rq is None


def test_seg_wants_more_than_half():
    truth = np.ones((1, 4), int)
    assert scores(truth, np.array([[1, 1, 0, 0]])).seg == 0
    assert scores(truth, np.array([[1, 1, 1, 0]])).seg == 0.75


def test_average_precision_of_nothing_and_of_one_false_object():
    assert set(scores(0 * TRUTH, 0 * TRUTH).average_precision_at.values()) == {None}
    false = scores(0 * TRUTH, TRUTH)
    assert set(false.average_precision_at.values()) == {0.0}
    assert false.seg is None


def test_halves_of_an_object_match_it_once():
    # Both halves have an IoU of exactly 0.5 with the object: one is a match, one is extra.
    whole, halves = np.full((2, 4), 3), np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    for found in (scores(whole, halves), scores(halves, whole)):
        assert found.objects_matched == 1
        assert found.average_precision_at["0.50"] == 0.5
        assert found.average_precision_at["0.55"] == 0
    # One object in halves, and two halves taken for one: a match each.
    both = scores(np.vstack([whole, halves]), np.vstack([halves + 3, whole + 6]))
    assert both.objects_matched == 2


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


@given(truth=SMALL, prediction=SMALL, percent=st.sampled_from(matching.THRESHOLDS))
@settings(max_examples=80, deadline=None)
def test_matches_are_the_best_pairing(truth, prediction, percent):
    pairs = matching.overlaps(from_labels(truth, prediction))
    assert len(pairs.matches(percent)) == brute_matches(truth, prediction, percent)


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=60, deadline=None)
def test_seg_is_what_it_says(truth, prediction):
    jaccards = []
    for t in np.setdiff1d(truth, [0]):
        covered = [
            ((truth == t) & (prediction == p)).sum() / ((truth == t) | (prediction == p)).sum()
            for p in np.setdiff1d(prediction, [0])
            if 2 * ((truth == t) & (prediction == p)).sum() > (truth == t).sum()
        ]
        jaccards.append(sum(covered))  # never more than one
    expected = pytest.approx(np.mean(jaccards)) if jaccards else None
    assert scores(truth, prediction).seg == expected


def test_pooling_keeps_the_same_id_in_two_images_apart():
    dot = from_labels(np.array([[1, 1]]), np.array([[1, 1]]))
    miss = from_labels(np.array([[1, 1]]), np.array([[0, 0]]))
    pooled = score_instances(pool([dot, miss]))
    assert (pooled.seg, pooled.objects_matched) == (0.5, 1)
    # Taken for blocks of one image they are one object, half of it found: no match at all.
    assert score_instances(merge([dot, miss])).seg == 0.0
