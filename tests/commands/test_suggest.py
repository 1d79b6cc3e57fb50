"""Windows to annotate next: where looks are unsure, of several kinds of places, none judged."""

import csv
import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unetkit.arrays.diversity import choose_diverse
from unetkit.arrays.uncertainty import LEVELS
from unetkit.cli.app import main
from unetkit.commands.suggest import suggest
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.engine import block_io
from unetkit.engine.window_sums import Layers, sum_windows
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.geometry.windows import Windows, window_starts
from unetkit.progress import SILENT
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image, create_labels, create_uncertainty
from unetkit.storage.images import open_image

ASKED = {"window": 16, "scheduler": "sync"}


def made(url, image, unsure, classes, *, source=None):
    """Store a prediction of an image (C, Y, X), with its layer and classes (Y, X)."""
    told = {} if source is None else {"attributes": {"prediction": {"source": source}}}
    data = create_image(url, shape=(2, *unsure.shape), axes="cyx", dtype="u1", chunk=16, **told)
    plane = {"shape": unsure.shape, "axes": "yx", "chunk": 16}
    named = {"class_names": ["background", "cell"]}
    create_labels(url, "classes", **plane, dtype="u1", attributes=named).write(0, 0, 0, classes)
    create_uncertainty(url, **plane, attributes={"scale": 1 / 255}).write(0, 0, 0, unsure)
    assert data.planes == 1
    return url


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Store a slide with two kinds of places: dark ones that are unsure, bright ones less so."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 20, (1, 64, 96)).astype(np.uint16)
    image[:, :, 64:] += 400
    unsure = np.zeros((64, 96), np.uint8)
    unsure[:32, :48] = 200
    unsure[40:60, 70:90] = 120
    data = create_image("slide.zarr", shape=(64, 96), axes="yx", dtype="u2", chunk=16)
    data.write(0, 0, 0, image)
    made("slide.prediction.zarr", image, unsure, (image[0] > 300).astype("u1"), source="slide.zarr")
    return "slide.prediction.zarr"


def meets(one, other):
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1


