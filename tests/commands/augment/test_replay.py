"""An augmented sample is made again from its own record, to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.augment.command import augment
from unetkit.errors import InputError
from unetkit.storage.datasets import DatasetWriter, open_dataset


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name in ("a", "b"):
        image = rng.integers(0, 200, (40, 56)).astype(np.uint8)
        writer.add(name, image, axes="yx", labels=(image // 60).astype(np.uint8))
    writer.finish()
    return writer.url


def contents(folder):
    root = Path(folder)
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_copy_is_made_again_to_the_byte(tmp_path, data):
    more = augment(data, str(tmp_path / "more.zarr"), copies=3, seed=7).output
    report = augment(data, str(tmp_path / "again.zarr"), replay=f"{more}/b-aug002")
    again = report.output
    assert (report.originals, report.copies) == (1, 1)
    assert open_dataset(again).names == ("b", "b-aug002")
    assert contents(f"{again}/b-aug002") == contents(f"{more}/b-aug002")
    assert contents(f"{again}/b-aug002") != contents(f"{more}/b-aug001")
    assert open_dataset(again)["b-aug002"].image.attributes["seed"] == 7


def test_what_has_no_record_can_not_be_replayed(tmp_path, data):
    output = tmp_path / "again.zarr"
    with pytest.raises(InputError, match="must be a sample that 'unetkit augment' made"):
        augment(data, str(output), replay=f"{data}/a")
    assert not output.exists()


def test_the_original_must_be_in_the_dataset(tmp_path, data):
    more = augment(data, str(tmp_path / "more.zarr"), copies=1).output
    writer = DatasetWriter(str(tmp_path / "other.zarr"))
    writer.add("c", np.zeros((9, 9), np.uint8), axes="yx")
    writer.finish()
    with pytest.raises(InputError, match="must hold the sample 'a' to make its copy again, got c"):
        augment(writer.url, str(tmp_path / "again.zarr"), replay=f"{more}/a-aug001")
