"""Squares of one image are told apart alike in any blocks."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.commands.evaluate import counting
from unetkit.scores import contingency
from unetkit.scores.units import SpatialBlocks
from unetkit.storage.datasets import DatasetWriter, open_dataset


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(str(tmp_path / "d.zarr"))
    for name in ("truth", "found"):
        labels = rng.integers(0, 5, size=(70, 90)).astype(np.uint8)
        writer.add(name, labels, axes="yx", labels=labels)
    writer.finish()
    dataset = open_dataset(str(tmp_path / "d.zarr"))
    return dataset["found"], dataset["truth"]


def columns(table: contingency.Contingency) -> list[list[int]]:
    return [c.tolist() for c in (table.image, table.true, table.pred, table.counts)]


@pytest.mark.parametrize("side", [16, 512])
def test_squares_do_not_depend_on_blocks(pair, side):
    runner = counting.Runner("sync", block_side=side)
    tiled = counting.count([pair], "instances", runner, units=SpatialBlocks(32, 70, 90))[0].table
    expected = []
    found, truth = (s.image.labels["instances"].read(0, 0, 70, 0, 90) for s in pair)
    for n, (y, x) in enumerate((y, x) for y in (0, 32, 64) for x in (0, 32, 64)):
        box = (slice(y, y + 32), slice(x, x + 32))
        expected.append(contingency.from_labels(truth[box], found[box]))
        assert n < tiled.images
    assert columns(tiled) == columns(contingency.pool(expected))
    whole = counting.count([pair], "instances", runner)[0].table
    assert columns(tiled.joined()) == columns(whole)
