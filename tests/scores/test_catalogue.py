"""Every score is listed with what it means, and found in a report by its name."""

from __future__ import annotations

import json

import numpy as np

from unetkit.scores import table
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_instances


def test_every_score_says_what_it_means():
    listed = table.scores()
    names = [score.name for score in listed]
    assert len(set(names)) == len(names)
    overall = score_instances(from_labels(np.eye(3, dtype=int), np.eye(3, dtype=int))).to_dict()
    for score in listed:
        assert score.definition.endswith("."), score.name
        assert score.best in (0, 1, None)
        table.value_of(score.name, overall)
    json.dumps([score.to_dict() for score in listed], allow_nan=False)
    # Every number of the report is in the list.
    known = {"pixels", "average_precision_at", "classes"}
    assert overall.keys() - known == {n for n in names if not n[-1].isdigit()} | {
        "f1",
        "hausdorff95",
    }


def test_references_come_from_the_docstrings():
    assert "Jain et al. (2010)" in str(table.score_named("warping_error").reference)
    assert table.score_named("dicee") is None


def test_a_bound_is_a_floor_for_scores_and_a_ceiling_for_errors():
    dice, error = table.score_named("dice"), table.score_named("pixel_error")
    assert dice.fails(0.89, 0.9)
    assert not dice.fails(0.9, 0.9)
    assert error.fails(0.2, 0.1)
    assert not error.fails(0.1, 0.1)
    assert dice.fails(None, 0)
