"""What a model file says about deciding is read as it was written, joined, or refused."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from unetkit.errors import InputError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.decision import Decision, default_decision, joint_decision
from unetkit.models.model_header import ModelHeader

USUAL = default_decision("foreground", classes=2)
FITTED = Decision(
    threshold=0.4,
    min_size=30,
    grow=2,
    score=0.7,
    default_score=0.6,
    images=3,
    objects=40,
    reason="it is flat there",
    models=("0badcafe",),
)


@pytest.fixture
def header(header_of):
    return header_of(SimpleNamespace(contract=SizeContract(step=4, minimum=44, margin=20)))


def test_round_trip_through_a_header(header):
    kept = dataclasses.replace(header, decision=FITTED)
    assert ModelHeader.from_json(kept.to_json()) == kept
    earlier = {key: value for key, value in header.to_dict().items() if key != "decision"}
    assert ModelHeader.from_json(json.dumps(earlier)) == header
    assert header.decision is None
    assert "seed_level" not in kept.to_json()
    parted = dataclasses.replace(FITTED, seed_level=0.9, seed_size=20)
    kept = dataclasses.replace(header, decision=parted)
    assert ModelHeader.from_json(kept.to_json()) == kept


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1.5},
        {"threshold": True},
        {"min_size": -1},
        {"grow": 2.5},
        {"grow": 2**40},
        {"images": None},
        {"reason": 3},
        {"models": ["a", 1]},
        {"colour": 1},
        {"seed_level": 0.0, "seed_size": 3},
        {"seed_level": 0.9},
        {"seed_size": 3},
    ],
)
def test_what_is_no_decision_is_refused(header, change):
    stored = {**header.to_dict(), "decision": {**FITTED.to_dict(), **change}}
    with pytest.raises(InputError, match="decision"):
        ModelHeader.from_json(json.dumps(stored))
    with pytest.raises(InputError, match="decision"):
        ModelHeader.from_json(json.dumps({**header.to_dict(), "decision": [1]}))


def test_several_decisions_are_one_where_they_agree_and_else_their_middle():
    other = dataclasses.replace(FITTED, threshold=0.7, min_size=91, grow=0, score=0.5)
    assert joint_decision([None, None], usual=USUAL) is None
    same = dataclasses.replace(FITTED, score=0.1)
    assert joint_decision([FITTED, same], usual=USUAL) == FITTED
    three = joint_decision([FITTED, other, None], usual=USUAL)
    assert three.numbers == {"threshold": 0.5, "min_size": 30, "grow": 1}
    assert three.score is None
    assert "tune" in three.reason
    assert joint_decision([FITTED, other], usual=USUAL).numbers["threshold"] == 0.55
    parted = dataclasses.replace(other, seed_level=0.9, seed_size=20)
    assert joint_decision([FITTED, parted], usual=USUAL).seed_level is None
    lower = dataclasses.replace(FITTED, seed_level=0.8, seed_size=11)
    joint = joint_decision([parted, lower], usual=USUAL)
    assert (joint.seed_level, joint.seed_size) == (0.85, 15)
    classes = default_decision("classes", classes=2)
    lone = dataclasses.replace(classes, threshold=0.3)
    assert joint_decision([lone, None], usual=classes).numbers == {"threshold": 0.4}
