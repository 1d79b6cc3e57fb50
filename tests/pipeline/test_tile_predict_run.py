"""A run ends at a tile boundary, and nothing of it is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.errors import (
    StoppedError,
)
from unetkit.pipeline.tile_predict import tile_predict

if TYPE_CHECKING:
    from types import SimpleNamespace

TILED: dict[str, Any] = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_it_between_tiles(
    kit: SimpleNamespace, slide: str, number: int, code: int
) -> None:
    progress = kit.watching(at=4, act=lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError, match=r"of 16 tiles; .* --resume") as caught:
        tile_predict(slide, **{**TILED, "scheduler": "threads"}, progress=progress)
    assert caught.value.exit_code == code
    assert not Path("slide.prediction.zarr").exists()
    report = tile_predict(slide, **TILED, resume=True)
    assert report.tiles_reused >= 4
