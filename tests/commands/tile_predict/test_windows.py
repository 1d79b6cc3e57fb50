"""Windows lie across seams, inside the image, on the step grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.commands.tile_predict import audit
from unetkit.commands.tile_predict.command import tile_predict

if TYPE_CHECKING:
    from types import SimpleNamespace

TILED: dict[str, Any] = {"tile": 16, "scheduler": "sync"}


@pytest.mark.parametrize("shape", [(40, 50), (16, 90), (10, 9), (3, 20, 20)])
def test_windows_lie_across_seams(
    kit: SimpleNamespace, slide: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    seen = []
    real = audit.audit_window
    monkeypatch.setattr(audit, "audit_window", lambda job: seen.append(job) or real(job))
    kit.image(Path("odd.zarr"), shape, axes="zyx"[-len(shape) :])
    report = tile_predict("odd.zarr", **TILED, audit=6, precision="exact")
    assert report.audit is not None
    assert report.audit["differing"] == 0
    assert len(seen) == 6
    for job in seen:
        tile = job.tile
        for first, last, length in ((tile.y0, tile.y1, shape[-2]), (tile.x0, tile.x1, shape[-1])):
            assert first % 4 == 0
            assert 0 <= first < last <= length
            assert length <= 16 or first // 16 < (last - 1) // 16
    if len(shape) == 3:
        assert len({job.plane for job in seen}) > 1
