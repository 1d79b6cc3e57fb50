import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import UsageError
from unetkit.training.recipes import RECIPES, choose_recipe

DEFAULT = RECIPES["default"]


def test_the_default_rate_rises_in_a_twentieth_of_the_steps_and_falls_as_a_cosine():
    rates = [DEFAULT.rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert rates[24] == pytest.approx(0.5e-3)
    assert rates[49] == rates[50] == pytest.approx(1e-3)
    assert rates[525] == pytest.approx(0.5e-3)
    assert 0 < rates[-1] < 1e-8


def test_the_rate_of_the_paper_is_constant_from_the_first_step_on():
    assert {RECIPES["paper"].rate(step, 7) for step in range(7)} == {1e-4}


@given(steps=st.integers(1, 300), data=st.data())
def test_the_rate_is_within_its_bounds_for_any_number_of_steps(steps, data):
    recipe = replace(DEFAULT, warm_up=data.draw(st.floats(0, 1)))
    rates = [recipe.rate(step, steps) for step in range(steps)]
    assert all(0 <= rate <= recipe.learning_rate for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_a_step_beyond_the_last_has_no_negative_rate():
    assert DEFAULT.rate(5000, 1000) == pytest.approx(0)


def test_the_default_leaves_statistics_as_they_are_for_half_of_the_way():
    assert [DEFAULT.freezes(step, 7) for step in range(7)] == [False] * 4 + [True] * 3
    assert not any(RECIPES["paper"].freezes(step, 7) for step in range(7))
    assert all(replace(DEFAULT, frozen=1.0).freezes(step, 7) for step in range(7))


def test_the_paper_trains_one_large_tile_a_step_by_momentum():
    paper = choose_recipe("paper")
    assert (paper.optimizer, paper.momentum, paper.batch, paper.tile) == ("sgd", 0.99, 1, 388)
    assert (paper.balance, paper.sigma, paper.elastic) == (1, 10, 1)
    assert (paper.averaging, paper.clip) == (0, math.inf)


def test_every_recipe_says_where_it_comes_from():
    assert all(recipe.source for recipe in RECIPES.values())


def test_an_unknown_recipe_is_a_usage_error_that_lists_them():
    with pytest.raises(UsageError, match=r"one of default, paper, got 'papre'") as caught:
        choose_recipe("papre")
    assert caught.value.exit_code == 2


def test_numbers_of_a_recipe_are_changed_by_their_names():
    changed = choose_recipe("default", ("batch=4", "optimizer=sgd", "flips=false", "grey=0"))
    expected = replace(DEFAULT, batch=4, optimizer="sgd", flips=False, grey=0.0)
    assert changed == expected != DEFAULT
    assert choose_recipe("paper", loss="1*ce+.5*dice").loss == "ce+0.5*dice"
    assert choose_recipe("default", ("loss=dice",)).loss == "dice"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("bach=4",), "with one of averaging, balance, batch"),
        (("batch",), "must be key=value"),
        (("source=me",), "must be key=value"),
        (("options=me",), "must be key=value"),
        (("frozen=2",), "from 0 to 1"),
        (("batch=0",), "batch of the recipe must be a whole number from 1 to 4096, got '0'"),
        (("batch=1.5",), "a whole number"),
        (("optimizer=adam",), "one of adamw, sgd"),
        (("averaging=1",), "from 0 to 0.9999"),
        (("clip=nan",), "a number"),
        (("loss=dise",), "of unet, ce, dice"),
        (("batch=2", "batch=3"), "set once"),
    ],
    ids=str,
)
def test_a_change_that_makes_no_sense_is_a_usage_error(changes, words):
    with pytest.raises(UsageError, match=words):
        choose_recipe("default", changes)


def test_a_loss_is_named_in_one_place():
    with pytest.raises(UsageError, match="loss of the recipe must be set once"):
        choose_recipe("default", ("loss=dice",), loss="ce")
