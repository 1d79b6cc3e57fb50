"""Plans of trainings whose options are those of `train` where a test says nothing else."""

from dataclasses import fields
from inspect import signature

import pytest

from unetkit.commands.train.command import train
from unetkit.commands.train.plan import TrainOptions, make_plan


@pytest.fixture
def plan():
    """Return what makes a plan of the defaults and a few other options."""
    given = {name: parameter.default for name, parameter in signature(train).parameters.items()}
    names = [field.name for field in fields(TrainOptions)]

    def make(**changes):
        usual = {name: given[name] for name in names} | {"device": "cpu"}
        return make_plan(TrainOptions(**usual | changes))

    return make
