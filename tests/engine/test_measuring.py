"""Boxes are read with their surroundings, 0 outside the image."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.arrays.boxes import read_around
from unetkit.engine.measuring import measure_labels
from unetkit.progress import SILENT
from unetkit.storage.datasets import DatasetWriter, open_dataset


@pytest.fixture
def labels(tmp_path):
    array = np.arange(1, 61, dtype=np.uint8).reshape(6, 10)
    writer = DatasetWriter(str(tmp_path / "d.zarr"))
    writer.add("a", array, axes="yx", labels=array)
    writer.finish()
    return open_dataset(str(tmp_path / "d.zarr"))["a"].labels("instances")


def test_surroundings_are_read_or_0(labels):
    whole = np.pad(labels.read(0, 0, 6, 0, 10), 3)
    for rows, columns in (((0, 6), (0, 10)), ((2, 4), (7, 10))):
        box = read_around(labels, 0, rows, columns, reach=3)
        expected = whole[rows[0] : rows[1] + 6, columns[0] : columns[1] + 6]
        np.testing.assert_array_equal(box, expected)


def test_every_object_is_measured(labels):
    planes = measure_labels(labels, scheduler="sync", workers=None, progress=SILENT)
    assert [len(plane.ids) for plane in planes] == [60]
