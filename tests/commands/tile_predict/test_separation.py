"""A watershed parts objects that touch, alike for all tiles, blocks, schedulers and ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from unetkit.arrays.components import components
from unetkit.arrays.instances import instances, separate
from unetkit.cli.app import main
from unetkit.commands.tile_predict import plan
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.instances import Separation, number_objects
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import OutputError, UsageError
from unetkit.geometry.tiles import cover
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image

PARTED = {"separate": "watershed", "seed_size": 4, "precision": "exact"}


def expected(made, *, target="foreground", min_size=0, distance=1, **numbers):
    """Part the stored probabilities of a whole image."""
    planes = made.data.planes
    box = (0, made.data.height, 0, made.data.width)
    found, highest = [], 0
    for plane in range(planes):
        classes = made.labels["classes"].read(plane, *box)
        positive = 0 if target == "boundary" else 1
        probability = made.data.read(plane, *box)[positive]
        parted = separate(probability, classes == positive, **numbers)
        ids = instances(classes, target, min_size=min_size, distance=distance, parted=parted)
        found.append(np.where(ids > 0, ids + np.uint32(highest), 0))
        highest = max(highest, int(found[-1].max()))
    return np.stack(found)


def instances_of(made):
    box = (0, made.data.height, 0, made.data.width)
    return np.stack([made.labels["instances"].read(p, *box) for p in range(made.data.planes)])


@pytest.fixture
def numbers(slide, monkeypatch):
    """Cut a prediction into many blocks; return numbers that give its network's maps seeds."""
    monkeypatch.setattr(plan, "BLOCK", 16)
    tile_predict(slide, output="first.zarr")
    data = open_image("first.zarr").data
    stored = data.read(0, 0, data.height, 0, data.width)[1]
    low, high = (float(np.quantile(stored, q)) / 255 for q in (0.3, 0.8))
    return {"threshold": low, "seed_level": high}


@pytest.mark.parametrize("stored", ["uint8", "float32"])
@pytest.mark.parametrize("tile", [16, 32, 64])
def test_objects_are_those_of_the_whole_image_for_any_tile(slide, numbers, tile, stored):
    how = {**PARTED, **numbers, "min_size": 3, "grow": 2, "probabilities": stored}
    report = tile_predict(slide, tile=tile, output="out.zarr", **how)
    made = open_image("out.zarr")
    found = instances_of(made)
    level = numbers["seed_level"]
    wanted = expected(made, min_size=3, distance=2, seed_level=level, seed_size=4)
    np.testing.assert_array_equal(found, wanted)
    assert report.objects == found.max()
    plain = tile_predict(
        slide,
        tile=tile,
        output="plain.zarr",
        **{**how, "separate": "components"} | {"seed_size": None, "seed_level": None},
    )
    assert plain.objects < report.objects


# The others begin processes, which takes some seconds each.
@pytest.mark.parametrize(
    "scheduler",
    [
        "threads",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("local:2", marks=pytest.mark.slow),
    ],
)
def test_every_scheduler_gives_the_bytes_of_one_thread(kit, slide, numbers, scheduler):
    how = {**PARTED, **numbers, "tile": 16}
    tile_predict(slide, output="one.zarr", scheduler="sync", **how)
    tile_predict(slide, output="other.zarr", scheduler=scheduler, workers=2, **how)
    assert kit.differing("one.zarr/labels", "other.zarr/labels") == []


def test_a_run_cut_off_while_it_floods_goes_on_to_the_same_bytes(kit, slide, numbers, cut_off):
    how = {**PARTED, **numbers, "tile": 16, "scheduler": "sync"}
    whole = kit.watching()
    tile_predict(slide, output="whole.zarr", progress=whole, **how)
    what, total, done = whole.stages[1]
    # Seeds, floods, parts and ids of sixteen blocks; what is done again is not counted.
    assert (what, total, done) == ("number objects", 64, 64)
    for at in (20, 40, 56, 70):
        cut_off(slide, at=at, resume=True, output="out.zarr", **how)
    with pytest.raises(OutputError, match="seed_level"):
        tile_predict(slide, output="out.zarr", resume=True, **{**how, "seed_level": 0.99})
    tile_predict(slide, output="out.zarr", resume=True, **how)
    assert kit.differing("out.zarr", "whole.zarr") == []


def test_a_finished_prediction_is_parted_without_asking_a_network(kit, slide, numbers):
    decision = {"threshold": numbers["threshold"], "tile": 16, "precision": "exact"}
    tile_predict(slide, output="out.zarr", **decision)
    how = {**PARTED, **numbers, "tile": 16}
    report = tile_predict(slide, output="out.zarr", overwrite=True, **how)
    assert report.tiles_taken_over == report.tiles_total == 16
    tile_predict(slide, output="fresh.zarr", **how)
    assert kit.differing("out.zarr/labels", "fresh.zarr/labels") == []


def test_the_output_says_how_it_was_parted(slide, numbers):
    tile_predict(slide, output="out.zarr", tile=16, **PARTED, **numbers)
    told = open_image("out.zarr").attributes["prediction"]
    wanted = {"separate": "watershed", "seed_level": numbers["seed_level"], "seed_size": 4}
    assert {name: told[name] for name in wanted} == wanted
    assert "--separate watershed" in told["command"]
    assert "separate" not in open_image("first.zarr").attributes["prediction"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seed_level": 0.8}, "seed-level must be left out .*; add --separate watershed"),
        ({"seed_size": 9}, "seed-size must be left out"),
        ({"separate": "watershed", "seed_level": 0.5}, "seed-level must be above the threshold"),
        ({"separate": "watershed", "seed_level": 0.0}, "seed-level must be above 0"),
        ({"separate": "watershed", "seed_size": -1}, "seed_size must be at least 0 pixels"),
        ({"separate": "mutex"}, "separate must be components or watershed"),
    ],
)
def test_numbers_that_part_nothing_are_refused(slide, asked, words):
    with pytest.raises(UsageError, match=words):
        tile_predict(slide, **asked)
    assert not list(Path().glob("*prediction*"))


