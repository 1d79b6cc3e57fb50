from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file

from unetkit.pipeline.train import train

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = ("depth=1", "width=2", "dropout=0")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture
def here(kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    kit.cells(tmp_path / "data.zarr", count=3)
    return tmp_path


def begin(*words: str) -> subprocess.Popen[str]:
    """Train in two processes, as a user would."""
    line = [*TORCHRUN, "-m", "unetkit", "train", "data.zarr", "--json", "--device", "cpu"]
    options = [word for option in OPTIONS for word in ("--set", option)]
    return subprocess.Popen(
        [*line, "--precision", "float32", *options, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_once_what_one_would_write(here: Path) -> None:
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
        steps=4,
        device="cpu",
        precision="float32",
    )
    one, two = load_file("one.safetensors"), load_file("model.safetensors")
    # float32, whose sums are taken in another order.
    assert all(abs(one[name] - two[name]).max() < 1e-4 for name in one)


@pytest.mark.slow
def test_a_signal_to_two_processes_saves_and_either_number_goes_on(here: Path) -> None:
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
def test_more_processes_than_tiles_are_refused(here: Path) -> None:
    with begin("--steps", "2", "--recipe-set", "batch=1") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "batch must be at least 2 for as many processes, got 1" in said
    assert sorted(path.name for path in here.iterdir()) == ["data.zarr"]
