"""Tiles of one value cost nothing, and are what they would be if they were computed."""

from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.tile_predict import blocks, skipping
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.skipping import ConstantTiles, constant_values
from unetkit.engine import block_io
from unetkit.storage.image_writer import create_image

TILED = {"tile": 16, "scheduler": "sync"}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(blocks, "CONSTANT_TILES", ConstantTiles())


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 0, 1), (1, 99, 99), (0, 60, 62)])
def test_one_other_pixel_is_enough(place):
    block = np.full((2, 100, 100), 3, np.float32)
    block[1] = 4
    assert constant_values(block) == (3, 4)
    block[place] += 1
    assert constant_values(block) is None
    block[place] = np.nan
    assert constant_values(block) is None


def test_a_result_is_computed_once_and_the_oldest_goes():
    asked, tiles = [], ConstantTiles()

    def compute(key):
        asked.append(key)
        return np.array(key), np.array(-key)

    for key in (1, 1, *range(2, 2 + skipping.KEPT), 1):
        (first, second), _ = tiles.result(key, lambda key=key: compute(key))
        assert (first, second) == (key, -key)
    assert asked == [1, *range(2, 2 + skipping.KEPT), 1]


def sparse(path):
    """Store 150 x 150 pixels: absent chunks, noise in one corner, one other value in another."""
    data = create_image(path, shape=(150, 150), axes="yx", dtype="u1", chunk=50)
    noise = np.random.default_rng(0).integers(0, 255, (1, 50, 50), np.uint8)
    data.write(0, 0, 0, noise)
    data.write(0, 50, 0, np.full((1, 100, 150), 90, np.uint8))
    return path


@pytest.mark.parametrize("precision", ["exact", "float32"])
def test_what_is_copied_is_what_would_be_computed(kit, slide, monkeypatch, precision):
    source = sparse("sparse.zarr")
    copied = tile_predict(source, **TILED, precision=precision, output="copied.zarr")
    assert copied.tiles_constant > 20
    monkeypatch.setattr(blocks, "constant_values", lambda block: None)
    computed = tile_predict(source, **TILED, precision=precision, output="computed.zarr")
    assert computed.tiles_constant == 0
    assert kit.differing("copied.zarr", "computed.zarr") == []


def test_another_threshold_or_precision_is_another_result(kit, slide, monkeypatch):
    source = sparse("sparse.zarr")
    first = tile_predict(source, **TILED, precision="exact", output="first.zarr")
    again = tile_predict(source, **TILED, precision="exact", output="again.zarr")
    # The two values of this image were kept.
    assert again.tiles_constant == first.tiles_constant + 2
    other = tile_predict(
        source, **TILED, precision="exact", threshold=0.4, probabilities="float32", output="o.zarr"
    )
    assert other.tiles_constant == first.tiles_constant


def test_background_is_resumed_as_done(kit, slide, monkeypatch):
    source = sparse("sparse.zarr")
    real, done = block_io.write_tile, []

    def write(*arguments):
        done.append(arguments)
        if len(done) == 81:
            raise OSError("power cut")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "write_tile", write)
        with pytest.raises(OSError, match="power cut"):
            tile_predict(source, **TILED, precision="exact")
    # A stray chunk where nothing is to be stored is removed with its tile.
    stray = Path(".sparse.prediction.zarr.unetkit-partial/labels/classes/0/c/1/5")
    stray.parent.mkdir(parents=True, exist_ok=True)
    kept = stray.read_bytes() if stray.exists() else None
    stray.write_bytes(b"stray")
    report = tile_predict(source, **TILED, precision="exact", resume=True)
    assert report.tiles_reused == 39
    tile_predict(source, **TILED, precision="exact", output="whole.zarr")
    assert kit.differing(report.output, "whole.zarr") == []
    assert kept != b"stray"
