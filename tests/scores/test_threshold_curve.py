"""Curves from counts equal scores of the thresholded map."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.scores import contingency, threshold_curve
from unetkit.scores.table import score_instances


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
    scores = ("precision", "recall", "dice", "iou", "pixel_error")
    for row in threshold_curve.curve(counts[0]):
        found = chance[ignore == 0] > row["threshold"]
        table = contingency.from_labels(right, found)
        scored = score_instances(table)
        for name in scores:
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
