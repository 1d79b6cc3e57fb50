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
        (["--init", "m.safetensors"], "init", "m.safetensors"),
        (["--folds", "5"], "folds", 5),
        (["--tensorboard", "runs"], "tensorboard", "runs"),
        (["--normalization", "zscore"], "normalization", "zscore"),
        (["--seed", "3"], "seed", 3),
        (["--channels", "0,2"], "channels", "0,2"),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--precision", "exact"], "precision", "exact"),
        (["--workers", "2"], "workers", 2),
        (["--workers", "0"], "workers", 0),
        (["--nonfinite", "fill"], "nonfinite", "fill"),
        (["--accumulate", "2"], "accumulate", 2),
        (["--resume"], "resume", True),
        (["--keep-state"], "keep_state", True),
        (["--overwrite"], "overwrite", True),
        (["--break-lock"], "break_lock", True),
    ],
)
def test_options_of_train_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("train", "train", "a.zarr")
    assert before["options"] == ()
    assert passed("train", "train", "a.zarr", *option) == before | {name: value}
