"""Predictions scored against the truth on real stores: values, edge cases, tiling."""

import json

import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics as skimage_metrics
from skimage.segmentation import relabel_sequential

from unetkit.commands.evaluate.command import evaluate
from unetkit.engine import block_io
from unetkit.scores import contingency
from unetkit.scores.table import score_instances
from unetkit.storage.image_writer import create_image, create_labels


def cells(seed, shape=(8, 8)):
    """Draw blobs and number them."""
    noise = np.random.default_rng([seed, *shape]).random(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5, mode="wrap")
    return ndimage.label(smooth > np.quantile(smooth, 0.6))[0].astype(np.uint16)


def test_one_sample_by_hand(compared):
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[4:, 4:] = 1, 2
    found = np.zeros((8, 8), np.uint8)
    found[:4, :3], found[4:, 4:7], found[4:, 7], found[0, 7] = 5, 6, 7, 9
    report = compared(found, truth)
    assert report.kind == "instances"
    assert report.overall == report.mean == report.samples["a"]
    assert report.overall.pixel_error == 5 / 64
    assert report.overall.iou == 28 / 33
    assert report.overall.seg == 0.75
    assert report.overall.average_precision_at["0.75"] == 0.5
    assert report.overall.adapted_rand_error == pytest.approx(0.25)
    counts = (report.overall.objects_true, report.overall.objects_predicted)
    assert counts == (2, 4)


def test_blocks_of_any_size_give_the_scores_of_the_whole(kit, place, monkeypatch, write):
    shape = (2, 45, 70)
    truth, found = cells(1, shape), cells(2, shape)
    ignore = cells(3, shape) % 2
    prediction = write("p.zarr", {"a": found})
    wanted = write("t.zarr", {"a": {"labels": truth, "ignore": ignore}})
    whole = evaluate(prediction, wanted)
    # A prediction in other chunks, compared in blocks of 32 pixels.
    small = {"shape": shape, "axes": "zyx", "chunk": 16}
    create_image(place("small.zarr"), dtype="uint8", **small)
    labels = create_labels(place("small.zarr"), "instances", dtype="uint16", **small)
    for number, plane in enumerate(found):
        labels.write(number, 0, 0, plane)
    monkeypatch.setattr(block_io, "BLOCK", 40)
    heard = kit.watching()
    tiled = evaluate(place("small.zarr"), wanted, workers=2, progress=heard)
    assert tiled.overall == whole.overall
    assert heard.stages == [["score", 12, 12]]
    counted = ignore == 0
    split, merged = skimage_metrics.variation_of_information(truth[counted], found[counted])
    assert (whole.overall.voi_split, whole.overall.voi_merge) == pytest.approx((split, merged))
    assert whole.overall.pixels == counted.sum()


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes", "local:2"])
def test_every_scheduler_gives_the_same_scores(scheduler, write):
    planes = np.random.default_rng(0).integers(0, 3, size=(2, 2, 3, 40, 40)).astype(np.uint8)
    sides = [write(f"{name}.zarr", [*one]) for name, one in zip("pt", planes, strict=True)]
    expected = evaluate(*sides, borders=True)
    found = evaluate(*sides, borders=True, scheduler=scheduler, workers=2)
    assert found.to_dict() == expected.to_dict()


def test_overall_is_pooled_and_the_mean_stands_beside_it(compared):
    one, many = np.ones((4, 4), np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)
    missed = {"one": np.zeros_like(one), "many": many}
    report = compared(missed, {"one": one, "many": many})
    assert report.samples["one"].seg == 0
    assert report.samples["many"].seg == 1
    assert report.mean.seg == 0.5
    assert report.overall.seg == 15 / 16  # id 1 of one sample is not id 1 of the other
    assert report.overall.objects_true == 16


def test_planes_are_scored_one_by_one_and_pooled(compared):
    truth, found = (np.stack([cells(s, (40, 50)) for s in range(k, k + 3)]) for k in (0, 9))
    found = np.where(found % 5 == 0, truth, found + 40)
    report = compared(found, truth)
    planes = [contingency.from_labels(*pair) for pair in zip(truth, found, strict=True)]
    assert report.overall == score_instances(contingency.pool(planes))
    assert report.overall.objects_true == sum(len(np.unique(plane)) - 1 for plane in truth)


