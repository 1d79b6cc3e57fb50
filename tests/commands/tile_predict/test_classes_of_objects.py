"""Each object gets the class with the largest sum of its probability, alike for all tilings."""

import numpy as np
import pytest

from unetkit.arrays.instances import instances, object_probability, separate
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.tile_predict import plan
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.models.inference import to_classes
from unetkit.storage.images import open_image
from unetkit.storage.object_classes import read_object_classes

TARGET = "classes+boundary"
NAMES = ("background", "boundary", "stroma", "tumour")
HOW = {"precision": "exact", "scheduler": "sync"}


@pytest.fixture
def classed(kit, slide, tmp_path, monkeypatch):
    """Return a slide, cut into many blocks, beside a model of objects of two classes."""
    kit.model(tmp_path / "model.safetensors", classes=NAMES, target=TARGET, seed=8)
    monkeypatch.setattr(plan, "BLOCK", 16)
    return slide


@pytest.mark.parametrize(
    ("probability", "chosen"),
    [
        ((0.4, 0.0, 0.35, 0.25), 2),  # of an object rather than not, and rather stroma
        ((0.4, 0.0, 0.25, 0.35), 3),
        ((0.1, 0.4, 0.3, 0.2), 2),
        ((0.5, 0.0, 0.25, 0.25), 0),  # as probable as not is not
        ((0.2, 0.5, 0.2, 0.1), 1),
    ],
)
def test_a_pixel_is_of_an_object_where_its_classes_together_are_most_probable(probability, chosen):
    found = to_classes(np.array(probability, np.float32)[:, None, None], target=TARGET)
    assert (found.tolist(), found.dtype) == ([[chosen]], np.uint8)


def read(url):
    made = open_image(url)
    box = (0, 0, made.data.height, 0, made.data.width)
    return made, *(
        a.read(*box) for a in (made.data, *map(made.labels.get, ("classes", "instances")))
    )


def voted(probabilities, ids):
    """Add up each object's pixels in the whole image, in 255ths."""
    if probabilities.dtype != np.uint8:
        probabilities = np.rint(probabilities * 255).astype(int)
    sums = [[int(p[ids == n].sum()) for p in probabilities[2:]] for n in range(1, ids.max() + 1)]
    return np.argmax(sums, axis=1) + 1


@pytest.mark.parametrize("stored", ["uint8", "float32"])
def test_classes_are_those_of_the_whole_image_for_any_tile(classed, stored):
    every = []
    for tile in (16, 64):
        report = tile_predict(
            classed, output=f"{tile}.zarr", tile=tile, probabilities=stored, grow=2, **HOW
        )
        made, probabilities, classes, ids = read(f"{tile}.zarr")
        np.testing.assert_array_equal(ids, instances(classes, TARGET, distance=2))
        found = read_object_classes(made)
        assert found.names == ("background", "stroma", "tumour")
        assert found.ids.tolist() == list(range(1, report.objects + 1))
        assert found.numbers.tolist() == voted(probabilities, ids).tolist()
        assert set(found.numbers.tolist()) == {1, 2}
        every.append((ids, found))
    np.testing.assert_array_equal(every[0][0], every[1][0])
    assert every[0][1].is_same(every[1][1])
    assert verify("16.zarr").chunks
    assert evaluate("16.zarr", "64.zarr", scheduler="sync").overall.mpq == 1


def test_a_watershed_parts_them_by_the_sum_of_their_classes(classed):
    seeds = {"seed_level": 0.58, "seed_size": 2}
    tile_predict(classed, output="p.zarr", tile=16, separate="watershed", **seeds, **HOW)
    made, probabilities, classes, ids = read("p.zarr")
    inside = object_probability(probabilities, TARGET)
    parted = separate(inside, classes >= 2, **seeds)
    np.testing.assert_array_equal(ids, instances(classes, TARGET, parted=parted))
    assert read_object_classes(made).numbers.tolist() == voted(probabilities, ids).tolist()


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(classed, kit, cut_off):
    tile_predict(classed, output="whole.zarr", tile=16, **HOW)
    for at in (5, 30, 48):
        cut_off(classed, at=at, resume=True, output="out.zarr", tile=16, **HOW)
    tile_predict(classed, output="out.zarr", tile=16, resume=True, **HOW)
    assert kit.differing("out.zarr", "whole.zarr") == []


def test_labels_in_their_place_have_the_classes_too(classed):
    tile_predict(classed, output="p.zarr", tile=16, **HOW)
    tile_predict(classed, in_place=True, tile=16, **HOW)
    here, there = (read_object_classes(open_image(url)) for url in (classed, "p.zarr"))
    assert here.is_same(there)


def test_what_is_decided_again_has_the_classes_of_a_fresh_run(classed, kit):
    tile_predict(classed, output="p.zarr", tile=16, **HOW)
    report = tile_predict(classed, output="p.zarr", tile=16, min_size=9, overwrite=True, **HOW)
    assert report.tiles_taken_over == report.tiles_total
    tile_predict(classed, output="fresh.zarr", tile=16, min_size=9, **HOW)
    assert kit.differing("p.zarr/labels", "fresh.zarr/labels") == []


def test_an_audit_finds_the_same_again(classed):
    report = tile_predict(classed, output="p.zarr", tile=16, audit=4, **HOW)
    assert report.audit["flipped"] == 0
