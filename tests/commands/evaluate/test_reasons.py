"""Each score that is not there has a reason, and no other has."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.commands.evaluate.report import UndefinedReasons
from unetkit.scores import table
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import Scores, score_classes, score_instances

NOTHING = np.zeros((4, 4), np.uint8)
ONE = np.pad(np.ones((2, 2), np.uint8), 1)


def facts(**given: object) -> UndefinedReasons:
    known = {"kind": "instances", "borders": True, "thin": True, "largest": 16, "alike": True}
    return UndefinedReasons(**{**known, **given})


@pytest.mark.parametrize("truth", [NOTHING, ONE])
@pytest.mark.parametrize("found", [NOTHING, ONE])
@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_reasons_are_those_of_all_that_is_not_there(truth, found, kind):
    score = score_instances if kind == "instances" else score_classes
    scores = score(from_labels(truth, found))
    reasons = facts(kind=kind).of(scores)
    document = scores.to_dict()
    missing = {s.name for s in table.SCORES if table.value_of(s.name, document) is None}
    assert set(reasons) == missing
    assert all(reasons.values())


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ({}, "seg", "it does not apply without true objects"),
        ({"kind": "classes"}, "seg", "scores of objects are for instances"),
        ({"borders": False}, "boundary_f", "worked out with --borders"),
        ({"borders": False}, "v_rand", "worked out with --borders"),
        ({"thin": False}, "v_rand", "for maps of two classes"),
        ({"thin": False}, "boundary_f", "it does not apply where neither side has an outline"),
        ({"largest": 4097**2}, "isbi_rand", "has more than 4096 x 4096 pixels"),
        ({"alike": False}, "warping_error", "some samples have a probability map"),
        ({}, "v_info", "it does not apply where no true object has a pixel"),
    ],
)
def test_the_first_reason_counts(given, name, words):
    assert words in facts(**given).of(Scores(pixels=16))[name]