def test_new_ids_in_every_plane_cost_nothing(compared):
    truth = np.stack([cells(0, (20, 20))] * 3)
    found = np.where(truth != 0, truth + 50 * np.arange(3)[:, None, None].astype(np.uint16), 0)
    overall = compared(found, truth).overall
    assert (overall.average_precision, overall.seg, overall.det, overall.pq) == (1, 1, 1, 1)
    assert (overall.rand, overall.voi, overall.adapted_rand_error) == (1, 0, 0)


def test_classes_are_scored_with_their_names(compared):
    truth = np.repeat([0, 1, 2, 2], 4).reshape(4, 4).astype(np.uint8)
    found = np.repeat([0, 1, 1, 2], 4).reshape(4, 4).astype(np.uint8)
    names = ("background", "myelin", "axon")
    report = compared(found, {"a": {"labels": truth, "class_names": names}}, kind="classes")
    assert report.kind == "classes"
    assert [c.name for c in report.overall.classes] == list(names)
    assert [c.iou for c in report.overall.classes] == [1, 0.5, 0.5]
    assert report.overall.pixel_error == 0.25
    assert report.overall.seg is None


def test_real_masks_agree_with_scikit_image(test_data, compared):
    from skimage.io import imread

    path = next((test_data / "bbbc039_nuclei" / "masks").glob("*.png"))
    truth = relabel_sequential(imread(path).astype(np.int64))[0].astype(np.uint16)
    found = ndimage.label(ndimage.binary_erosion(truth > 0, iterations=2))[0].astype(np.uint16)
    overall = compared(found, truth).overall
    expected = skimage_metrics.adapted_rand_error(truth, found)[0]
    assert overall.adapted_rand_error == pytest.approx(expected)
    expected = skimage_metrics.variation_of_information(truth, found)
    assert (overall.voi_split, overall.voi_merge) == pytest.approx(tuple(expected))
    assert overall.objects_true == truth.max()
    assert 0.5 < overall.average_precision_at["0.50"] <= 1


def test_a_class_that_is_wholly_missed_counts(compared):
    truth = np.repeat([0, 1, 2, 2], 4).reshape(4, 4).astype(np.uint8)
    overall = compared(np.where(truth == 2, 0, truth), truth, kind="classes").overall
    assert [one.precision for one in overall.classes] == [1 / 3, 1, 0]
    assert (overall.precision, overall.recall, overall.dice) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        # Perfect, missed, false, nothing at all: what each score says where there is no object.
        (1, 1, dict.fromkeys(("average_precision", "pq", "det", "seg", "v_rand", "dice"), 1)),
        (1, 1, dict.fromkeys(("voi", "adapted_rand_error", "pixel_error"), 0)),
        (1, 0, {"average_precision": 0, "pq": 0, "det": 0, "seg": 0, "sq": None, "dice": 0}),
        (0, 1, {"average_precision": 0, "pq": 0, "det": None, "seg": None, "dice": 0}),
        (0, 0, {"average_precision": None, "pq": None, "det": None, "seg": None, "dice": None}),
    ],
)
def test_edge_cases_are_defined(truth, found, expected, compared):
    one = np.zeros((8, 8), np.uint8)
    one[2:6, 2:6] = 1
    report = compared(one * found, one * truth, borders=True, scheduler="sync")
    overall = report.to_dict()["overall"]
    json.dumps(overall, allow_nan=False)
    assert {name: overall[name] for name in expected} == expected
    assert overall["warping_error"] == (0 if found else None)


def test_seventy_thousand_objects_are_told_apart(compared):
    # More than 16 bits can number: cells of one pixel, a pixel apart, every third one lost.
    truth = np.zeros((640, 512), np.uint32)
    truth[::2, ::2] = np.arange(1, 320 * 256 + 1).reshape(320, 256)
    found = np.where(truth % 3 == 0, 0, truth)
    overall = compared(found, truth, bootstrap=0).overall
    count, lost = 320 * 256, 320 * 256 // 3
    assert (overall.objects_true, overall.misses) == (count, lost)
    precision = overall.average_precision_at["0.50"]
    assert precision == overall.seg == overall.recall == 1 - lost / count
    assert overall.objects_matched == count - lost
    assert overall.det == pytest.approx(1 - lost / count)
