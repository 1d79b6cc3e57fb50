"""What no model can do is refused before anything is read."""

from dataclasses import replace
from pathlib import Path

import pytest

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.plan import PredictOptions
from unetkit.errors import UsageError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tta": "mirror"}, "tta must be one of none, flips, rotations, got 'mirror'"),
        ({"merge": "mean"}, "merge must be crop or gaussian, got 'mean'"),
        (
            {"nonfinite": "skip"},
            "nonfinite must be error or fill, got 'skip'; leave it out",
        ),
        (
            {"ome_version": "1"},
            "ome-version must be one of 0.5, 0.4, got '1'; leave",
        ),
        ({"audit": -1}, "audit must be at least 0 windows, got -1"),
        ({"batch": 0}, "batch must be at least 1 tile, got 0"),
        ({"min_size": -2}, "min_size must be at least 0 pixels, got -2"),
        ({"max_memory": "much"}, "max-memory must be an amount"),
    ],
)
def test_bad_options_are_named(change, message):
    PredictOptions().check()
    with pytest.raises(UsageError, match=message):
        replace(PredictOptions(), **change).check()


def test_windows_that_do_not_overlap_are_not_blended(kit, slide):
    with pytest.raises(UsageError, match="merge must be crop for models without a halo"):
        tile_predict(slide, merge="gaussian")
    assert main(["tile-predict", slide, "--merge", "gaussian"]) == 2
    padded = kit.model(Path("padded.safetensors"), depth=1, name="keras-unet")
    assert tile_predict(slide, model=padded, merge="gaussian").status == "done"
    with pytest.raises(UsageError, match="merge must be crop"):
        tile_predict(slide, model=[padded, "model.safetensors"], merge="gaussian", overwrite=True)
