"""Augmented samples and weights have the same bytes whoever computes them."""

import json

import numpy as np
import pytest
from distributed import LocalCluster

from unetkit.commands.augment import copies
from unetkit.commands.augment.command import augment
from unetkit.commands.weights.command import weights
from unetkit.engine import label_tiles
from unetkit.storage.datasets import DatasetWriter


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Run a cluster of its own, and name it in both ways."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    with LocalCluster(**options, protocol="tcp://", host="127.0.0.1", dashboard_address=None) as it:
        file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
        file.write_text(json.dumps(it.scheduler.identity()))
        yield {"tcp": it.scheduler_address, "file": f"file:{file}"}


def dataset(folder, *, pixel):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(str(folder / "data.zarr"))
    for name in ("a", "b"):
        labels = rng.integers(0, 9, (60, 110)).repeat(10, axis=0).repeat(10, axis=1)
        if pixel and name == "a":
            labels[300, 500] = 10
        writer.add(name, labels.astype(np.uint8) * 20, axes="yx", labels=labels.astype(np.uint16))
    writer.finish()
    return writer.url


def made(folder, scheduler, *, pixel=False):
    """Run both commands, and return all files that they wrote with their bytes."""
    folder.mkdir()
    data, more = dataset(folder, pixel=pixel), str(folder / "more.zarr")
    weights(data, scheduler=scheduler, workers=2)
    augment(data, more, copies=1, scheduler=scheduler, workers=2)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


# The first two begin processes of their own, which takes some seconds each.
@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("local:2", marks=pytest.mark.slow),
        "threads",
        "tcp",
        "file",
    ],
)
def test_every_scheduler_gives_the_bytes_of_one_thread(tmp_path, monkeypatch, addresses, scheduler):
    monkeypatch.setattr(label_tiles, "TILE", 512)
    monkeypatch.setattr(copies, "TILE", 512)
    alone = made(tmp_path / "alone", "sync")
    assert len(alone) > 20
    shared = made(tmp_path / "shared", addresses.get(scheduler, scheduler))
    assert shared == alone


def test_one_other_pixel_would_be_noticed(tmp_path):
    # The negative control: it shows in the weights and in the copies' labels of that sample.
    one, other = made(tmp_path / "one", "sync"), made(tmp_path / "other", "sync", pixel=True)
    changed = {str(name) for name in one if one[name] != other[name]}
    for folder in ("data.zarr/a/weights/0/c", "more.zarr/a-aug001/labels"):
        assert any(name.startswith(folder) for name in changed)
    assert not any(name.startswith("more.zarr/b-aug001/labels") for name in changed)