def test_a_model_without_objects_has_nothing_to_part(kit, slide):
    kit.model("model.safetensors", target="classes", classes=("a", "b"))
    with pytest.raises(UsageError, match="separate must be components for a model of classes"):
        tile_predict(slide, separate="watershed")


def two_cells(folder, target):
    """Store probabilities of two cells with a bridge of one pixel, over the corner of blocks."""
    y, x = np.mgrid[:48, :64]
    away = np.minimum(np.hypot(y - 24, x - 17), np.hypot(y - 24, x - 47))
    cell = np.where(away < 12, 250, np.where(away < 14, 160, 8)).astype(np.uint8)
    cell[24, 28:37] = 140
    positive = 0 if target == "boundary" else 1
    data = create_image(f"{folder}/p", shape=(2, 48, 64), axes="cyx", dtype="u1", chunk=16)
    data.write(0, 0, 0, np.stack([cell, 255 - cell][:: 1 - 2 * positive]))
    classes = create_labels(
        f"{folder}/p", "classes", shape=(48, 64), axes="yx", dtype="u1", chunk=16
    )
    classes.write(0, 0, 0, np.where(cell >= 128, positive, 1 - positive).astype(np.uint8))
    return data, classes


@pytest.mark.parametrize("target", ["foreground", "boundary"])
@pytest.mark.parametrize("tile", [16, 32, 64])
def test_two_cells_with_a_bridge_of_one_pixel_are_two(tmp_path, target, tile):
    data, classes = two_cells(tmp_path, target)
    found = {}
    for separation in (None, Separation(data, seed_level=0.9, seed_size=20)):
        work = create_image(
            f"{tmp_path}/work{separation is None}", shape=(48, 64), axes="yx", dtype="u4", chunk=16
        )
        ids = create_labels(
            f"{tmp_path}/p",
            f"ids{separation is None}",
            shape=(48, 64),
            axes="yx",
            dtype="u4",
            chunk=16,
        )
        with open_scheduler("sync") as scheduler:
            numbered = number_objects(
                classes,
                work,
                create=lambda _, ids=ids: ids,
                blocks=cover(48, 64, tile=tile),
                target=target,
                grow=0,
                min_size=0,
                scheduler=scheduler,
                advance=lambda *_: None,
                separation=separation,
            )
        found[numbered.count] = ids.read(0, 0, 48, 0, 64)
    assert sorted(found) == [1, 2]
    # They meet in the middle of the bridge, and nothing else is cut.
    assert found[2][24, 28:37].tolist() == [1] * 5 + [2] * 4
    np.testing.assert_array_equal(found[2] > 0, found[1] > 0)
    assert (np.bincount(found[2].ravel())[1:] > 550).all()


@pytest.fixture(scope="module")
def clumps(tmp_path_factory):
    """Store drawn probabilities, most of whose objects are clumps that cross many faces."""
    folder = tmp_path_factory.mktemp("clumps")
    noise = np.random.default_rng(8).normal(size=(104, 140))
    smooth = ndimage.gaussian_filter(noise, 3)
    found = 128 + 70 * smooth / smooth.std() + 4 * noise
    probability = np.clip(np.rint(found), 0, 255).astype(np.uint8)
    data = create_image(f"{folder}/p", shape=(2, 104, 140), axes="cyx", dtype="u1", chunk=16)
    data.write(0, 0, 0, np.stack([255 - probability, probability]))
    classes = create_labels(
        f"{folder}/p", "classes", shape=(104, 140), axes="yx", dtype="u1", chunk=16
    )
    classes.write(0, 0, 0, (probability >= 100).astype(np.uint8))
    return folder, data, classes


@pytest.mark.parametrize(
    "scheduler",
    [
        "sync",
        "threads",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("local:2", marks=pytest.mark.slow),
    ],
)
def test_clumps_have_the_same_ids_for_five_tilings_on_every_scheduler(clumps, scheduler):
    folder, data, classes = clumps
    wanted = expected(
        open_image(f"{folder}/p"), min_size=9, distance=2, seed_level=0.8, seed_size=6
    )
    separation, place = Separation(data, seed_level=0.8, seed_size=6), scheduler.replace(":", "")
    shape = {"shape": (104, 140), "axes": "yx", "dtype": "u4", "chunk": 16}
    with open_scheduler(scheduler, 2) as opened:
        for tile in (16, 32, 48, 80, 144):
            ids = create_labels(f"{folder}/p", f"ids-{place}-{tile}", **shape)
            number_objects(
                classes,
                create_image(f"{folder}/work-{place}-{tile}", **shape),
                create=lambda _, ids=ids: ids,
                blocks=cover(104, 140, tile=tile),
                target="foreground",
                grow=2,
                min_size=9,
                scheduler=opened,
                advance=lambda *_: None,
                separation=separation,
            )
            found = ids.read(0, 0, 104, 0, 140)[None]
            np.testing.assert_array_equal(found, wanted, err_msg=f"tile {tile}")
    assert wanted.max() > 20
    assert components(wanted[0] > 0)[1] < wanted.max()


def test_the_command_parts(slide, numbers, capsys):
    words = ["tile-predict", slide, "--json", "-q", "--separate", "watershed", "--seed-size", "4"]
    words += ["--threshold", str(numbers["threshold"]), "--seed-level", str(numbers["seed_level"])]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["objects"] > 1
