"""Slides whose pixels have another size than the model's: read at its size, written at theirs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.commands.tile_predict.test_decide_again import decided_again
from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.models.model_file import load, to_bytes
from unetkit.storage import pyramids
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync", "device": "cpu"}
MADE = "slide.prediction.zarr"


@pytest.fixture
def sized(slide):
    """Work beside a slide of 64 x 60 pixels and a model of pixels of half a micrometre."""
    loaded = load("model.safetensors")
    known = replace(loaded.header, pixel_size={"y": 0.5, "x": 0.5})
    Path("model.safetensors").write_bytes(to_bytes(loaded.module, known))
    return slide


def layers(kit, url):
    image = open_image(url)
    return [kit.read(image.data), *(kit.read(image.labels[n]) for n in ("classes", "instances"))]


def assert_alike(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def stored(path, pixels, **more):
    data = create_image(path, shape=pixels.shape, axes="yx", dtype=pixels.dtype, chunk=32, **more)
    data.write(0, 0, 0, pixels[np.newaxis])
    return path


@pytest.mark.parametrize("pixel_size", ["0.25", "0.325,0.4", "1.1,0.6"])
def test_tiles_chunks_and_schedulers_make_the_same(kit, sized, pixel_size):
    asked = {**TILED, "pixel_size": pixel_size, "min_size": 4, "grow": 2}
    tile_predict(sized, **asked)
    first = layers(kit, MADE)
    assert first[0].shape == (2, 64, 60)
    assert len(np.unique(first[2])) > 1
    for number, other in enumerate(({"tile": 48}, {"tile": 32, "scheduler": "threads"})):
        tile_predict(sized, **{**asked, **other}, output=f"{number}.zarr")
        assert_alike(layers(kit, f"{number}.zarr"), first)
    verify(MADE)


@pytest.mark.parametrize("pixel_size", ["0.25", "0.2"])
def test_the_network_sees_means_of_what_is_smaller(kit, sized, pixel_size):
    pixels = kit.read(open_image(sized).data)[0].astype(float)
    if pixel_size == "0.25":
        means = pixels.reshape(32, 2, 30, 2).mean(axis=(1, 3))
    else:
        fine = pixels.repeat(2, 0).repeat(2, 1)  # two and a half pixels are one
        fine = np.pad(fine, ((0, 2), (0, 0)), constant_values=np.nan)
        means = np.nanmean(fine.reshape(26, 5, 24, 5), axis=(1, 3))
    stored("means.zarr", np.floor(means + 0.5).astype(np.uint16))
    tile_predict("means.zarr", **TILED, output="wanted.zarr", no_rescale=True)
    report = tile_predict(sized, **TILED, pixel_size=pixel_size, at="model")
    assert report.objects == len(np.unique(layers(kit, MADE)[2])) - 1
    assert_alike(layers(kit, MADE), layers(kit, "wanted.zarr"))
    # The same lies below what has the slide's own size.
    tile_predict(sized, **TILED, pixel_size=pixel_size, output="own.zarr")
    assert_alike(layers(kit, "own.zarr/model-size"), layers(kit, "wanted.zarr"))


@pytest.mark.parametrize(
    ("pixel_size", "level", "resampled"),
    [("0.2504", 1, False), ("0.26", 0, True), ("0.1", 2, True), ("0.125", 2, False)],
)
def test_a_level_of_the_pyramid_is_read_as_it_is_or_resampled(
    kit, sized, monkeypatch, pixel_size, level, resampled
):
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 16)
    pyramids.add_pyramid(sized)
    report = tile_predict(sized, **TILED, pixel_size=pixel_size, at="model")
    (told,) = report.rescaled
    assert (told["level"], told["resampled"], told["samples"]) == (level, resampled, 1)
    if not resampled:
        small = pyramids.levels_of(open_image(sized).data)[level][0]
        stored("level.zarr", kit.read(small)[0])
        tile_predict("level.zarr", **TILED, output="wanted.zarr", no_rescale=True)
        assert_alike(layers(kit, MADE), layers(kit, "wanted.zarr"))


# Among its 12 tiles, and once a block has the size of the slide.
@pytest.mark.parametrize("at", [3, 15])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(kit, sized, cut_off, at):
    asked = {**TILED, "pixel_size": "0.4"}
    cut_off(sized, at=at, **asked)
    for changed in ({"pixel_size": "0.3"}, {"at": "model"}):
        with pytest.raises(OutputError, match="rescaled"):
            tile_predict(sized, **{**asked, **changed}, resume=True)
    assert tile_predict(sized, **asked, resume=True).tiles_reused == min(at, 12)
    tile_predict(sized, **asked, output="whole.prediction.zarr")
    assert kit.differing(MADE, "whole.prediction.zarr") == []


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"pixel_size": "0.25"}, {"threshold": 0.52, "grow": 0}),
        ({"pixel_size": "1,0.7", "at": "model"}, {"min_size": 6}),
        ({"scale": 0.6}, {"min_size": 6, "grow": 2}),
    ],
)
def test_it_can_be_decided_again(sized, given, changed):
    tile_predict(sized, **TILED, **given)
    decided_again(sized, {**TILED, **given}, **changed)


def test_viewers_draw_either_size_in_the_place_of_the_slide(kit, sized):
    noise = kit.read(open_image(sized).data)[0]
    stored("placed.zarr", noise, pixel_size={"y": 0.2, "x": 0.25})
    corners, sizes = [], []
    for at in ("slide", "model"):
        tile_predict("placed.zarr", **TILED, at=at, output=f"at-{at}.zarr")
        image = open_image(f"at-{at}.zarr")
        level = image.placement.level
        # Where the first pixel begins, and how long the image is.
        corners.append([level.shift.get(a, 0) - level.scale[a] / 2 for a in "yx"])
        sizes.append([image.pixel_size[a] for a in "yx"])
        assert image.placement.units == {"y": "micrometer", "x": "micrometer"}
        document = json.loads(Path(f"at-{at}.zarr", "zarr.json").read_text())
        told = document["attributes"]["unetkit"]["rescaled"]
        assert (told["factor"], told["at"], told["level"]) == ([0.4, 0.5], at, 0)
        assert told["pixel_size"] == {"y": 0.2, "x": 0.25}
        assert told["read_pixel_size"] == {"y": 0.5, "x": 0.5}
    np.testing.assert_allclose(corners[0], corners[1])
    np.testing.assert_allclose(sizes, [[0.2, 0.25], [0.5, 0.5]])


def test_a_dry_run_says_what_is_read(sized, capsys):
    words = ["tile-predict", sized, "--pixel-size", "0.25", "--dry-run"]
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["rescaled"] == [
        {
            **{"level": 0, "factor": [0.5, 0.5], "resampled": True, "samples": 1},
            "pixel_size": {"y": 0.25, "x": 0.25},
            "read_pixel_size": {"y": 0.5, "x": 0.5},
        }
    ]
    wanted = "read at 0.5 times the size, at 0.5 instead of 0.25 micrometres a pixel, from level 0"
    assert wanted in told.err
    assert not Path(MADE).exists()


def test_sizes_that_are_alike_unknown_or_not_to_count_change_nothing(kit, sized):
    tile_predict(sized, **TILED, output="plain.zarr")
    for number, asked in enumerate(({"pixel_size": "0.46"}, {"scale": 1.0})):
        assert tile_predict(sized, **TILED, **asked, output=f"{number}.zarr").rescaled == ()
        assert_alike(layers(kit, f"{number}.zarr"), layers(kit, "plain.zarr"))
    as_before = {"pixel_size": "0.25", "no_rescale": True}
    report = tile_predict(sized, **TILED, **as_before)
    assert "0.25 micrometres along y instead of 0.5" in report.warnings[0]
    assert_alike(layers(kit, MADE), layers(kit, "plain.zarr"))
    with pytest.raises(InputError, match="along y instead"):
        tile_predict(sized, **TILED, **as_before, strict=True, output="strict.zarr")
    assert tile_predict(sized, **TILED, scale=0.5, strict=True, output="half.zarr").warnings == ()


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"pixel_size": "350"}, InputError, "0.5 micrometres, got 350; say how large"),
        ({"pixel_size": "1nm"}, InputError, "1/64 to 8 times as large"),
        ({"scale": 0.001}, UsageError, "scale must lie between 1/64 and 8"),
        ({"scale": 0.5, "no_rescale": True}, UsageError, "leave --no-rescale out"),
        ({"at": "model size"}, UsageError, "at must be slide or model"),
    ],
)
def test_what_can_not_be_read_so_is_refused(kit, sized, asked, error, words):
    before = sorted(Path().iterdir())
    with pytest.raises(error, match=words):
        tile_predict(sized, **TILED, **asked)
    assert sorted(Path().iterdir()) == before


def test_memory_counts_what_is_read_of_a_slide(sized):
    def peak(**asked):
        return tile_predict(sized, **TILED, **asked, dry_run=True).memory_peak

    plain, smaller = peak(), peak(pixel_size="0.05")
    # A part of 2^22 numbers of the slide, as stored and twice as floats.
    assert smaller - plain > 2**22 * 10 * 0.9


def test_classes_without_objects_and_several_images(kit, sized):
    kit.cells(Path("cells.zarr"))
    model = kit.model(Path("other.st"), classes=("a", "b", "c"), target="classes")
    report = tile_predict("cells.zarr", **TILED, model=model, scale=0.5, mask=None)
    assert (report.objects, report.rescaled[0]["samples"]) == (None, 2)
    image = open_image("cells.prediction.zarr/s1")
    assert kit.read(image.labels["classes"]).shape == (40, 44)
    verify("cells.prediction.zarr")
