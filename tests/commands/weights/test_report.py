"""The counts of a report do not depend on the tiles."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import regionprops

from unetkit.commands.weights.command import weights
from unetkit.engine import label_tiles
from unetkit.storage.datasets import DatasetWriter


@pytest.mark.parametrize("tile", [512, 1024])
def test_objects_and_pairs_are_counted_once_whatever_the_tiles(tmp_path, monkeypatch, tile):
    monkeypatch.setattr(label_tiles, "TILE", tile)
    labels = np.zeros((520, 540), np.uint16)
    # Two that touch across the edge of a tile, two by a corner there, one alone, one ignored.
    labels[500:512, 10:20], labels[512:519, 10:20] = 1, 2
    labels[505:512, 505:512], labels[512:518, 512:520] = 3, 4
    labels[100:110, 100:110], labels[100:110, 300:310] = 5, 6
    ignore = np.zeros_like(labels, np.uint8)
    ignore[:, 300:310] = 1
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", labels.astype(np.uint8), axes="yx", labels=labels, ignore=ignore)
    writer.finish()
    report = weights(writer.url, report=True)
    (row,) = report.report
    assert (row["sample"], row["objects"], row["touching_pairs"]) == ("a", 5, 2)
    assert len(regionprops(labels)) == 6
    assert 0 < row["border_share"] < 0.01
    assert row["class_weight"] == report.class_weight


def test_class_maps_have_no_objects_to_count(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    classes = np.eye(9, dtype=np.uint8)
    writer.add("a", classes, axes="yx", labels=classes, kind="classes")
    writer.finish()
    (row,) = weights(writer.url, report=True).report
    assert set(row) == {"sample", "class_weight"}
