from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from unetkit.commands.train.plan import choose_task, make_plan
from unetkit.commands.train.report import TrainingDescription
from unetkit.geometry.sizes import SizeContract
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset
from unetkit.training.split import split

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


@pytest.fixture
def description(kit: SimpleNamespace, tmp_path: Path) -> TrainingDescription:
    dataset = open_dataset(kit.cells(tmp_path / "cells.zarr", count=3, pixel_size={"y": 1, "x": 2}))
    task = choose_task(dataset, None, SILENT)
    plan = make_plan(
        model="unet",
        options=("width=4",),
        recipe="default",
        steps=70,
        time_budget="2m",
        seed=5,
        channels="0",
        device="cpu",
        precision="float32",
        workers=1,
    )
    parts = split(task.origins(), gap=92, seed=5)
    contract = SizeContract(step=16, minimum=188, margin=92)
    return TrainingDescription(plan, dataset, task=task, parts=parts, contract=contract)


def test_the_facts_are_strict_json_and_name_both_sides(
    description: TrainingDescription, tmp_path: Path
) -> None:
    document = json.loads(json.dumps(description.to_dict(), allow_nan=False))
    sides = document["trained_on"], document["validated_on"]
    assert [len(side) for side in sides] == [2, 1]
    assert sorted([*sides[0], *sides[1]]) == description.samples == ["s0", "s1", "s2"]
    assert document["data"] == "cells.zarr"
    assert str(tmp_path) not in json.dumps(document)
    assert (document["steps"], document["time_budget"], document["seed"]) == (70, 120.0, 5)


def test_the_header_says_what_a_prediction_must_know(description: TrainingDescription) -> None:
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
