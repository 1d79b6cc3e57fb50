"""A sample of objects is judged: which ones, how they are drawn, and what their faults say."""

import base64
import io
import json
import re
from collections import Counter
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label, regionprops

from tests.commands.conftest import noise_image
from tests.commands.test_measure_regions import centroid_pixel
from unetkit.commands.review import VERDICTS, review
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.engine import block_io
from unetkit.errors import InputError, MissingError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.views.drawing import to_grey8

RNG = np.random.default_rng(18)
# Ids with gaps, in pieces, some of one pixel, and some at the rim.
CELLS = label(RNG.random((150, 170)) < 0.35, connectivity=1).astype(np.uint32) * 3
TISSUE = np.kron(RNG.integers(0, 4, (15, 17)), np.ones((10, 10), int)).astype(np.uint8)


def store(path, labels=CELLS, *, chunk=64, seed=0):
    """Store labels with an image of noise below them."""
    data = create_image(str(path), shape=labels.shape, axes="yx", dtype="u1", chunk=chunk)
    noise = np.random.default_rng(seed).integers(0, 255, labels.shape).astype(np.uint8)
    data.write(0, 0, 0, noise[None])
    to = create_labels(
        str(path), "instances", shape=labels.shape, axes="yx", dtype=labels.dtype, chunk=chunk
    )
    to.write(0, 0, 0, labels)
    return str(path)


def page_of(report):
    """Return what is inside a page."""
    with open(report.output, encoding="utf-8") as file:  # noqa: PTH123 - as a user would
        found = re.search(r'id="data">(.*?)</script>', file.read(), re.DOTALL)
    return json.loads(found[1])


def judged(report, path, verdict):
    """Judge a page by a function of its objects, and save it as the page does."""
    record = page_of(report)["record"]
    for one in record["objects"]:
        one["verdict"], one["missed"] = verdict(one)
    path.write_text(json.dumps(record))
    return str(path)


def right(_one):
    return "right", 0


def of_kind(rates, kind):
    return next(rate for rate in rates.rates if rate.kind == kind)


