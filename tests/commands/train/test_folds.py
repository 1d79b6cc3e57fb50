from __future__ import annotations

import json
from dataclasses import replace

import pytest

from unetkit.commands.train.command import folds_of, folds_report
from unetkit.commands.train.report import TrainReport
from unetkit.errors import UsageError
from unetkit.training.split import Fold


def test_every_fold_has_a_file_of_its_own() -> None:
    assert folds_of("a/model.safetensors", 3) == [
        (f"a/model.fold{k}.safetensors", Fold(k, 3)) for k in (1, 2, 3)
    ]
    assert folds_of("a/model.safetensors", 1) == [("a/model.safetensors", None)]


def test_less_than_one_fold_is_refused() -> None:
    with pytest.raises(UsageError, match="folds must be at least 1, got 0"):
        folds_of("model.safetensors", 0)


def test_scores_are_summed_up() -> None:
    first = TrainReport(
        output="m.fold1.safetensors",
        log="m.fold1.log.jsonl",
        steps=9,
        best_step=6,
        stopped_early=False,
        score=0.4,
        score_name="AP",
        scores={"dice": 0.4},
        trained_on=4,
        validated_on=1,
        skipped_unlabelled=0,
        model="unet",
        device="cpu",
        precision="float32",
        seconds=1.5,
        steps_total=9,
    )
    reports = [first, replace(first, output="m.fold2.safetensors", score=0.6)]
    found = folds_report(reports)
    assert (found.score, found.folds) == (pytest.approx(0.5), 2)
    assert found.spread == pytest.approx(0.1 * 2**0.5)
    assert found.outputs == ("m.fold1.safetensors", "m.fold2.safetensors")
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["score"] for row in read["report"]] == [0.4, 0.6]
