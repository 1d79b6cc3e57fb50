"""Plans of trainings whose options are those of `train` where a test says nothing else."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.commands.train.command import train
from unetkit.commands.train.plan import Plan, TrainOptions, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """Return what makes a plan of the defaults and a few other options."""
    given = {name: parameter.default for name, parameter in signature(train).parameters.items()}
    names = [field.name for field in fields(TrainOptions)]

    def make(**changes: Any) -> Plan:
        usual = {name: given[name] for name in names} | {"device": "cpu"}
        return make_plan(TrainOptions(**usual | changes))

    return make
