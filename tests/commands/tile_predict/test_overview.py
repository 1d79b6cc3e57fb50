"""The overview is there after a prediction, shows what was found, and needs no large level."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import OutputError, UsageError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.pyramids import add_pyramid
from unetkit.views.overview import draw_overview


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_prediction_draws_its_overview(slide):
    report = tile_predict(slide, tile=16, overview="look.png")
    first = pixels("look.png")
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50
    again = tile_predict(slide, tile=16, resume=True, overview="look.png")
    assert again.status == "nothing to do"
    np.testing.assert_array_equal(pixels("look.png"), first)
    with pytest.raises(OutputError, match=r"look\.png must not exist yet"):
        tile_predict(slide, tile=16, output="b.zarr", overview="look.png")
    assert not Path("b.zarr").exists()
    assert Path(report.output).exists()


def test_a_name_that_is_no_png_is_refused_before_the_work(slide):
    with pytest.raises(UsageError, match=r"overview must be a \.png file"):
        tile_predict(slide, overview="look.jpg")
    with pytest.raises(OutputError, match="must lie apart"):
        tile_predict(slide, overview=f"{slide}/look.png")
    assert not Path("slide.prediction.zarr").exists()


def test_a_dry_run_draws_nothing(slide):
    tile_predict(slide, dry_run=True, overview="look.png")
    assert not Path("look.png").exists()


def test_every_sample_of_a_dataset_is_shown(tmp_path, kit):
    model = kit.model(tmp_path / "model.safetensors")
    source, path = kit.cells(tmp_path / "data.zarr", count=3), str(tmp_path / "look.png")
    tile_predict(source, model=model, overview=path)
    four = str(tmp_path / "one.png")
    alone = kit.cells(tmp_path / "one.zarr", count=1)
    tile_predict(alone, model=model, overview=four)
    assert pixels(path).shape[1] > pixels(path).shape[0] / 2
    assert pixels(path).shape != pixels(four).shape


def test_a_slide_s_overview_reads_its_small_levels_only(tmp_path, kit):
    model = kit.model(tmp_path / "model.safetensors")
    source, _ = kit.image(tmp_path / "slide.zarr", (2060, 40))
    add_pyramid(source)
    output = tile_predict(source, model=model).output
    for level in (f"{source}/0", f"{output}/labels/instances/0"):
        for chunk in Path(level, "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"damaged")
    path = str(tmp_path / "look.png")
    draw_overview(path, open_dataset(source), open_dataset(output))
    assert pixels(path).shape[0] > 1030
