"""A tile that is not finite is never written as background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from unetkit.errors import (
    NumbersError,
)
from unetkit.models import modelfile
from unetkit.pipeline.tile_predict import tile_predict
from unetkit.storage.images import create_image, open_image

if TYPE_CHECKING:
    from types import SimpleNamespace

EXACT: dict[str, Any] = {"precision": "exact", "probabilities": "float32"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_stops_it(kit: SimpleNamespace, slide: str, bad: float) -> None:
    data = create_image("hole.zarr", shape=(40, 40), axes="yx", dtype="f4", chunk=16)
    image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
    image[0, 20, 30] = bad
    data.write(0, 0, 0, image)
    before = kit.contents(".")
    with pytest.raises(NumbersError, match="--nonfinite fill") as caught:
        tile_predict("hole.zarr", tile=16)
    assert caught.value.exit_code == 6
    assert kit.contents(".") == before
    progress = kit.watching()
    report = tile_predict("hole.zarr", tile=16, nonfinite="fill", progress=progress, **EXACT)
    assert report.filled == 1
    assert any("1 values of the input were NaN or Inf" in note for note in progress.notes)
    image[0, 20, 30] = 0
    expected = kit.one_pass("model.safetensors", image)
    made = open_image(report.output).data
    np.testing.assert_array_equal(made.read(0, 0, 40, 0, 40), expected)


def test_a_network_that_overflows_stops_it(
    kit: SimpleNamespace, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = modelfile.load("model.safetensors")
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter *= 1e10
    Path("wild.safetensors").write_bytes(modelfile.to_bytes(loaded.module, loaded.header))
    before = kit.contents(".")
    with pytest.raises(NumbersError, match="network's output must be finite"):
        tile_predict(slide, model="wild.safetensors", precision="float32", tile=16)
    assert kit.contents(".") == before
