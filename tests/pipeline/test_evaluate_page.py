"""What the page holds: the worst first, pictures only where they are not too large."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.pipeline import evaluate_page as module
from unetkit.pipeline.evaluate import evaluate
from unetkit.pipeline.evaluate_objects import Found
from unetkit.pipeline.evaluate_pairs import match_samples
from unetkit.storage.datasets import DatasetWriter


@pytest.fixture
def store(tmp_path):
    writer = DatasetWriter(str(tmp_path / "t.zarr"))
    for n in range(3):
        labels = np.zeros((20, 20 + n), np.uint8)
        labels[2:8, 2:8] = 1
        writer.add(f"s{n}", labels, axes="yx", labels=labels)
    writer.finish()
    return str(tmp_path / "t.zarr")


def test_large_images_have_no_picture(store, monkeypatch):
    report = evaluate(store, store, scheduler="sync")
    pairs = match_samples(store, store).pairs
    assert list(module.contents(report, pairs, [])["pictures"]) == ["s0", "s1", "s2"]
    monkeypatch.setattr(module, "LONGEST", 21)
    assert list(module.contents(report, pairs, [])["pictures"]) == ["s0", "s1"]


def test_the_largest_that_went_wrong_come_first(store):
    found = [
        Found("s0", "truth", 0, n, 1.0, 1.0, area, kind, None, 0.0)
        for n, (area, kind) in enumerate([(5, "miss"), (50, "match"), (9, "split")], start=1)
    ]
    report = evaluate(store, store, scheduler="sync")
    contents = module.contents(report, match_samples(store, store).pairs, found)
    assert [one["id"] for one in contents["objects"]] == [3, 1]
    assert contents["counts"] == {"truth match": 1, "truth miss": 1, "truth split": 1}
