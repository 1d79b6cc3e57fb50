"""How much of an image its mask lets be judged: counted pixel by pixel, whatever its scale."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import noise_image, tiny_model
from unetkit.commands.info import info
from unetkit.commands.measure import measure
from unetkit.commands.tile_predict import skipping
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image


@pytest.mark.parametrize("shape", [(64, 60), (7, 6), (63, 60), (65, 60), (130, 121), (1, 1)])
@pytest.mark.parametrize("band", [3, 2048])
def test_pixels_in_a_mask_of_any_scale_are_those_that_it_marks(tmp_path, monkeypatch, shape, band):
    monkeypatch.setattr(skipping, "BAND", band)
    drawn = np.random.default_rng(sum(shape)).random((2, *shape)) < 0.3
    place = str(tmp_path / "m.zarr")
    array = create_image(place, shape=(2, *shape), axes="zyx", dtype="u1")
    for plane in range(2):
        array.write(plane, 0, 0, drawn[plane].astype(np.uint8)[np.newaxis])
    mask = skipping.Mask(open_image(place).data, 64, 60, 0, 0)
    assert mask.areas() == [int(mask.inside(plane, 0, 64, 0, 60).sum()) for plane in range(2)]
    parts = [mask.inside(0, y, y + 16, x, x + 20) for y in range(0, 64, 16) for x in (0, 20, 40)]
    assert mask.areas()[0] == sum(int(part.sum()) for part in parts)


@pytest.mark.parametrize("tile", [16, 32])
def test_a_prediction_says_what_was_judged_and_measure_takes_it(tmp_path, monkeypatch, tile):
    monkeypatch.chdir(tmp_path)
    noise_image("slide.zarr", (64, 60))
    tiny_model("model.safetensors", target="classes")
    mask = np.zeros((1, 16, 15), np.uint8)
    mask[0, 3:9, 2:7] = 1
    create_image("mask.zarr", shape=(16, 15), axes="yx", dtype="u1").write(0, 0, 0, mask)
    asked = {"tile": tile, "precision": "exact", "scheduler": "sync", "device": "cpu"}
    asked |= {"pixel_size": "0.5,0.25"}
    output = tile_predict("slide.zarr", **asked, mask="mask.zarr").output
    told = info(output)["provenance"]["prediction"]["judged"]
    pixels = 24 * 20
    assert told == {
        "pixels": pixels,
        "share": pixels / (64 * 60),
        "area_um2": pixels * 0.125,
        "planes": [pixels],
        "reach": 0,
    }
    report = measure(output, scheduler="sync")
    with Path(report.output).open(newline="") as file:
        rows = list(csv.DictReader(file))
    (sample,) = open_dataset(output).samples
    inside = sample.labels("classes").read(0, 12, 36, 8, 28)
    for row in rows:
        own = int((inside == int(row["class"])).sum())
        assert int(row["pixels"]) == own
        assert float(row["share"]) == own / pixels
    same = measure(output, region="mask.zarr", overwrite=True, scheduler="sync")
    assert [row["pixels"] for row in same.regions] == [int(row["pixels"]) for row in rows]
    assert same.warnings == report.warnings
    create_image("all.zarr", shape=(16, 15), axes="yx", dtype="u1").write(0, 0, 0, mask * 0 + 1)
    whole = measure(output, region="all.zarr", overwrite=True, scheduler="sync")
    assert any("are counted whole, though only 12.5%" in text for text in whole.warnings)


def test_it_is_the_same_after_a_stop(slide, kit, cut_off):
    image = open_image(slide).data
    drawn = np.zeros((1, 8, 8), np.uint8)
    drawn[0, :5, :5] = 1
    create_image("mask.zarr", shape=(8, 8), axes="yx", dtype="u1").write(0, 0, 0, drawn)
    asked = {"tile": 16, "precision": "exact", "scheduler": "sync", "mask": "mask.zarr"}
    cut_off(slide, at=3, **asked)
    went_on = tile_predict(slide, **asked, resume=True)
    assert went_on.tiles_reused > 0
    tile_predict(slide, **asked, output="whole.zarr")
    assert kit.differing(went_on.output, "whole.zarr") == []
    told = [
        info(one)["provenance"]["prediction"]["judged"] for one in (went_on.output, "whole.zarr")
    ]
    mask = skipping.Mask(open_image("mask.zarr").data, image.height, image.width, 0, 0)
    assert told[0] == told[1]
    assert told[0]["pixels"] == mask.inside(0, 0, image.height, 0, image.width).sum()
    assert told[0]["reach"] == skipping.REACH