@given(length=st.integers(1, 80), side=st.integers(1, 40))
def test_windows_cover_an_axis_every_half_side(length, side):
    starts = window_starts(length, side)
    wide = min(side, length)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + wide == length
    assert all(b - a <= max(1, side // 2) for a, b in pairwise(starts))
    grid = Windows(length, 7, side)
    for (first, last), start in zip(grid.cells(0), starts, strict=True):
        assert (grid.edges[0][first], grid.edges[0][last]) == (start, start + wide)


@pytest.mark.parametrize("scale", [1, 2, 0.5])
@pytest.mark.parametrize("block", [16, 1024])
def test_windows_hold_what_numpy_says(tmp_path, monkeypatch, scale, block):
    monkeypatch.setattr(block_io, "BLOCK", block)
    rng = np.random.default_rng(1)
    image = rng.integers(0, 65535, (2, 60, 44)).astype(np.uint16)
    small = tuple(int(n * scale) for n in image.shape[1:])
    unsure, classes = rng.integers(0, 256, small), rng.integers(0, 2, small)
    shape = {"shape": image.shape, "axes": "cyx", "dtype": "u2", "chunk": 16}
    data = create_image(str(tmp_path / "i.zarr"), **shape)
    data.write(0, 0, 0, image)
    url = made(str(tmp_path / "p.zarr"), image, unsure.astype("u1"), classes.astype("u1"))
    found = open_image(url)
    grid = Windows(60, 44, 16)
    layers = Layers(data, found.uncertainty, found.labels["classes"], 2, grid)
    (sums,) = sum_windows(layers, scheduler="sync", workers=None, progress=SILENT)
    for column, (y0, y1, x0, x1) in zip(sums.T, grid.boxes(), strict=True):
        part = image[:, y0:y1, x0:x1].astype(float)
        py0, py1, px0, px1 = (int(n * scale) for n in (y0, y1, x0, x1))
        seen, kinds = unsure[py0:py1, px0:px1], classes[py0:py1, px0:px1]
        wanted = [part[0].size, seen.size, seen.sum()]
        for channel in part:
            wanted += [channel.sum(), (channel**2).sum()]
        assert column.tolist() == [*wanted, (kinds == 0).sum(), (kinds == 1).sum()]


def test_the_first_is_the_most_unsure_and_the_next_of_another_kind(places):
    report = suggest(places, count=2, **ASKED)
    first, second = report.windows
    assert first.uncertainty == pytest.approx(200 / 255, rel=1e-5)
    assert second.x0 >= 64, "the other kind of place must come second"
    assert (first.rank, second.rank) == (1, 2)
    assert report.candidates == 7 * 11
    rows = list(csv.DictReader(Path("slide.prediction.suggested.csv").read_text().splitlines()))
    assert [int(row["x0"]) for row in rows] == [first.x0, second.x0]
    assert list(rows[0]) == ["sample", "plane", "rank", "y0", "x0", "y1", "x1", "uncertainty"]


def test_none_meets_another_or_what_is_judged(places):
    report = suggest(places, count=30, judged=["0:20,0:20"], **ASKED)
    windows = report.windows
    assert 3 < len(windows) < 30
    assert report.judged == 9
    assert not any(meets(a, b) for a, b in combinations(windows, 2))
    assert not any(one.y0 < 20 and one.x0 < 20 for one in windows)
    assert any("only" in text for text in report.warnings)
    assert all(one.uncertainty > 0 for one in windows)


def test_the_judged_kind_comes_later(places):
    # Where the dark kind is known, the bright one is the first although it is less unsure.
    (first,) = suggest(places, count=1, judged=["0:16,0:16"], **ASKED).windows
    assert first.x0 >= 64


def test_samples_that_were_cut_out_are_judged(places):
    writer = DatasetWriter("corrections.zarr")
    for name, origin in (("ours", "slide.zarr"), ("theirs", "other.zarr")):
        window = {"y": [0, 32], "x": [0, 48] if name == "ours" else [48, 96]}
        told = {"command": "correct", "corrected": origin, "window": window}
        pixels = np.zeros((32, 48), np.uint8)
        writer.add(name, pixels, axes="yx", labels=pixels, attributes=told)
    writer.finish()
    report = suggest(places, count=9, judged=["corrections.zarr"], **ASKED)
    assert report.windows
    assert all(one.x0 >= 48 or one.y0 >= 32 for one in report.windows)
    writer = DatasetWriter("foreign.zarr")
    writer.add("a", np.zeros((8, 8), np.uint8), axes="yx")
    writer.finish()
    report = suggest(places, judged=["foreign.zarr"], overwrite=True, **ASKED)
    assert any("nothing in foreign.zarr is of" in text for text in report.warnings)


def test_images_that_are_labelled_are_left(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = [kit.model(f"m{s}.safetensors", seed=s) for s in (2, 3)]
    kit.cells("data.zarr", count=3)
    plain = {"tile": 32, "scheduler": "sync", "device": "cpu"}
    made = tile_predict("data.zarr", model=models, uncertainty=True, **plain).output
    writer = DatasetWriter("labelled.zarr")
    old = open_dataset("data.zarr")["s1"]
    image, labels = kit.read(old.data)[0], kit.read(old.labels())
    writer.add("s1", image, axes="yx", labels=labels)
    writer.finish()
    every = suggest(made, count=6, **ASKED)
    assert {one.sample for one in every.windows} >= {"s1"}
    report = suggest(made, count=6, judged=["labelled.zarr"], overwrite=True, **ASKED)
    assert {one.sample for one in report.windows} == {"s0", "s2"}
    with pytest.raises(UsageError, match=r"must be of a single image, got '0:9,0:9' for 3"):
        suggest(made, judged=["0:9,0:9"], overwrite=True, **ASKED)
    with pytest.raises(UsageError, match="geojson must be of a single image, got 3"):
        suggest(made, geojson="a.geojson", overwrite=True, **ASKED)


def test_the_same_for_any_scheduler_and_blocks(places, monkeypatch):
    one = suggest(places, count=9, **ASKED)
    monkeypatch.setattr(block_io, "BLOCK", 16)
    other = suggest(places, count=9, window=16, scheduler="threads", workers=2, overwrite=True)
    assert one.windows == other.windows


def test_an_image_with_its_own_layer_is_its_own_image(kit, slide):
    models = [kit.model(f"m{s}.safetensors", seed=s) for s in (2, 3)]
    how = {"model": models, "uncertainty": True, "tile": 32, "scheduler": "sync", "device": "cpu"}
    tile_predict(slide, in_place=True, **how)
    report = suggest(slide, count=3, **ASKED)
    assert len(report.windows) == 3
    unsure = kit.read(open_image(slide).uncertainty)
    for one in report.windows:
        mean = unsure[one.y0 : one.y1, one.x0 : one.x1].mean() / LEVELS
        assert one.uncertainty == pytest.approx(mean, rel=1e-5)
    corners = [(y, x) for y in range(0, 49, 8) for x in range(0, 44, 8)]
    best = max(unsure[y : y + 16, x : x + 16].mean() for y, x in corners)
    assert report.windows[0].uncertainty >= best / LEVELS - 1e-6


def test_geojson_has_the_windows_for_qupath(places):
    report = suggest(places, count=3, geojson="a.geojson", **ASKED)
    document = json.loads(Path("a.geojson").read_text())
    boxes = []
    for feature in document["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == "suggested"
        (ring,) = feature["geometry"]["coordinates"]
        xs, ys = zip(*ring, strict=True)
        boxes.append((min(ys), max(ys), min(xs), max(xs)))
    assert boxes == [one.box for one in report.windows]
    with pytest.raises(OutputError, match=r"suggested\.csv must not exist yet"):
        suggest(places, **ASKED)
    suggest(places, count=2, geojson="a.geojson", overwrite=True, **ASKED)
    assert len(json.loads(Path("a.geojson").read_text())["features"]) == 2


def test_the_sheet_has_a_picture_for_each(places):
    report = suggest(places, count=3, sheet="a.png", **ASKED)
    assert report.outputs == ("slide.prediction.suggested.csv", "a.png")
    with Image.open("a.png") as sheet:
        assert sheet.width > 4 * 320
        assert sheet.height > 2 * 320
        # A dark place of a slide with bright ones looks dark, and not as noise.
        first = np.asarray(sheet.crop((20, 60, 300, 340)).convert("L"))
    assert report.windows[0].x1 <= 64
    assert first.max() < 30


def test_a_prediction_without_a_layer_is_refused(kit, slide):
    made = tile_predict(slide, tile=32, scheduler="sync", device="cpu").output
    with pytest.raises(InputError, match=r"must have a layer of uncertainty, got none; run 'unet"):
        suggest(made, **ASKED)
    assert not Path("slide.prediction.suggested.csv").exists()


def test_what_it_advises_is_how_the_prediction_was_made(kit, slide):
    models = [kit.model(f"m{n}.safetensors", seed=n) for n in (1, 2)]
    asked = {"tile": 32, "scheduler": "sync", "device": "cpu", "threshold": 0.7}
    tile_predict(slide, model=models, output="p.zarr", **asked)
    Path("lab").mkdir()
    for name in (slide, "p.zarr", *models):
        Path(name).rename(f"lab/{name}")
    with pytest.raises(InputError) as refused:
        suggest("lab/p.zarr", **ASKED)
    line = str(refused.value).split("'")[1]
    assert main([*line.split()[1:], "-q"]) == 0
    assert suggest("p.unsure.zarr", image=f"lab/{slide}", **ASKED).windows
    told = [open_image(name).attributes["prediction"] for name in ("lab/p.zarr", "p.unsure.zarr")]
    same = ("source", "model_sha256", "threshold", "tile", "tta")
    assert [told[0][key] for key in same] == [told[1][key] for key in same]


@pytest.mark.parametrize("text", ["5:1,2:3", "1:2", "1,2,3,4"])
def test_a_rectangle_that_is_none_is_refused(places, text):
    with pytest.raises(UsageError, match="what was judged must be a dataset, or y0:y1,x0:x1"):
        suggest(places, judged=[text], **ASKED)


@pytest.mark.parametrize("text", ["0:65,0:48", "0:48,64:100", "100:120,0:10"])
def test_a_rectangle_outside_of_the_image_is_refused(places, text):
    with pytest.raises(UsageError, match=r"must lie inside of the image, got .* 64 high, 96 wide"):
        suggest(places, judged=[text], **ASKED)


def test_files_of_one_name_are_refused(places):
    with pytest.raises(UsageError, match=r"must be different files, got s\.csv twice"):
        suggest(places, output="s.csv", geojson="./s.csv", **ASKED)
    assert not Path("s.csv").exists()


def test_what_looks_agree_on_is_not_proposed(places, tmp_path):
    image = np.zeros((1, 32, 32), np.uint16)
    zero = np.zeros((32, 32), np.uint8)
    create_image("flat.zarr", shape=(32, 32), axes="yx", dtype="u2").write(0, 0, 0, image)
    url = made("flat.prediction.zarr", image, zero, zero, source="flat.zarr")
    report = suggest(url, sheet="a.png", **ASKED)
    assert report.windows == ()
    assert report.sheet is None
    assert not Path("a.png").exists()


def test_twins_are_chosen_where_nothing_else_is_left():
    scores, features = np.array([0.5, 0.4, 0.0]), np.zeros((3, 1))
    none = np.zeros(3, bool)
    chosen = choose_diverse(scores, features, count=3, known=none, near=lambda _: none)
    assert chosen == [0, 1]


def test_it_is_typed_and_told_as_json(places, capsys):
    assert main(["suggest", places, "--count", "2", "--window", "16", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in document["windows"]] == [1, 2]
