"""A large image keeps to the memory that it was given, from the first tile to the last level."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unetkit.pipeline.verify import verify
from unetkit.storage.images import create_image

if TYPE_CHECKING:
    from types import SimpleNamespace

PROGRAM = """
import json, sys
from pathlib import Path
from unetkit.pipeline.tile_predict import tile_predict
report = tile_predict("large.zarr", max_memory=sys.argv[1], precision="float32", device="cpu")
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"peak": peak, "limit": report.memory_limit, "objects": report.objects}))
"""


def blobs(path: Path, height: int, width: int) -> None:
    """Store an RGB image of squares of 16 pixels with noise upon them."""
    data = create_image(str(path), shape=(3, height, width), axes="cyx", dtype="u1")
    rng = np.random.default_rng(0)
    for y in range(0, height, 512):
        rows = min(512, height - y)
        coarse = rng.integers(0, 200, (3, -(-rows // 16), -(-width // 16)), np.uint8)
        large = coarse.repeat(16, 1).repeat(16, 2)[:, :rows, :width]
        data.write(0, y, 0, large + rng.integers(0, 40, large.shape, np.uint8))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells the peak")
@pytest.mark.parametrize(
    ("height", "width", "channels", "memory"),
    [
        (4500, 5000, 16, "1500M"),
        pytest.param(9000, 10000, 64, "3G", marks=pytest.mark.slow),
    ],
)
def test_a_large_image_keeps_to_its_memory(
    kit: SimpleNamespace, tmp_path: Path, height: int, width: int, channels: int, memory: str
) -> None:
    kit.model(tmp_path / "model.safetensors", channels=3, depth=4, width=channels)
    blobs(tmp_path / "large.zarr", height, width)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, memory],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["peak"] <= found["limit"]
    assert found["objects"] > 1000
    verify(str(tmp_path / "large.prediction.zarr"))
