"""Where an annotation was judged counts; everything else is seen by no weight, loss or score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.commands.conftest import Watching
from tests.commands.import_images.test_shapes import box, feature, labels_of, whole
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.import_images.command import import_images
from unetkit.commands.train.command import train
from unetkit.commands.weights.command import weights
from unetkit.errors import UnetkitError
from unetkit.storage.datasets import DatasetWriter, open_dataset

SHAPE = (60, 80)
JUDGED = np.zeros(SHAPE, bool)
JUDGED[10:50, 10:60] = True
# A cell inside, one across the rim, one outside, beside what was judged.
CELLS = np.zeros(SHAPE, np.uint8)
CELLS[14:24, 14:24], CELLS[30:44, 52:68], CELLS[12:20, 64:74] = 1, 2, 3
SHAPES = [feature(box(14, 14, 24, 24)), feature(box(52, 30, 68, 44)), feature(box(64, 12, 74, 20))]
REGION = feature(box(10, 10, 60, 50), label="judged")


@pytest.fixture
def lab(tmp_path):
    """Return a function that imports two images with shapes or masks, and says what was told."""
    noise = np.random.default_rng(2).integers(0, 40, SHAPE)
    for folder in ("images", "masks", "shapes"):
        (tmp_path / folder).mkdir()
    for stem in "ab":
        picture = (60 + 100 * (CELLS > 0) + noise).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"images/{stem}.png")
        Image.fromarray(CELLS).save(tmp_path / f"masks/{stem}.png")

    def imported(*judged, labels="shapes", a=(*SHAPES, REGION), b=(*SHAPES, REGION), **options):
        for stem, features in (("a", a), ("b", b)):
            (tmp_path / f"shapes/{stem}.geojson").write_text(json.dumps(features))
        told, out = Watching(), str(tmp_path / "out.zarr")
        options = {"labels": str(tmp_path / labels), "judged": judged, **options}
        import_images(str(tmp_path / "images"), out, progress=told, **options)
        return open_dataset(out), told.notes

    return imported


@pytest.mark.parametrize(
    ("judged", "labels"),
    [("judged", "shapes"), ("10:50,10:60", "shapes"), ("10:50, 10:60", "masks")],
)
def test_a_region_says_what_counts_and_labels_stay_as_they_are(judged, labels, lab):
    plain = [*SHAPES, REGION] if judged == "judged" else SHAPES
    data, notes = lab(judged, labels=labels, a=plain, b=plain)
    for sample in data.samples:
        np.testing.assert_array_equal(whole(sample.labels())[0], CELLS)
        np.testing.assert_array_equal(whole(sample.ignore)[0], ~JUDGED)
    said = "4,000 pixels (41.7%) lie where the annotation was judged; all others will be ignored"
    assert said in notes
    again, notes = lab(judged, labels=labels, a=plain, b=plain, append=True)
    assert again.names == ("a", "b")
    assert notes == ["skipped 2 images that the dataset has already"]
    with pytest.raises(UnetkitError, match="samples must have new names, got 'a'"):
        lab("10:50,10:61", labels=labels, a=SHAPES, b=SHAPES, append=True)


def test_regions_add_up_with_holes_and_with_ignored_values(lab):
    ring = feature(box(10, 10, 60, 50), box(20, 20, 30, 30), label="judged")
    (one, _), notes = lab("judged", "0:4,0:80", a=(*SHAPES, ring))[0].samples, []
    expected = JUDGED.copy()
    expected[20:30, 20:30] = False
    expected[:4] = True
    np.testing.assert_array_equal(whole(one.ignore)[0], ~expected)
    data, notes = lab("10:50,10:60", labels="masks", ignore=1, overwrite=True)
    np.testing.assert_array_equal(whole(data["a"].ignore)[0], ~JUDGED | (CELLS == 1))
    assert notes[0] == "200 pixels of value 1 will be ignored"


def test_an_image_without_a_region_comes_in_unlabelled_and_is_said(lab):
    data, notes = lab("judged", b=SHAPES)
    assert [sample.label_kind for sample in data.samples] == ["instances", None]
    assert data["b"].ignore is None
    assert (
        "no region of the class 'judged' says what was judged in 1 image, whose shapes were left"
        " out: 'b'" in notes
    )


def test_planes_have_regions_of_their_own(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, *SHAPE), "u1"), photometric="minisblack")
    features = [feature(box(14, 14, 24, 24)), feature(box(10, 10, 60, 50), label="judged")]
    for one in features:
        one["geometry"]["plane"] = {"t": 0, "z": 1}
    (tmp_path / "a.geojson").write_text(json.dumps(features))
    for judged, planes in (("judged", (0, 2000, 0)), ("10:50,10:60", (2000, 2000, 2000))):
        chosen = features if judged == "judged" else features[:1]
        (tmp_path / "a.geojson").write_text(json.dumps(chosen))
        out, shapes = str(tmp_path / "out.zarr"), str(tmp_path / "a.geojson")
        options = {"judged": [judged], "axes": "zyx", "overwrite": True}
        import_images(str(tmp_path / "a.tif"), out, labels=shapes, **options)
        (sample,) = open_dataset(out).samples
        assert tuple((whole(sample.ignore) == 0).sum(axis=(1, 2)).tolist()) == planes


def test_classes_and_the_region_are_kept_apart(lab):
    cell = feature(box(14, 14, 24, 24), label="cell")
    data, _ = lab("judged", kind="classes", a=(cell, REGION), b=(cell, REGION))
    assert data["a"].class_names == ("background", "cell")
    assert whole(data["a"].labels()).max() == 1


@pytest.mark.parametrize(
    ("judged", "options", "words"),
    [
        ("roi", {}, r"must be a class of the shapes, got 'roi'; there are 'judged'"),
        ("judged", {"labels": "masks"}, r"must be a rectangle .*got 'judged'; give one such"),
        ("0:10", {}, r"must be y0:y1,x0:x1 in whole pixels.*got '0:10'"),
        ("5:5,0:9", {}, "must be y0:y1,x0:x1 in whole pixels.*got '5:5,0:9'"),
        ("-1:5,0:9", {}, "must be y0:y1,x0:x1 in whole pixels.*got '-1:5,0:9'"),
        ("0:61,0:80", {}, r"must lie inside of every image, got 0:61,0:80 for .*60 high, 80 wide"),
        ("0:80,0:60", {"labels": "masks"}, r"inside of every image, got 0:80,0:60"),
        ("judged", {"a": [feature(box(1.6, 1, 2.4, 9), label="judged")]}, "must hold pixels, got"),
        ("judged", {"a": [feature(box(90, 1, 99, 9), label="judged")]}, "inside of their image"),
        ("judged", {"a": [feature([[0, 0], [9, 9], [9, 0], [0, 9]], label="judged")]}, "cross"),
        ("judged", {"kind": "classes", "classes": "background,judged"}, "a class of its own"),
    ],
)
def test_what_can_not_be_judged_is_one_sentence_and_leaves_nothing(
    judged, options, words, lab, tmp_path
):
    with pytest.raises(UnetkitError, match=words) as refused:
        lab(judged, **options)
    assert refused.value.exit_code in (2, 3)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks", "shapes"]


def changed_outside(url):
    """Draw other labels where nobody judged, in place."""
    for sample in open_dataset(url).samples:
        pixels = whole(sample.labels())[0]
        sample.labels().write(0, 0, 0, np.where(JUDGED, pixels, 7).astype(pixels.dtype))


def test_weights_training_and_scores_see_nothing_outside(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url, _ = lab("judged")[0].url, None
    options = ("width=2", "depth=1")
    common = {"options": options, "steps": 2, "device": "cpu", "precision": "exact"}
    found = []
    for name in ("first", "second"):
        weights(url, overwrite=True)
        stored = [whole(s.weights)[0] for s in open_dataset(url).samples]
        assert all((one[~JUDGED] == 0).all() and (one[JUDGED] > 0).all() for one in stored)
        train(url, output=f"{name}.safetensors", **common)
        found.append((np.stack(stored), Path(f"{name}.safetensors").read_bytes()))
        changed_outside(url)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def predicted(folder, name, labels):
    writer = DatasetWriter(str(folder / f"{name}.zarr"))
    for stem in "ab":
        writer.add(stem, np.zeros(SHAPE, np.uint8), axes="yx", labels=labels)
    writer.finish()
    return writer.url


def test_eval_counts_what_of_an_object_was_judged(lab, tmp_path):
    truth = lab("judged")[0].url
    inside, wild = np.where(JUDGED, CELLS, 0), np.where(JUDGED, CELLS, 9)
    for labels in (CELLS, inside, wild):
        scores = evaluate(
            predicted(tmp_path, f"p{labels.sum()}", labels), truth=truth, borders=True
        ).to_dict()["overall"]
        assert (scores["dice"], scores["f1"], scores["seg"]) == (1.0, 1.0, 1.0)
        assert scores["boundary_f"] == 1.0
    missed = evaluate(predicted(tmp_path, "m", inside * (CELLS != 2)), truth=truth).to_dict()
    assert missed["overall"]["f1"] == pytest.approx(2 / 3)


def test_labels_of_outlines_are_the_same_with_a_region(lab):
    data, _ = lab("judged")
    assert {name: found.max() for name, found in labels_of(data.url).items()} == {"a": 3, "b": 3}
