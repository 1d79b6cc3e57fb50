"""Predictions scored against the truth on real stores: values, matching, refusals, tiling."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics as skimage_metrics
from skimage.segmentation import relabel_sequential

from unetkit.commands.evaluate.command import evaluate
from unetkit.engine import block_io
from unetkit.errors import InputError, MissingError
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_labels


def write(url: str, samples: dict[str, dict[str, Any] | None]) -> str:
    """Write a dataset; each sample is its labels and what belongs to them, or None for none."""
    writer = DatasetWriter(url)
    for name, parts in samples.items():
        given = dict(parts or {"image": np.zeros((8, 8), np.uint8)})
        image = given.pop("image", None)
        if image is None:
            image = np.zeros(given["labels"].shape, np.uint8)
        writer.add(name, image, axes="czyx"[-image.ndim :], **given)
    writer.finish()
    return url


def cells(seed: int, shape: tuple[int, ...] = (8, 8)) -> np.ndarray[Any, Any]:
    """Draw blobs and number them."""
    noise = np.random.default_rng([seed, *shape]).random(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5, mode="wrap")
    return ndimage.label(smooth > np.quantile(smooth, 0.6))[0].astype(np.uint16)


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = 0
        self.parts = 0

    def start(self, what: str, *, total: int) -> None:
        self.total = total

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        self.parts += parts

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def place(tmp_path):
    return lambda name: str(tmp_path / name)


def test_one_sample_by_hand(place):
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[4:, 4:] = 1, 2
    found = np.zeros((8, 8), np.uint8)
    found[:4, :3], found[4:, 4:7], found[4:, 7], found[0, 7] = 5, 6, 7, 9
    report = evaluate(
        write(place("p.zarr"), {"a": {"labels": found}}),
        write(place("t.zarr"), {"a": {"labels": truth}}),
    )
    assert report.kind == "instances"
    assert report.overall == report.mean == report.samples["a"]
    assert report.overall.pixel_error == 5 / 64
    assert report.overall.iou == 28 / 33
    assert report.overall.seg == 0.75
    assert report.overall.average_precision_at["0.75"] == 0.5
    assert report.overall.adapted_rand_error == pytest.approx(0.25)
    counts = (report.overall.objects_true, report.overall.objects_predicted)
    assert counts == (2, 4)


def test_blocks_of_any_size_give_the_scores_of_the_whole(place, monkeypatch):
    shape = (2, 45, 70)
    truth, found = cells(1, shape), cells(2, shape)
    ignore = cells(3, shape) % 2
    prediction = write(place("p.zarr"), {"a": {"labels": found}})
    wanted = write(place("t.zarr"), {"a": {"labels": truth, "ignore": ignore}})
    whole = evaluate(prediction, wanted)
    # A prediction in other chunks, compared in blocks of 32 pixels.
    create_image(place("small.zarr"), shape=shape, axes="zyx", dtype="uint8", chunk=16)
    labels = create_labels(
        place("small.zarr"), "instances", shape=shape, axes="zyx", dtype="uint16", chunk=16
    )
    for number, plane in enumerate(found):
        labels.write(number, 0, 0, plane)
    monkeypatch.setattr(block_io, "BLOCK", 40)
    heard = Heard()
    tiled = evaluate(place("small.zarr"), wanted, workers=2, progress=heard)
    assert tiled.overall == whole.overall
    assert heard.total == heard.parts == 2 * 2 * 3
    counted = ignore == 0
    split, merged = skimage_metrics.variation_of_information(truth[counted], found[counted])
    assert (whole.overall.voi_split, whole.overall.voi_merge) == pytest.approx((split, merged))
    assert whole.overall.pixels == counted.sum()


@pytest.mark.parametrize("scheduler", ["sync", "processes", "local:2"])
def test_every_scheduler_gives_the_same_scores(place, scheduler):
    prediction = write(place("p.zarr"), {n: {"labels": cells(i)} for i, n in enumerate("ab")})
    truth = write(place("t.zarr"), {n: {"labels": cells(i + 5)} for i, n in enumerate("ab")})
    expected = evaluate(prediction, truth, borders=True)
    found = evaluate(prediction, truth, borders=True, scheduler=scheduler, workers=2)
    assert found.to_dict() == expected.to_dict()


def test_overall_is_pooled_and_the_mean_stands_beside_it(place):
    one, many = np.ones((4, 4), np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)
    truth = write(place("t.zarr"), {"one": {"labels": one}, "many": {"labels": many}})
    missed = {"one": {"labels": np.zeros_like(one)}, "many": {"labels": many}}
    report = evaluate(write(place("p.zarr"), missed), truth)
    assert report.samples["one"].seg == 0
    assert report.samples["many"].seg == 1
    assert report.mean.seg == 0.5
    assert report.overall.seg == 15 / 16  # id 1 of one sample is not id 1 of the other
    assert report.overall.objects_true == 16


def test_classes_are_scored_with_their_names(place):
    truth = np.repeat([0, 1, 2, 2], 4).reshape(4, 4).astype(np.uint8)
    found = np.repeat([0, 1, 1, 2], 4).reshape(4, 4).astype(np.uint8)
    names = ("background", "myelin", "axon")
    report = evaluate(
        write(place("p.zarr"), {"a": {"labels": found, "kind": "classes"}}),
        write(place("t.zarr"), {"a": {"labels": truth, "kind": "classes", "class_names": names}}),
    )
    assert report.kind == "classes"
    assert [c.name for c in report.overall.classes] == list(names)
    assert [c.iou for c in report.overall.classes] == [1, 0.5, 0.5]
    assert report.overall.pixel_error == 0.25
    assert report.overall.seg is None


def test_the_report_is_strict_json(place):
    empty = {"a": {"labels": np.zeros((4, 4), np.uint8)}}
    url = write(place("t.zarr"), empty)
    values = json.loads(json.dumps(evaluate(url, url).to_dict(), allow_nan=False))
    assert values["overall"]["seg"] is None
    assert values["samples"][0]["name"] == "a"
    assert values["overall"]["pixel_error"] == 0


def test_truth_scored_against_itself_is_perfect(place):
    url = write(place("t.zarr"), {"a": {"labels": cells(1)}, "b": {"labels": cells(2)}})
    overall = evaluate(url, url).overall
    assert overall.average_precision == overall.seg == overall.dice == 1
    assert overall.voi == overall.adapted_rand_error == overall.pixel_error == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_sides_that_stand_in_each_others_place_are_noticed(place, swapped):
    labels = {"labels": cells(1)}
    truth = write(place("truth.zarr"), {"a": labels})
    made = {**labels, "attributes": {"prediction": {"model": "unet"}}}
    predicted = write(place("predicted.zarr"), {"a": made})
    heard = Heard()
    evaluate(*((truth, predicted) if swapped else (predicted, truth)), progress=heard)
    assert any("the prediction stands first" in note for note in heard.notes) == swapped


def test_two_sides_of_one_sample_match_whatever_their_names(place):
    prediction = write(place("p.zarr"), {"slide": {"labels": cells(1)}})
    truth = write(place("t.zarr"), {"annotated": {"labels": cells(1)}})
    assert list(evaluate(prediction, truth).samples) == ["annotated"]
    # An image inside a dataset is one sample too.
    assert evaluate(f"{prediction}/slide", truth).overall.seg == 1


def test_samples_are_matched_by_name_not_by_order(place):
    a, b = {"labels": cells(1)}, {"labels": cells(2)}
    prediction, truth = write(place("p.zarr"), {"b": b, "a": a}), place("t.zarr")
    report = evaluate(prediction, write(truth, {"a": a, "b": b}))
    assert report.overall.pixel_error == 0
    assert list(report.samples) == ["a", "b"]


def test_what_has_no_truth_is_left_out_and_said(place):
    labels = {"labels": cells(1)}
    prediction = write(place("p.zarr"), {"a": labels, "b": labels, "c": labels})
    truth = write(place("t.zarr"), {"a": labels, "b": None})
    heard = Heard()
    report = evaluate(prediction, truth, progress=heard)
    assert list(report.samples) == ["a"]
    assert report.unlabelled == ("b",)
    assert report.unpaired == ("b", "c")
    assert len(heard.notes) == 2


def test_a_stack_needs_its_axes_and_the_prediction_does_not(place):
    import zarr

    stack = np.stack([cells(1, (2, 8, 8))])
    group = zarr.open_group(place("stack.zarr"), mode="w")
    group.create_array("images", data=stack)
    group.create_array("labels", data=stack)
    channels = np.zeros((3, 2, 8, 8), np.uint8)
    write(place("p.zarr"), {"a": {"image": channels, "labels": stack[0]}})
    prediction = place("p.zarr/a")  # an image whose own axes are czyx
    assert evaluate(prediction, place("stack.zarr"), axes="zyx").overall.seg == 1
    with pytest.raises(InputError, match="must name its 3 dimensions"):
        evaluate(prediction, place("stack.zarr"))


SQUARE = np.ones((8, 8), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [
        (
            {"a": {"labels": SQUARE[:7]}},
            {"b": {"labels": SQUARE}},
            r"prediction 'a' and truth 'b' must be of one size, got 7 x 8 in .*p.zarr.* and "
            r"8 x 8 in .*t.zarr",
        ),
        (
            {"a": {"labels": np.stack([SQUARE, SQUARE])}},
            {"a": {"labels": SQUARE}},
            "got 2 planes of 8 x 8 in",
        ),
        (
            {"a": {"labels": SQUARE, "kind": "classes"}},
            {"a": {"labels": SQUARE}},
            "sample 'a' in .*p.zarr must have labels of the truth's kind 'instances', got classes",
        ),
        ({"a": None}, {"a": {"labels": SQUARE, "kind": "classes"}}, "kind 'classes', got none"),
        (
            {"a": {"labels": SQUARE}},
            {"a": None},
            "sample 'a' in .*t.zarr has no labels; run 'unetkit import' with --labels",
        ),
        (
            {"a": {"labels": SQUARE}},
            {"a": {"labels": SQUARE}, "b": {"labels": SQUARE}, "c": {"labels": SQUARE}},
            "p.zarr must have every labelled sample of .*t.zarr, got none named 'b', 'c'; predict",
        ),
        (
            {"a": {"labels": SQUARE}, "b": {"labels": SQUARE}},
            {"a": {"labels": SQUARE}, "b": {"labels": SQUARE, "kind": "classes"}},
            "must be of one kind, got instances in 'a' and classes in 'b'",
        ),
        (
            {"a": {"labels": SQUARE, "kind": "classes", "class_names": ("cell", "nothing")}},
            {"a": {"labels": SQUARE, "kind": "classes", "class_names": ("nothing", "cell")}},
            "must be in one order, got cell, nothing and nothing, cell; .*--classes cell,nothing",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(place, prediction, truth, words):
    with pytest.raises(InputError, match=words) as caught:
        evaluate(write(place("p.zarr"), prediction), write(place("t.zarr"), truth))
    assert caught.value.exit_code == 3


def test_other_class_names_are_compared_by_number_and_said(place):
    labels = {"labels": SQUARE, "kind": "classes"}
    prediction = write(place("p.zarr"), {"a": {**labels, "class_names": ("0", "255")}})
    truth = write(place("t.zarr"), {"a": {**labels, "class_names": ("outside", "cell")}})
    heard = Heard()
    assert evaluate(prediction, truth, progress=heard).overall.dice == 1
    assert "compared by number" in heard.notes[0]


def test_nothing_there_is_said_and_nothing_is_created(place, tmp_path):
    truth = write(place("t.zarr"), {"a": {"labels": SQUARE}})
    with pytest.raises(MissingError, match=r"p\.zarr"):
        evaluate(place("p.zarr"), truth)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.zarr"]


def test_real_masks_agree_with_scikit_image(place, test_data):
    from skimage.io import imread

    path = next((test_data / "bbbc039_nuclei" / "masks").glob("*.png"))
    truth = relabel_sequential(imread(path).astype(np.int64))[0].astype(np.uint16)
    found = ndimage.label(ndimage.binary_erosion(truth > 0, iterations=2))[0].astype(np.uint16)
    overall = evaluate(
        write(place("p.zarr"), {"a": {"labels": found}}),
        write(place("t.zarr"), {"a": {"labels": truth}}),
    ).overall
    expected = skimage_metrics.adapted_rand_error(truth, found)[0]
    assert overall.adapted_rand_error == pytest.approx(expected)
    expected = skimage_metrics.variation_of_information(truth, found)
    assert (overall.voi_split, overall.voi_merge) == pytest.approx(tuple(expected))
    assert overall.objects_true == truth.max()
    assert 0.5 < overall.average_precision_at["0.50"] <= 1


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        # Perfect, missed, false, nothing at all: what each score says where there is no object.
        (1, 1, {"average_precision": 1, "pq": 1, "det": 1, "seg": 1, "v_rand": 1, "dice": 1}),
        (1, 0, {"average_precision": 0, "pq": 0, "det": 0, "seg": 0, "sq": None, "dice": 0}),
        (0, 1, {"average_precision": 0, "pq": 0, "det": None, "seg": None, "dice": 0}),
        (0, 0, {"average_precision": None, "pq": None, "det": None, "seg": None, "dice": None}),
    ],
)
def test_edge_cases_are_defined(place, truth, found, expected):
    one = np.zeros((8, 8), np.uint8)
    one[2:6, 2:6] = 1
    sides = [
        write(place(f"{name}.zarr"), {"a": {"labels": one * there}})
        for name, there in (("p", found), ("t", truth))
    ]
    overall = evaluate(*sides, borders=True, scheduler="sync").to_dict()["overall"]
    json.dumps(overall, allow_nan=False)
    assert {name: overall[name] for name in expected} == expected
    assert overall["warping_error"] == 0


def test_seventy_thousand_objects_are_told_apart(place):
    # More than 16 bits can number: cells of one pixel, a pixel apart, every third one lost.
    truth = np.zeros((640, 512), np.uint32)
    truth[::2, ::2] = np.arange(1, 320 * 256 + 1).reshape(320, 256)
    found = np.where(truth % 3 == 0, 0, truth)
    overall = evaluate(
        write(place("p.zarr"), {"a": {"labels": found}}),
        write(place("t.zarr"), {"a": {"labels": truth}}),
        bootstrap=0,
    ).overall
    count, lost = 320 * 256, 320 * 256 // 3
    assert (overall.objects_true, overall.misses) == (count, lost)
    precision = overall.average_precision_at["0.50"]
    assert precision == overall.seg == overall.recall == 1 - lost / count
