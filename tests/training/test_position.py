from __future__ import annotations

import json

import pytest

from unetkit.training.checkpoint import Position, Validation


def test_a_position_survives_json() -> None:
    position = Position()
    for again in (
        position,
        Position(7, 5, 5, Validation(0.1 + 0.2, loss=1e-7, scores={"a": 1}), 2),
    ):
        assert Position.from_dict(json.loads(json.dumps(again.to_dict()))) == again


def test_the_best_is_remembered_and_the_others_are_counted() -> None:
    position = Position()
    found = [(0.5, 1.0), (0.4, 0.1), (0.5, 1.0), (0.5, 0.9)]
    better = []
    for step, (score, loss) in enumerate(found, start=1):
        position.step = step
        better.append(position.judge(Validation(score, loss=loss)))
        assert position.validated == step
    assert better == [True, False, False, True]
    assert (position.best_step, position.since_best) == (4, 0)


@pytest.mark.parametrize(
    ("first", "second", "higher"),
    [
        ((0.5, 1.0), (0.5004, 0.9), True),
        ((0.5, 1.0), (0.51, 9.0), True),
        ((0.5, 1), (0.5, 2), False),
    ],
)
def test_scores_within_a_thousandth_are_equal_and_the_loss_decides(
    first: tuple[float, float], second: tuple[float, float], *, higher: bool
) -> None:
    one, other = (Validation(score, loss=loss) for score, loss in (first, second))
    assert (other.rank > one.rank) == higher
