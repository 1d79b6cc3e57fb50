"""Matches and errors of objects on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.scores import contingency, matching
from unetkit.scores.contingency import from_labels

# Object 1 is found as 4; 2 is cut into 5 and 6; 3 and 4 are joined in 7; 5 is missed; 8 is false.
TRUTH = np.array(
    [
        [1, 1, 0, 2, 2, 2, 2, 0],
        [1, 1, 0, 2, 2, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [3, 3, 4, 4, 0, 5, 5, 0],
        [3, 3, 4, 4, 0, 5, 5, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
)
FOUND = np.array(
    [
        [4, 4, 0, 5, 5, 6, 6, 0],
        [4, 4, 0, 5, 5, 6, 6, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [7, 7, 7, 7, 0, 0, 0, 0],
        [7, 7, 7, 7, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 8],
    ]
)


def kinds(side: contingency.Segments, words: np.ndarray) -> dict[int, str]:
    return {int(n): str(word) for n, word in zip(side.ids, words, strict=True) if n}


def test_errors_by_hand():
    pairs = matching.overlaps(from_labels(TRUTH, FOUND))
    found = matching.errors(pairs)
    # 5 and 6 each have half of 2, an IoU of exactly 0.5: one of them is its match. So is 7 with
    # an IoU of 4/8 to 3 or 4.
    assert (found.splits, found.merges, found.misses, found.false_objects) == (1, 1, 1, 1)
    true, pred = kinds(pairs.true, found.true), kinds(pairs.pred, found.pred)
    assert (true[1], true[2], true[5], pred[8]) == ("match", "match", "miss", "false")
    assert sorted([true[3], true[4]]) == ["match", "merge"]
    assert sorted([pred[5], pred[6]]) == ["match", "split"]


def test_unequal_parts_are_a_split_and_unequal_wholes_a_merge():
    truth, found = np.zeros((2, 3, 10), int)
    truth[0], found[0, :4], found[0, 4:8] = 1, 1, 2
    truth[2, :3], truth[2, 4:7], found[2, :8] = 2, 3, 3
    pairs = matching.overlaps(from_labels(truth, found))
    errors = matching.errors(pairs)
    assert kinds(pairs.true, errors.true) == {1: "split", 2: "merge", 3: "merge"}
    assert kinds(pairs.pred, errors.pred) == {1: "split", 2: "split", 3: "merge"}
    assert errors.true_iou[1:].tolist() == [0.4, 3 / 8, 3 / 8]


def test_detection_by_hand():
    # 7 covers both 3 and 4: one split. 5 is missed; 2 too, as neither half has more than half.
    # 5, 6 and 8 detect nothing: three false. 1 is found. By hand, five misses.
    cost = 5 * 1 + 10 * 2 + 1 * 3
    pairs = matching.overlaps(from_labels(TRUTH, FOUND))
    assert matching.det(pairs) == 1 - cost / 50
    many = np.arange(1, 101).reshape(10, 10)
    one = np.zeros((10, 10), int)
    one[9, 9] = 1
    assert matching.det(matching.overlaps(from_labels(one, np.where(one, 0, many)))) == 0
    assert matching.det(matching.overlaps(from_labels(0 * one, one))) is None


def test_panoptic_quality_by_hand():
    truth, found = np.zeros((2, 4, 8), int)
    truth[0, :4], truth[2, :4] = 1, 2
    found[0, :3], found[3, :4] = 5, 6
    # One match with IoU 3/4, one miss, one false object.
    result = matching.panoptic(matching.overlaps(from_labels(truth, found)))
    assert result == {"pq": 0.75 / 2, "sq": 0.75, "rq": 0.5}
    nothing = matching.panoptic(matching.overlaps(from_labels(0 * truth, 0 * found)))
    assert nothing == {"pq": None, "sq": None, "rq": None}


def test_at_one_half_the_largest_set_of_pairs_counts():
    # 1 could match either half of itself; only one counts.
    truth, found = np.ones((1, 4), int), np.array([[1, 1, 2, 2]])
    pairs = matching.overlaps(from_labels(truth, found))
    assert len(pairs.matches(50)) == 1
    assert len(pairs.matches(55)) == 0


def test_seventy_thousand_objects():
    truth = np.arange(1, 70_001).repeat(4).reshape(700, 400)
    pairs = matching.overlaps(from_labels(truth, truth[:, ::-1] * 3))
    assert len(pairs.matches(50)) == pairs.true.objects == 70_000
    assert matching.det(pairs) == pytest.approx(1)