def drawn(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(("chunk", "block", "scheduler"), [(16, 32, "threads"), (200, 64, "sync")])
def test_the_same_objects_are_drawn_in_any_chunks(tmp_path, monkeypatch, chunk, block, scheduler):
    first = page_of(review(store(tmp_path / "a.zarr"), count=40, seed=3))
    monkeypatch.setattr(block_io, "BLOCK", block)
    other = store(tmp_path / "b.zarr", chunk=chunk)
    again = page_of(review(other, count=40, seed=3, scheduler=scheduler))
    objects = first["record"]["objects"]
    bare = [{k: v for k, v in one.items() if k != "sample"} for one in objects]
    assert bare == [
        {k: v for k, v in one.items() if k != "sample"} for one in again["record"]["objects"]
    ]
    assert first["pictures"] == again["pictures"]
    assert first["record"]["population"] == again["record"]["population"]
    known = {one.label: one for one in regionprops(CELLS)}
    for one in objects:
        true = known[one["id"]]
        assert (one["area"], tuple(one["box"])) == (true.area, true.bbox)
        assert (one["y"], one["x"]) == centroid_pixel(true.coords)
    more = page_of(review(other, count=60, seed=3, output=str(tmp_path / "c.html")))
    assert [one["id"] for one in more["record"]["objects"]][:40] == [one["id"] for one in objects]
    assert len({one["id"] for one in more["record"]["objects"]}) == 60


def test_a_picture_shows_the_image_around_the_object_and_all_outlines(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, CELLS.shape).astype(np.uint8)
    found = page_of(review(store(tmp_path / "a.zarr"), count=20))
    for one, picture in zip(found["record"]["objects"], found["pictures"], strict=True):
        pixels = drawn(picture["image"])
        assert pixels.shape == (picture["height"], picture["width"]) == (64, 64)
        top = max(0, min((one["box"][0] + one["box"][2] - 64) // 2, 150 - 64))
        left = max(0, min((one["box"][1] + one["box"][3] - 64) // 2, 170 - 64))
        near = np.s_[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(pixels, to_grey8(image[near][None]))
        edges = {"h": 0, "v": 0}
        for way, length in re.findall(r"([hv])(\d+)", picture["own"]):
            edges[way] += int(length)
        own = CELLS[near] == one["id"]
        assert edges == {
            "h": int((own[1:] != own[:-1]).sum()),
            "v": int((own[:, 1:] != own[:, :-1]).sum()),
        }


def test_ids_and_seeds_that_no_browser_holds_are_texts(tmp_path):
    ids = CELLS[:20, :20].astype(np.uint64)
    ids[ids > 0] += 2**63
    path = store(tmp_path / "a.zarr", ids)
    page = review(path, count=4, seed=2**60 + 1)
    # What JavaScript makes of a number that it can't hold.
    file = judged(page, tmp_path / "j.json", right)
    text = json.dumps(json.loads((tmp_path / "j.json").read_text(), parse_int=float))
    (tmp_path / "j.json").write_text(re.sub(r"(\d)\.0\b", r"\1", text))
    assert review(path, score=file).overall.judged == 4


def test_large_objects_and_images_of_another_scale_are_drawn_small(tmp_path):
    big = np.zeros((900, 700), np.uint8)
    big[100:800, 50:650] = 7
    picture = page_of(review(store(tmp_path / "a.zarr", big)))["pictures"][0]
    assert (picture["factor"], picture["height"], picture["width"]) == (4, 900, 700)
    assert drawn(picture["image"]).shape == (225, 175)
    half = create_image(str(tmp_path / "half.zarr"), shape=(75, 85), axes="yx", dtype="u1")
    half.write(0, 0, 0, CELLS[::2, ::2].astype(np.uint8)[None])
    found = page_of(review(store(tmp_path / "b.zarr"), count=5, image=str(tmp_path / "half.zarr")))
    for one in found["pictures"]:
        assert -2 < one["y"] <= 0
        assert -2 < one["x"] <= 0
        assert one["y"] + one["high"] >= one["height"]
        assert drawn(one["image"]).shape == (one["high"] / 2, one["wide"] / 2)


# Seconds, since each of the hundred slides is drawn from, judged and scored as by a user.
def test_the_interval_covers_the_true_rate_of_simulated_slides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    squares = np.kron(np.arange(1, 50).reshape(7, 7), np.pad(np.ones((2, 2), int), 1))
    store("a.zarr", squares.astype(np.uint8))
    (covered, off), slides = (0, 0.0), 100
    for seed in range(slides):
        truth = rng.random(50) < rng.random()
        page = review("a.zarr", count=16, seed=seed, overwrite=True, scheduler="sync")
        file = judged(page, tmp_path / "j.json", lambda o, t=truth: (VERDICTS[2 * t[o["id"]]], 0))
        found = of_kind(review("a.zarr", score=file, scheduler="sync").overall, "merged")
        true = truth[1:].mean()
        covered += found.low <= true <= found.high
        off += found.share - true
    assert covered >= 95
    # By chance alone, since every object is as likely to be drawn as any other.
    assert abs(off / slides) < 3 * 0.09 / slides**0.5


def test_every_object_is_drawn_equally_often(tmp_path):
    path, counts = store(tmp_path / "a.zarr", CELLS[:12, :12]), Counter()
    for seed in range(60):
        objects = page_of(review(path, count=3, seed=seed, overwrite=True, scheduler="sync"))
        counts.update(one["id"] for one in objects["record"]["objects"])
    there = np.count_nonzero(np.unique(CELLS[:12, :12]))
    expected = 180 / there
    spread = sum((counts[n] - expected) ** 2 for n in np.unique(CELLS[:12, :12]) if n) / expected
    assert spread < there + 4 * (2 * there) ** 0.5


def test_all_objects_judged_leave_no_doubt_and_some_leave_as_much_as_said(tmp_path):
    few = CELLS[:30, :30]
    path, there = store(tmp_path / "a.zarr", few), len(np.unique(few)) - 1
    page = review(path, count=5000)
    assert page.drawn == page.objects == there
    assert page.warnings == (f"there are only {there:,} objects, which are all to be judged",)
    faults = iter(["split"] * 3 + ["not an object"] * 2)
    file = judged(page, tmp_path / "j.json", lambda _: (next(faults, "right"), 2))
    found = review(path, score=file)
    assert (found.overall.judged, found.overall.missed, found.warnings) == (there, 2 * there, ())
    shares = {rate.kind: (rate.objects, rate.low) for rate in found.overall.rates}
    assert shares["split"] == (3, 3 / there)
    assert shares["missed beside it"] == (there, 1.0)
    assert all(rate.low == rate.share == rate.high for rate in found.overall.rates)
    count = iter(range(there))
    file = judged(
        page, tmp_path / "k.json", lambda _: ("right", 0) if 3 < next(count) < 9 else (None, 0)
    )
    half = review(path, score=file)
    assert (half.overall.judged, half.drawn) == (5, there)
    assert "5 of" in half.warnings[0]
    assert "4 objects were passed over" in half.warnings[1]


def test_regions_have_the_rates_of_their_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(block_io, "BLOCK", 64)
    path = store(tmp_path / "a.zarr")
    tifffile.imwrite(tmp_path / "r.tif", TISSUE)
    page = review(path, count=60)
    file = judged(page, tmp_path / "j.json", lambda o: (VERDICTS[o["id"] % 4], 0))
    found = review(path, score=file, region=str(tmp_path / "r.tif"))
    at = {one.label: TISSUE[centroid_pixel(one.coords)] for one in regionprops(CELLS)}
    chosen = [one["id"] for one in page_of(page)["record"]["objects"]]
    assert [one.place["region"] for one in found.regions] == [1, 2, 3]
    for one in found.regions:
        region = one.place["region"]
        assert one.objects == sum(where == region for where in at.values())
        own = [n for n in chosen if at[n] == region]
        assert one.judged == len(own)
        assert [rate.objects for rate in one.rates[:4]] == [
            sum(n % 4 == verdict for n in own) for verdict in range(4)
        ]
        assert all(rate.low <= rate.share <= rate.high for rate in one.rates)


@pytest.fixture
def predicted(slide, kit):
    """Return a prediction of slide.zarr."""
    tile_predict(slide, tile=16, scheduler="sync", device="cpu", precision="exact")
    return "slide.prediction.zarr"


def test_the_image_of_a_prediction_is_found_beside_it_or_told(predicted, tmp_path):
    found = page_of(review(predicted, count=5))
    assert found["command"] == (
        "unetkit review slide.prediction.zarr --score slide.prediction.judged.json"
    )
    (tmp_path / "slide.zarr").rename(tmp_path / "away.zarr")
    with pytest.raises(MissingError, match=r"got no 'slide.zarr' there; say where it is with"):
        review(predicted, count=5, overwrite=True)
    again = page_of(review(predicted, count=5, overwrite=True, image="away.zarr"))
    assert again["pictures"] == found["pictures"]
    noise_image(tmp_path / "other.zarr", (64, 90))
    with pytest.raises(InputError, match="got 1 x 64 x 60 and 1 x 64 x 90 planes, rows and"):
        review(predicted, count=5, overwrite=True, image="other.zarr")


@pytest.mark.parametrize("how", ["dataset", "in place", "of the model's size"])
def test_the_image_of_every_kind_of_prediction_is_found(slide, kit, how):
    source, options = slide, {}
    if how == "dataset":
        source = kit.cells("cells.zarr")
    elif how == "in place":
        options["in_place"] = True
    else:
        options |= {"scale": 0.5, "at": "model"}
    made = tile_predict(source, tile=16, scheduler="sync", device="cpu", **options)
    page = review(made.output, count=10**4, output="r.html")
    assert page.objects == made.objects > 1
    images = {one.name: one.data for one in open_dataset(source).samples}
    found = page_of(page)
    for one, picture in zip(found["record"]["objects"], found["pictures"], strict=True):
        image = images[one["sample"]] if len(images) > 1 else next(iter(images.values()))
        scale = image.height / open_dataset(made.output).samples[0].labels("instances").height
        # Images and windows are so small that every picture is of the whole.
        assert (picture["y"], picture["x"]) == (0, 0)
        np.testing.assert_array_equal(drawn(picture["image"]), to_grey8(kit.read(image)))
        assert picture["high"] * scale == image.height


def test_what_was_judged_belongs_to_its_objects(predicted, tmp_path):
    file = judged(review(predicted, count=9), tmp_path / "j.json", right)
    assert of_kind(review(predicted, score=file).overall, "right").share == 1
    # The same pixels in other tiles, or under another name.
    tile_predict("slide.zarr", output="b.zarr", tile=32, device="cpu", precision="exact")
    assert review("b.zarr", score=file).overall.judged == 9
    tile_predict("slide.zarr", output="c.zarr", tile=16, device="cpu", threshold=0.4)
    with pytest.raises(InputError, match=r"must be of the objects of c.zarr, got those of 'slide"):
        review("c.zarr", score=file)


def test_objects_that_were_changed_are_others(tmp_path):
    file = judged(review(store(tmp_path / "a.zarr"), count=9), tmp_path / "j.json", right)
    one = json.loads((tmp_path / "j.json").read_text())["objects"][4]
    grown = CELLS.copy()
    y0, x0, y1, x1 = one["box"]
    grown[y0 : y1 + 1, x0 : x1 + 1] = one["id"]
    with pytest.raises(InputError, match="judge a new page"):
        review(store(tmp_path / "b.zarr", grown), score=file)


def sampled(path, names):
    writer = DatasetWriter(str(path))
    for number, name in enumerate(names):
        cells = CELLS[30 * number : 30 * number + 60]
        parts = {} if name == "bare" else {"labels": cells}
        writer.add(name, (cells % 200).astype(np.uint8), axes="yx", **parts)
    writer.finish()
    return str(path)


def test_a_dataset_is_sampled_as_one_and_told_sample_by_sample(tmp_path):
    path = sampled(tmp_path / "d.zarr", ["a", "bare", "b", "c"])
    page = review(path, count=30)
    assert page.warnings == (f"'bare' of {path} have no instances and are left out",)
    record = page_of(page)["record"]
    counts = {one["name"]: one["objects"] for one in record["samples"]}
    assert list(counts) == ["a", "b", "c"]
    assert page.objects == sum(counts.values())
    file = judged(page, tmp_path / "j.json", lambda o: (VERDICTS[o["sample"] == "b"], 0))
    found = review(path, score=file)
    assert [(one.place["name"], one.objects) for one in found.samples] == list(counts.items())
    assert [of_kind(one, "right").share for one in found.samples] == [1, 0, 1]
    assert sum(one.judged for one in found.samples) == 30


def test_planes_and_plates_are_sampled_too(tmp_path, kit):
    shape = (3, 40, 44)
    data = create_image(str(tmp_path / "z.zarr"), shape=shape, axes="zyx", dtype="u1")
    labels = create_labels(
        str(tmp_path / "z.zarr"), "instances", shape=shape, axes="zyx", dtype="u4"
    )
    for plane in range(3):
        data.write(plane, 0, 0, np.zeros((1, 40, 44), np.uint8))
        labels.write(plane, 0, 0, CELLS[:40, 20 * plane : 20 * plane + 44])
    found = page_of(review(str(tmp_path / "z.zarr"), count=30))
    assert {one["plane"] for one in found["record"]["objects"]} == {0, 1, 2}
    assert found["planes"] == 3
    plate = kit.plate(tmp_path / "p.zarr", labels="nuclei")
    page = review(plate, labels="nuclei", count=8)
    assert (page.objects, page.samples) == (8, 4)
    file = judged(page, tmp_path / "j.json", right)
    assert len(review(plate, score=file).samples) == 4


def verdicts(record, verdict):
    objects = [one | {"verdict": verdict} for one in record["objects"]]
    return json.dumps({**record, "objects": objects}).encode()


EDITS = {
    "got something else; open the page": [
        lambda _: b"", lambda _: b"{", lambda _: b"[" * 10_000, lambda _: b"[1]",
        lambda record: json.dumps({**record, "unetkit": "0.1"}).encode(),
    ],
    "must be of version 1, got 2; score it": [
        lambda record: json.dumps({**record, "version": 2}).encode()
    ],
    "got objects that were changed since; open the page": [
        lambda record: json.dumps({**record, "seed": 4}).encode(),
        lambda record: json.dumps({**record, "objects": record["objects"][1:]}).encode(),
        lambda record: json.dumps({**record, "objects": 3}).encode(),
        lambda record: json.dumps({**record, "objects": [[]]}).encode(),
        lambda record: json.dumps({k: v for k, v in record.items() if k != "labels"}).encode(),
    ],
    "object 1 of .* must be judged right, split, merged, not an object or not at all": [
        partial(verdicts, verdict=bad) for bad in ("fine", 1, [], {})
    ],
    "must hold judged objects, got none of 4": [partial(verdicts, verdict=None)],
}  # fmt: skip


@pytest.mark.parametrize("words", EDITS)
def test_foreign_and_edited_files_are_refused_in_a_sentence(tmp_path, words):
    path = store(tmp_path / "a.zarr")
    judged(review(path, count=4), tmp_path / "j.json", right)
    record = json.loads((tmp_path / "j.json").read_text())
    for edit in EDITS[words]:
        (tmp_path / "k.json").write_bytes(edit(record))
        with pytest.raises(InputError, match=words) as caught:
            review(path, score=str(tmp_path / "k.json"))
        assert "\n" not in str(caught.value)


def test_what_can_not_be_reviewed_is_refused(tmp_path, kit):
    classes = kit.cells(tmp_path / "classes.zarr", kind="classes")
    with pytest.raises(InputError, match="must have labels of the kind 'instances', got classes"):
        review(classes)
    with pytest.raises(InputError, match="must have objects to be judged, got none"):
        review(store(tmp_path / "empty.zarr", CELLS * 0))
    path = store(tmp_path / "a.zarr")
    assert list(tmp_path.glob("*.html")) == []
    review(path, count=2)
    with pytest.raises(OutputError, match="add --overwrite"):
        review(path, count=2)
    with pytest.raises(UsageError, match="count must lie in 1 to 10,000, got 0"):
        review(path, count=0)
    with pytest.raises(UsageError, match="must be given to score what was judged"):
        review(path, region="r.tif")
    with pytest.raises(UsageError, match="count and image must be given to make a page"):
        review(path, score="j.json", count=3, image="b.zarr")
