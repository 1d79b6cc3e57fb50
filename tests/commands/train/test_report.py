import json
from dataclasses import replace

import pytest

from unetkit.commands.train.command import folds_of, folds_report
from unetkit.commands.train.plan import choose_task
from unetkit.commands.train.report import TrainingDescription, TrainReport
from unetkit.errors import UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset
from unetkit.training.split import Fold, split

REPORT = TrainReport(
    output="m.safetensors",
    log="m.log.jsonl",
    steps=9,
    best_step=6,
    stopped_early=False,
    score=0.5,
    score_name="Dice",
    scores={"dice": 0.5, "loss": 1.0},
    trained_on=4,
    validated_on=1,
    skipped_unlabelled=0,
    model="unet",
    device="cpu",
    precision="float32",
    seconds=1.5,
    steps_total=9,
)


def test_a_report_is_what_json_can_hold():
    read = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert TrainReport(**{**read, "warnings": tuple(read["warnings"])}) == REPORT


def test_reports_that_differ_in_time_alone_are_equal():
    assert replace(REPORT, seconds=99.0) == REPORT
    assert replace(REPORT, steps=10) != REPORT


@pytest.fixture
def description(kit, tmp_path, plan):
    dataset = open_dataset(kit.cells(tmp_path / "cells.zarr", count=3, pixel_size={"y": 1, "x": 2}))
    task = choose_task(dataset, None, SILENT)
    chosen = plan(
        options=("width=4",),
        steps=70,
        time_budget="2m",
        seed=5,
        channels="0",
        precision="float32",
    )
    parts = split(task.origins(), gap=92, seed=5)
    contract = SizeContract(step=16, minimum=188, margin=92)
    return TrainingDescription(chosen, dataset, task=task, parts=parts, contract=contract)


def test_the_facts_are_strict_json_and_name_both_sides(description, tmp_path):
    document = json.loads(json.dumps(description.to_dict(), allow_nan=False))
    sides = document["trained_on"], document["validated_on"]
    assert [len(side) for side in sides] == [2, 1]
    assert sorted([*sides[0], *sides[1]]) == description.samples == ["s0", "s1", "s2"]
    assert document["data"] == "cells.zarr"
    assert str(tmp_path) not in json.dumps(document)
    assert (document["steps"], document["time_budget"], document["seed"]) == (70, 120.0, 5)


def test_the_header_says_what_a_prediction_must_know(description):
    header = description.header(40, {"dice": 0.5}, steps=64)
    assert header.options == {"depth": 4, "width": 4, "dropout": 0.0, "norm": "batch"}
    assert header.class_names == ("background", "foreground")
    assert (header.target, header.in_channels, header.channels) == ("foreground", 1, "0")
    assert header.contract == description.contract
    assert header.normalization == "percentile"
    assert header.pixel_size == {"y": 1, "x": 2}
    assert header.scores == {"dice": 0.5}
    # The steps that a budget became, not the guess.
    assert (header.provenance["steps"], header.provenance["best_step"]) == (64, 40)
    assert header.provenance["recipe"] == "default"


def test_every_fold_has_a_file_of_its_own():
    assert folds_of("a/model.safetensors", 3) == [
        (f"a/model.fold{k}.safetensors", Fold(k, 3)) for k in (1, 2, 3)
    ]
    assert folds_of("a/model.safetensors", 1) == [("a/model.safetensors", None)]


def test_less_than_one_fold_is_refused():
    with pytest.raises(UsageError, match="folds must be at least 1, got 0"):
        folds_of("model.safetensors", 0)


def test_scores_are_summed_up():
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
