from dataclasses import asdict

import pytest

from unetkit.errors import UsageError
from unetkit.models import hardware
from unetkit.progress import parse_duration
from unetkit.training.recipes import RECIPES


def test_a_plan_holds_every_option_of_the_model(plan):
    assert plan(options=("width=8",)).options == {
        "width": 8,
        "depth": 4,
        "dropout": 0.0,
        "norm": "batch",
    }


def test_options_of_a_recipe_hold_for_networks_that_have_them_and_are_not_told_otherwise(plan):
    assert plan(options=("norm=none",)).options["norm"] == "none"
    assert plan(recipe="paper").options["norm"] == "none"
    assert plan(recipe="paper").options["dropout"] == 0.5
    assert "norm" not in plan(model="smp-unet").options


def test_what_is_left_out_is_chosen_for_the_machine(plan):
    chosen = plan()
    device = hardware.pick_device("cpu")
    assert chosen.precision == (hardware.low_precision(device) or "float32")
    assert chosen.device == "cpu"
    assert 1 <= chosen.workers <= 8
    assert plan(precision="exact", workers=3).precision == "exact"
    assert plan(workers=3).workers == 3


def test_a_plan_knows_the_numbers_of_its_recipe(plan):
    assert plan(recipe="paper").numbers == RECIPES["paper"]
    assert plan(recipe="paper").changed == {}
    assert plan(recipe_set=("batch=7", "loss=dice")).changed == {"batch": 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("20m", 1200), ("20min", 1200), ("1h", 3600), ("1.5h", 5400), (" 45 ", 45)],
)
def test_times_are_read_as_people_write_them(plan, text, expected):
    assert parse_duration(text) == expected
    assert plan(time_budget=text).budget == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *[
            ({"time_budget": t}, "such as 90s")
            for t in ("soon", "", "0", "-3m", "3d", "1e3s", "٣s")
        ],
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"recipe": "papre"}, "default, paper, got 'papre'"),
        ({"precision": "double"}, "auto.*bfloat16.*got 'double'"),
        ({"device": "abacus"}, "got 'abacus'"),
        ({"model": "unett"}, "did you mean 'unet'"),
        ({"options": ("wide=3",)}, "width"),
        ({"options": ("width=broad",)}, "width"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_before_any_data_is_read(plan, changes, words):
    with pytest.raises(UsageError, match=words) as caught:
        plan(**changes)
    assert caught.value.exit_code == 2


def test_a_plan_can_be_written_down(plan):
    assert asdict(plan())["recipe"] == "default"
