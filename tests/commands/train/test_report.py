from __future__ import annotations

import json
from dataclasses import replace

from unetkit.commands.train.report import TrainReport

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


def test_a_report_is_what_json_can_hold() -> None:
    read = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert TrainReport(**read) == REPORT


def test_reports_that_differ_in_time_alone_are_equal() -> None:
    assert replace(REPORT, seconds=99.0) == REPORT
    assert replace(REPORT, steps=10) != REPORT
