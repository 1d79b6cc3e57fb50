"""What is left out is background, is listed, and changes nothing elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from unetkit.commands.info import info
from unetkit.commands.tile_predict import skipping
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import InputError, OutputError, UnetkitError, UsageError
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.fixture
def half(slide):
    """Store 64 x 60 pixels of noise whose right half is dark; one pixel there is not."""
    image = np.random.default_rng(0).integers(1000, 4000, (1, 64, 60), np.uint16)
    image[:, :, 32:] = np.random.default_rng(1).integers(0, 100, (1, 64, 28))
    image[0, 20, 40] = 100
    create_image("half.zarr", shape=(64, 60), axes="yx", dtype="u2").write(0, 0, 0, image)
    return "half.zarr"


def listed(output):
    path = Path(output, ".unetkit", "left-out.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read(output, kind):
    image = open_image(output)
    data = image.data if kind == "probabilities" else image.labels[kind]
    return data.read(0, 0, 64, 0, 60)


def test_dark_tiles_are_left_out_and_the_others_stay(half):
    all_of_it = tile_predict(half, **TILED, output="all.zarr")
    assert (all_of_it.tiles_left_out, listed("all.zarr")) == (0, [])
    report = tile_predict(half, **TILED, skip_below=100, output="some.zarr")
    # Eight of the sixteen are dark, but for the one with the bright pixel.
    assert report.tiles_left_out == 7
    assert listed("some.zarr") == sorted(f"half/0/{n}" for n in (2, 3, 7, 10, 11, 14, 15))
    kept = np.ones((64, 60), bool)
    kept[:, 32:] = False
    kept[16:32, 32:48] = True
    whole, part = read("all.zarr", "classes"), read("some.zarr", "classes")
    np.testing.assert_array_equal(part, np.where(kept, whole, 0))
    assert whole[~kept].any()
    background, foreground = read("some.zarr", "probabilities")
    assert (background[~kept] == 255).all()
    assert not foreground[~kept].any()


def test_a_coarse_mask_says_where_to_look(half, monkeypatch):
    monkeypatch.setattr(skipping, "REACH", 5)
    mask = np.zeros((1, 4, 5), np.uint8)
    # One of 4 x 5 pixels: rows 32 to 48, columns 12 to 24; six tiles have pixels within reach.
    mask[0, 2, 1] = 1
    create_image("mask.zarr", shape=(4, 5), axes="yx", dtype="u1").write(0, 0, 0, mask)
    asked = {**TILED, "precision": "exact", "grow": 0}
    report = tile_predict(half, **asked, mask="mask.zarr", output="16.zarr", audit=4)
    assert report.tiles_left_out == 10
    assert tile_predict(half, **asked, mask="mask.zarr", dry_run=True).tiles_left_out == 10
    assert {"half/0/8", "half/0/9"}.isdisjoint(listed("16.zarr"))
    tile_predict(half, **asked, output="all.zarr")
    near, inside = np.zeros((2, 64, 60), bool)
    near[27:53, 7:29] = True
    inside[32:48, 12:24] = True
    whole = read("all.zarr", "classes")
    np.testing.assert_array_equal(read("16.zarr", "classes"), np.where(near, whole, 0))
    # Of the objects there those that touch the mask, and no tile size makes others of them.
    objects, _ = ndimage.label(np.where(near, whole, 0))
    touching = np.isin(objects, np.unique(objects[inside & (objects > 0)]))
    found = read("16.zarr", "instances")
    np.testing.assert_array_equal(found > 0, touching)
    assert 0 < touching.sum() < (objects > 0).sum()
    for tile in (32, 64):
        output = f"{tile}.zarr"
        tile_predict(half, **{**asked, "tile": tile}, mask="mask.zarr", output=output)
        for name in ("probabilities", "classes", "instances"):
            np.testing.assert_array_equal(read(output, name), read("16.zarr", name))


def square(*corners):
    ring = [list(corner) for corner in (*corners, corners[0])]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation"},
    }


@pytest.mark.parametrize("scheduler", ["sync", "processes"])
def test_a_mask_of_a_file_is_that_of_a_store(half, monkeypatch, scheduler):
    monkeypatch.setattr(skipping, "REACH", 5)
    asked = {**TILED, "scheduler": scheduler, "workers": None if scheduler == "sync" else 1}
    drawn = np.zeros((16, 15), np.uint8)
    drawn[3:9, 2:7] = 200
    drawn[12, 9:] = 1
    create_image("mask.zarr", shape=(16, 15), axes="yx", dtype="u1").write(0, 0, 0, drawn[None])
    tile_predict(half, **asked, mask="mask.zarr", output="store.zarr")
    tifffile.imwrite("mask.tif", drawn)
    Image.fromarray(drawn).save("mask.png")
    # In pixels of the image: four of them for each of the mask.
    shapes = [
        square((8, 12), (28, 12), (28, 36), (8, 36)),
        square((36, 48), (60, 48), (60, 52), (36, 52)),
    ]
    Path("mask.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    for name in ("mask.tif", "mask.png", "mask.geojson"):
        report = tile_predict(half, **asked, mask=name, output=f"{name}.zarr", overwrite=True)
        assert listed(report.output) == listed("store.zarr")
        assert 0 < report.tiles_left_out < 16
        for kind in ("probabilities", "classes", "instances"):
            np.testing.assert_array_equal(read(report.output, kind), read("store.zarr", kind))
        told = [
            info(each)["provenance"]["prediction"]["judged"]
            for each in (report.output, "store.zarr")
        ]
        assert told[0] == told[1]
        again = tile_predict(half, **asked, mask=name, output=f"{name}.zarr", resume=True)
        assert again.status == "nothing to do"
    Path("mask.geojson").write_text(json.dumps(shapes[0]))
    with pytest.raises(OutputError, match="mask"):
        tile_predict(half, **asked, mask="mask.geojson", output="mask.geojson.zarr", resume=True)


def test_what_is_drawn_lies_over_the_image_whatever_the_model_sees(half, kit):
    shape = square((8, 12), (28, 12), (28, 36), (8, 36))
    Path("mask.geojson").write_text(json.dumps(shape))
    report = tile_predict(half, **TILED, scale=0.5, mask="mask.geojson")
    assert info(report.output)["provenance"]["prediction"]["judged"]["pixels"] == 20 * 24


def grown(objects, distance):
    """Give each pixel the nearest object, of equally near ones that of the lowest id."""
    away = [ndimage.distance_transform_edt(objects != n) for n in range(1, objects.max() + 1)]
    far = np.stack([np.full(objects.shape, distance + 1e-9), *away])
    far[1:, :, :][[not (objects == n).any() for n in range(1, objects.max() + 1)]] = np.inf
    return np.argmin(far, axis=0)


def test_what_a_mask_leaves_out_holds_its_ground_while_others_grow(half, monkeypatch):
    monkeypatch.setattr(skipping, "REACH", 12)
    mask = np.zeros((1, 4, 5), np.uint8)
    mask[0, 2, 1] = 1
    create_image("mask.zarr", shape=(4, 5), axes="yx", dtype="u1").write(0, 0, 0, mask)
    asked = {**TILED, "precision": "exact", "mask": "mask.zarr"}
    tile_predict(half, **asked, grow=0, output="0.zarr")
    classes = read("0.zarr", "classes")
    objects, _ = ndimage.label(classes)
    wanted = np.unique(objects[32:48, 12:24])
    touching = np.where(np.isin(objects, wanted), objects, 0)
    expected = np.isin(grown(objects, 4), wanted[wanted > 0])
    assert (expected != (grown(touching, 4) > 0)).any()
    for tile in (16, 32, 64):
        tile_predict(half, **{**asked, "tile": tile}, grow=4, output=f"{tile}.zarr")
        found = read(f"{tile}.zarr", "instances")
        np.testing.assert_array_equal(found > 0, expected)
        assert np.unique(found).tolist() == list(range(np.count_nonzero(wanted) + 1))


def test_what_an_earlier_run_left_out_is_listed_too(kit, half, cut_off):
    options = {**TILED, "skip_below": 100}
    cut_off(half, at=9, **options)
    with pytest.raises(OutputError, match="skip_below: 100 before"):
        tile_predict(half, **{**options, "skip_below": 90}, resume=True)
    report = tile_predict(half, **options, resume=True)
    assert report.tiles_reused > 0
    assert report.tiles_left_out == 7
    tile_predict(half, **options, output="whole.zarr")
    assert kit.differing(report.output, "whole.zarr") == []


def test_a_mask_must_fit(kit, half):
    kit.image(Path("deep.zarr"), (3, 8, 8), axes="zyx", dtype="u1")
    with pytest.raises(UsageError, match="mask must have 1 plane or 1"):
        tile_predict(half, mask="deep.zarr")
    kit.image(Path("flat.zarr"), (16, 64), dtype="u1")
    with pytest.raises(InputError, match="mask must have the proportions of the image, 64 x 60"):
        tile_predict(half, mask="flat.zarr")
    tifffile.imwrite("colours.tif", np.zeros((16, 15, 3), np.uint8), photometric="rgb")
    with pytest.raises(UnetkitError, match=r"colours\.tif"):
        tile_predict(half, mask="colours.tif")
    shape = square((70, 70), (80, 70), (80, 80))
    Path("away.geojson").write_text(json.dumps(shape))
    with pytest.raises(InputError, match="mask must lie on the image, got none"):
        tile_predict(half, mask="away.geojson")
    with pytest.raises(InputError, match=r"absent\.tif"):
        tile_predict(half, mask="absent.tif")
    for shape in [(64, 60), (8, 8), (7, 6), (128, 120)]:
        kit.image(Path(f"{shape[0]}.zarr"), shape, dtype="u1")
        assert tile_predict(half, mask=f"{shape[0]}.zarr", dry_run=True).tiles_left_out == 0


def test_the_background_of_the_target_boundary_is_its_second_class(kit, half):
    model = kit.model(Path("b.safetensors"), classes=("inside", "boundary"), target="boundary")
    tile_predict(half, model=model, **TILED, skip_below=100, output="some.zarr")
    assert (read("some.zarr", "classes")[48:, 48:] == 1).all()
    assert not read("some.zarr", "instances")[48:, 48:].any()
