"""What is drawn for a copy: from its place alone, in the sample's own pixels, without folds."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from unetkit.arrays.deformation import folds
from unetkit.commands.augment.command import augment
from unetkit.commands.augment.copies import Strengths
from unetkit.errors import UsageError


def strengths(**changes):
    names = ("grid", "sigma", "shift", "rotation", "flips", "grey")
    parameters = inspect.signature(augment).parameters
    return Strengths(**{**{name: parameters[name].default for name in names}, **changes})


def sample(size=(200, 300), pixel_size=None):
    return SimpleNamespace(
        name="a",
        data=SimpleNamespace(height=size[0], width=size[1]),
        image=SimpleNamespace(pixel_size=pixel_size),
    )


def test_a_draw_depends_on_seed_sample_and_copy_alone():
    one = strengths().draw(0, (1, 2), sample())
    again = strengths().draw(0, (1, 2), sample())
    assert one[0].to_dict() == again[0].to_dict()
    assert one[1] == again[1]
    for other in (
        strengths().draw(1, (1, 2), sample()),
        strengths().draw(0, (2, 2), sample()),
        strengths().draw(0, (1, 3), sample()),
    ):
        assert other[0].to_dict() != one[0].to_dict()


def test_a_length_follows_the_pixels_of_the_sample():
    drawn, _ = strengths(sigma="5um").draw(0, (0, 1), sample(pixel_size={"y": 0.5, "x": 1.0}))
    plain, _ = strengths(sigma=1.0).draw(0, (0, 1), sample())
    np.testing.assert_allclose(drawn.grid, plain.grid * np.array([10, 5])[:, None, None])


def test_folds_are_drawn_again_unless_they_are_allowed():
    strong, small = {"sigma": 14.0}, sample((64, 64))
    allowed = [strengths(**strong, allow_folds=True).draw(0, (0, i), small)[0] for i in range(40)]
    drawn = [strengths(**strong).draw(0, (0, i), small)[0] for i in range(40)]
    assert any(folds(deformation, (64, 64)) for deformation in allowed)
    assert not any(folds(deformation, (64, 64)) for deformation in drawn)


@pytest.mark.parametrize("changes", [{"sigma": -1}, {"sigma": "wide"}, {"grid": 1}, {"grey": -1}])
def test_strengths_are_judged_before_there_is_a_sample(changes):
    strengths().check()
    with pytest.raises(UsageError):
        strengths(**changes).check()
