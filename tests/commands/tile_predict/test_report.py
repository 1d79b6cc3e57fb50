"""What a prediction tells is strict JSON, and true before and after."""

from __future__ import annotations

import json
from typing import Any

from unetkit.commands.tile_predict.command import tile_predict

TILED: dict[str, Any] = {"tile": 16, "precision": "exact", "scheduler": "sync"}


def test_a_plan_tells_what_the_run_then_does(slide: str) -> None:
    before = tile_predict(slide, **TILED, dry_run=True).to_dict()
    after = tile_predict(slide, **TILED).to_dict()
    json.dumps([before, after], allow_nan=False)
    assert (before["status"], after["status"]) == ("planned", "done")
    assert before["objects"] is None
    measured = {"status", "seconds", "objects", "disk_free", "memory_peak", "memory_limit"}
    measured |= {"expected_seconds"}
    assert [name for name in before if before[name] != after[name] and name not in measured] == []
    assert before["expected_seconds"] > 0
    assert 0 < before["memory_peak"] <= before["memory_limit"]
    assert before["disk_free"] > 0
