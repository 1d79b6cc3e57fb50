import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from unetkit.commands.train.command import train
from unetkit.storage.datasets import DatasetWriter

OPTIONS = ("depth=1", "width=2", "dropout=0")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture
def here(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.cells(tmp_path / "data.zarr", count=3)
    return tmp_path


def begin(*words):
    """Train in two processes, as a user would."""
    line = [*TORCHRUN, "-m", "unetkit", "train", "data.zarr", "--json", "--device", "cpu"]
    options = [word for option in OPTIONS for word in ("--set", option)]
    if "--recipe-set" not in words:
        words = (*words, "--recipe-set", "batch=2")
    return subprocess.Popen(
        [*line, "--precision", "float32", *options, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_once_what_one_would_write(here):
    with begin("--steps", "4") as process:
        printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    report = json.loads(printed)
    assert (report["steps"], report["output"]) == (4, "model.safetensors")
    assert (here / "model.log.jsonl").exists()
    assert not (here / "model.train").exists()
    assert not (here / "model.train.lock").exists()
    train(
        "data.zarr",
        output="one.safetensors",
        options=OPTIONS,
        recipe_set=("batch=2",),
        steps=4,
        device="cpu",
        precision="float32",
    )
    one, two = load_file("one.safetensors"), load_file("model.safetensors")
    # float32, whose sums are taken in another order.
    apart = {name for name in one if abs(one[name] - two[name]).max() >= 1e-4}
    # What is added before batch normalization is taken away by it: its gradient is mere rounding.
    assert apart <= {"up.0.bias"}


def test_two_processes_train_folds_one_after_the_other(here):
    with begin("--steps", "2", "--folds", "3") as process:
        printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    report = json.loads(printed)
    models = [f"model.fold{number}.safetensors" for number in (1, 2, 3)]
    assert report["outputs"] == models
    assert len({(here / name).read_bytes() for name in models}) == 3
    assert not [*here.glob("*.train"), *here.glob("*.lock")]


@pytest.mark.slow
def test_a_signal_to_two_processes_saves_and_either_number_goes_on(here):
    log = here / "model.train" / "log.jsonl"
    with begin("--steps", "400") as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not (log.exists() and '"step": 9,' in log.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "give the same command with --resume to go on" in said
    assert (here / "model.train" / "last.safetensors").exists()
    with begin("--steps", "400", "--resume") as process:
        printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert json.loads(printed)["resumed_at_step"] >= 9
    steps = [json.loads(row) for row in Path("model.log.jsonl").read_text().splitlines()]
    numbers = [row["step"] for row in steps if row["event"] == "step"]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
def test_more_processes_than_tiles_are_refused(here):
    with begin("--steps", "2", "--recipe-set", "batch=1") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "batch must be at least 2 for as many processes, got 1" in said
    assert sorted(path.name for path in here.iterdir()) == ["data.zarr"]


def store(path, *, ids=1, ignored=True, hidden=0):
    """Store samples of which the right half is annotated; the left half holds `hidden`."""
    writer = DatasetWriter(str(path))
    for name in ("a", "b", "c"):
        rng = np.random.default_rng(ord(name))
        labels = np.zeros((40, 60), np.uint32)
        labels[5:15, 35:45], labels[20:32, 40:55] = ids, ids + 1
        image = 60 + 100 * (labels > 0) + rng.integers(0, 20, labels.shape)
        labels[:30, 2:25] = hidden
        ignore = np.zeros(labels.shape, np.uint8)
        ignore[:, :30] = 1
        more = {"ignore": ignore} if ignored else {}
        writer.add(name, image.astype(np.uint8), axes="yx", labels=labels, **more)
    writer.finish()


def learned(folder, **content):
    """Train on such a dataset, and return the weights."""
    shutil.rmtree(folder / "cells.zarr", ignore_errors=True)
    store(folder / "cells.zarr", **content)
    report = train(
        "cells.zarr", options=OPTIONS, steps=6, device="cpu", precision="float32", overwrite=True
    )
    weights = load_file("model.safetensors")
    return weights | {name: np.array(report.scores[name]) for name in ("dice", "loss")}


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_what_is_ignored_changes_neither_weights_nor_scores(here):
    clean = learned(here)
    assert same(clean, learned(here, hidden=7))
    # The control: where it counts, it shows.
    assert not same(clean, learned(here, hidden=7, ignored=False))


def test_ids_above_two_to_the_sixteen_are_ids_like_others(here):
    assert same(learned(here, ignored=False), learned(here, ids=70_000, ignored=False))
