from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Passed


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["-o", "m.safetensors"], "output", "m.safetensors"),
        (["--model", "keras-unet"], "model", "keras-unet"),
        (["--set", "width=16", "--set", "depth=3"], "options", ("width=16", "depth=3")),
        (["--recipe", "paper"], "recipe", "paper"),
        (
            ["--recipe-set", "batch=4", "--recipe-set", "grey=0"],
            "recipe_set",
            ("batch=4", "grey=0"),
        ),
        (["--loss", "unet+0.5*dice"], "loss", "unet+0.5*dice"),
        (["--steps", "5"], "steps", 5),
        (["--time-budget", "20m"], "time_budget", "20m"),
        (["--target", "boundary"], "target", "boundary"),
        (["--seed", "3"], "seed", 3),
        (["--channels", "0,2"], "channels", "0,2"),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--precision", "exact"], "precision", "exact"),
        (["--workers", "2"], "workers", 2),
        (["--nonfinite", "fill"], "nonfinite", "fill"),
        (["--overwrite"], "overwrite", True),
    ],
)
def test_options_of_train_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("train", "train", "a.zarr")
    assert before["options"] == ()
    assert passed("train", "train", "a.zarr", *option) == before | {name: value}
