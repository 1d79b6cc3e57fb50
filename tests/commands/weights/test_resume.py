"""Going on with weights: what a run of its own would give, and only what is missing is made."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.weights import run
from unetkit.commands.weights.command import weights
from unetkit.engine import label_tiles
from unetkit.errors import InputError, OutputError, StoppedError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.lock import lock_path
from unetkit.storage.outputs import partial_url


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tiles, "TILE", 512)
    return dataset(tmp_path / "data.zarr")


def dataset(path):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(str(path))
    for name in ("a", "b"):
        labels = np.zeros((600, 1100), np.uint16)
        for number in range(1, 200):
            y, x = rng.integers(0, 600), rng.integers(0, 1100)
            labels[y : y + 20, x : x + 20] = number
        writer.add(name, labels.astype(np.uint8), axes="yx", labels=labels)
    writer.finish()
    return writer.url


def stored(url):
    return np.stack([s.weights.read(0, 0, 600, 0, 1100) for s in open_dataset(url).samples])


def stopped_after(monkeypatch, data, tiles):
    made = []

    def weigh(job):
        if len(made) == tiles:
            raise StoppedError("weights must go on", signal=15)
        made.append(job.key)
        return label_tiles.weigh_tile(job)

    with monkeypatch.context() as patch:
        patch.setattr(run, "weigh_tile", weigh)
        with pytest.raises(StoppedError):
            weights(data, scheduler="sync")


def test_a_stopped_run_goes_on_and_gives_what_one_run_gives(tmp_path, monkeypatch, data):
    stopped_after(monkeypatch, data, 7)
    assert all(sample.weights is None for sample in open_dataset(data).samples)
    report = weights(data, resume=True)
    assert (report.tiles_total, report.tiles_reused) == (12, 7)
    other = dataset(tmp_path / "other.zarr")
    assert weights(other).tiles_reused == 0
    assert (stored(data) == stored(other)).all()
    assert weights(data, resume=True).tiles_reused == 12


def test_a_tile_that_is_not_as_it_was_written_is_made_again(monkeypatch, data):
    stopped_after(monkeypatch, data, 7)
    chunk = next(Path(data, "a").glob(".weights.unetkit-partial/0/c/0/1"))
    chunk.unlink()
    assert weights(data, resume=True).tiles_reused == 6
    assert (stored(data)[0, :512, 512:1024] > 0).all()


# The second is read as metadata, and refused by zarr when the array is opened to be written.
@pytest.mark.parametrize(
    ("old", "new"), [('"shape"', '"shapes"'), ('"dimension_names"', '"dimension_names": [], "_"')]
)
def test_what_can_not_be_read_of_a_stopped_run_is_refused_and_stays(monkeypatch, data, old, new):
    stopped_after(monkeypatch, data, 3)
    document = next(Path(data, "a").glob(".weights.unetkit-partial/0/zarr.json"))
    document.write_text(document.read_text().replace(old, new))
    fingerprint = document.parents[1] / ".unetkit" / "fingerprint.json"
    # As an earlier version left it, which kept no checksums of documents.
    known = json.loads(fingerprint.read_text())
    for name in ("checksum", "documents"):
        known.pop(name, None)
    fingerprint.write_text(json.dumps(known))
    before = contents(data)
    with pytest.raises(InputError):
        weights(data, resume=True, scheduler="sync")
    assert contents(data) == before


def test_a_stopped_run_stays_until_it_is_gone_on_with_or_replaced(monkeypatch, data):
    stopped_after(monkeypatch, data, 3)
    before = contents(data)
    with pytest.raises(OutputError, match="--resume goes on with them, --overwrite starts afresh"):
        weights(data)
    assert contents(data) == before
    assert weights(data, overwrite=True).tiles_reused == 0
    assert not list(Path(data).rglob("*partial*"))


def test_of_two_jobs_the_second_is_refused_and_the_first_ends_undisturbed(monkeypatch, data):
    second = []

    def weigh(job):
        if not second:
            with pytest.raises(OutputError, match=f"process {os.getpid()}, since") as refusal:
                weights(data, scheduler="sync", overwrite=True)
            second.append(refusal)
        return label_tiles.weigh_tile(job)

    monkeypatch.setattr(run, "weigh_tile", weigh)
    assert weights(data, scheduler="sync").tiles_reused == 0
    assert second
    assert not list(Path(data).rglob("*.lock"))


@pytest.mark.parametrize("job", ["dead", "elsewhere"])
def test_a_dead_job_s_lock_is_taken_over_and_another_host_s_when_asked(data, job):
    lock = Path(lock_path(partial_url(f"{data}/a/weights")))
    host, pid = (platform.node(), 2**22 + 1) if job == "dead" else ("elsewhere", 1)
    lock.write_text(json.dumps({"host": host, "pid": pid, "since": "yesterday", "birth": ""}))
    if job == "elsewhere":
        with pytest.raises(OutputError, match=r"host elsewhere, process 1, since yesterday"):
            weights(data)
        assert all(sample.weights is None for sample in open_dataset(data).samples)
    weights(data, break_lock=job == "elsewhere")
    assert all(sample.weights is not None for sample in open_dataset(data).samples)
    assert not lock.exists()


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_other_settings_can_not_go_on(monkeypatch, data):
    stopped_after(monkeypatch, data, 3)
    with pytest.raises(OutputError, match=r"sigma: 5\.0 before, 4\.0 now"):
        weights(data, sigma=4.0, resume=True)
    with pytest.raises(UsageError, match="resume must be given without overwrite, got both"):
        weights(data, resume=True, overwrite=True)
