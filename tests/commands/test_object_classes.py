"""Each object has a class, from an annotation to its scores, its measurements and its outline."""

import csv
import json
from importlib.resources import files
from importlib.util import find_spec

import jsonschema
import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Watching
from unetkit.commands.augment.command import augment
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.import_images.command import import_images
from unetkit.commands.info import info
from unetkit.commands.measure import measure
from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import update_attributes
from unetkit.storage.nodes import read_node
from unetkit.storage.object_classes import (
    TOLD,
    ObjectClasses,
    read_object_classes,
    write_object_classes,
)

SCHEMA = json.loads(files("unetkit").joinpath("data/eval.schema.json").read_text())
SHAPE = (20, 30)
NAMES = ("background", "stroma", "tumour")


def feature(box, label, number=None):
    (y0, x0), (y1, x1) = box
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    marks = {"classification": {"name": label}} if label else {}
    marks |= {"name": str(number)} if number else {}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": marks}


def square(y, x, height=4, width=4):
    return (y, x), (y + height, x + width)


@pytest.fixture
def lab(tmp_path):
    """Return a function that imports images with the features of each."""

    def imported(name, *drawn, progress=None, **options):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "shapes").mkdir()
        for number, features in enumerate(drawn):
            pixels = np.random.default_rng(number).integers(0, 255, SHAPE).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{number}.png")
            document = {"type": "FeatureCollection", "features": features}
            (folder / f"shapes/{number}.geojson").write_text(json.dumps(document))
        out = str(tmp_path / f"{name}.zarr")
        given = {"kind": "instances+classes", "progress": progress or Watching(), **options}
        import_images(str(folder / "images"), out, labels=str(folder / "shapes"), **given)
        return out

    return imported


def classes_of(url, number=0):
    found = read_object_classes(open_dataset(url).samples[number].image)
    return dict(zip(found.ids.tolist(), (found.names[n] for n in found.numbers), strict=True))


def rows_of(path):
    with open(path, newline="") as file:  # noqa: PTH123 - as a user would
        return list(csv.DictReader(file))


A, B, C = square(1, 1), square(1, 10), square(10, 1)
TRUTH = [feature(A, "tumour"), feature(B, "tumour"), feature(C, "stroma")]
# A is met, of B three of four columns and one beside it, and C is taken for tumour.
FOUND = [feature(A, "tumour"), feature(square(1, 11), "tumour"), feature(C, "tumour")]


def test_an_outline_becomes_an_object_of_its_class(lab):
    told = Watching()
    url = lab("t", TRUTH, progress=told)
    (sample,) = open_dataset(url).samples
    assert sample.label_kind == "instances"
    assert classes_of(url) == {1: "tumour", 2: "tumour", 3: "stroma"}
    assert sample.labels().read(0, 10, 14, 1, 5).tolist() == [[3] * 4] * 4
    assert "objects by class: stroma 1, tumour 2" in told.notes
    # Viewers read what OME-Zarr says of labels.
    label = read_node(f"{url}/0/labels/instances").attributes["ome"]["image-label"]
    assert label["properties"][2] == {"label-value": 3, "class": "stroma"}
    assert label["source"] == {"image": "../../"}


@pytest.mark.parametrize("given", ["tumour,stroma", "background,tumour,stroma"])
def test_classes_are_in_the_order_that_was_asked_for(given, lab):
    url = lab("t", TRUTH, classes=given)
    names = read_object_classes(open_dataset(url).samples[0].image).names
    assert names == ("background", "tumour", "stroma")


def test_a_description_names_the_classes(lab):
    (sample,) = info(lab("t", TRUTH))["samples"]
    assert sample["object_classes"] == ["stroma", "tumour"]


def test_what_has_no_class_and_what_is_a_mask_is_refused(lab, tmp_path):
    with pytest.raises(LabelError, match=r"of the classes tumour, got no class of shape 2 "):
        lab("a", [feature(A, "tumour"), feature(B, None)])
    with pytest.raises(LabelError, match="of the classes tumour, got the class 'background'"):
        lab("b", [feature(A, "tumour"), feature(B, "background")])
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(tmp_path / "masks/0.png")
    with pytest.raises(UsageError, match="got instances\\+classes; outlines such as GeoJSON"):
        import_images(
            str(tmp_path / "a/images"),
            str(tmp_path / "c.zarr"),
            labels=str(tmp_path / "masks"),
            kind="instances+classes",
        )
    assert not list(tmp_path.glob("*.zarr"))


def test_samples_are_added_with_the_same_classes(lab, tmp_path):
    url = lab("t", TRUTH)
    (tmp_path / "t/images/0.png").rename(tmp_path / "t/images/1.png")
    (tmp_path / "t/shapes/0.geojson").rename(tmp_path / "t/shapes/1.geojson")
    more = {"labels": str(tmp_path / "t/shapes"), "append": True}
    source = str(tmp_path / "t/images")
    with pytest.raises(InputError, match=r"a class as those of .*, got none; .*instances\+classes"):
        import_images(source, url, **more)
    for _ in range(2):  # what is there already is skipped
        report = import_images(source, url, kind="instances+classes", **more)
    assert report.skipped_known == 1
    assert classes_of(url, 1) == classes_of(url, 0)


def test_scores_of_each_class_are_those_of_hand(lab):
    found = lab("p", FOUND, [feature(C, "stroma")])
    truth = lab("t", TRUTH, [feature(C, "stroma")])
    report = evaluate(found, truth, scheduler="sync", bootstrap=0)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    stroma, tumour = report.overall.object_classes
    # Of tumour: IoU 1 and 12/20, and one that is none; of stroma one of two is met.
    assert (tumour.name, tumour.pq, tumour.sq, tumour.rq) == ("tumour", 1.6 / 2.5, 0.8, 2 / 2.5)
    assert (stroma.name, stroma.pq, stroma.sq, stroma.rq) == ("stroma", 1 / 1.5, 1.0, 1 / 1.5)
    counts = [(c.objects_true, c.objects_predicted, c.objects_matched) for c in (stroma, tumour)]
    assert counts == [(2, 1, 1), (2, 3, 2)]
    assert report.overall.mpq == pytest.approx((0.64 + 1 / 1.5) / 2)
    # Image by image: half of 0.64 and nothing, and an image without tumour on either side.
    assert [s.mpq for s in report.samples.values()] == [0.32, 1.0]
    assert report.mean.mpq == pytest.approx(0.66)
    # Whatever the class, all objects are met.
    assert report.overall.pq == pytest.approx(3.6 / 4)
    assert evaluate(truth, truth, scheduler="sync").overall.mpq == 1


def store(path, labels, classes):
    """Store several images with the class of each id."""
    writer = DatasetWriter(str(path))
    for number, one in enumerate(labels):
        writer.add(f"s{number}", np.zeros(one.shape, np.uint8), axes="yx", labels=one)
    writer.finish()
    for sample, of in zip(open_dataset(str(path)).samples, classes, strict=True):
        write_object_classes(
            sample.labels(), ObjectClasses.of_objects(range(1, len(of) + 1), of, NAMES)
        )
    return str(path)


def brute_pq(pairs, number):
    """Take the panoptic quality of a class as the paper has it, object by object."""
    ious, objects = [], 0
    for truth, true_of, found, found_of in pairs:
        own = [n for n in np.unique(truth) if n and true_of[n - 1] == number]
        ours = [n for n in np.unique(found) if n and found_of[n - 1] == number]
        objects += len(own) + len(ours)
        for one in own:
            for other in ours:
                a, b = truth == one, found == other
                if (iou := (a & b).sum() / (a | b).sum()) > 0.5:
                    ious.append(iou)
    return sum(ious) / (objects / 2)


def test_scores_of_each_class_are_those_of_a_search_object_by_object(tmp_path):
    rng = np.random.default_rng(4)
    truths = [np.kron(rng.integers(0, 30, (6, 6)), np.ones((5, 5), int)) for _ in range(6)]
    founds = [np.roll(np.where(rng.random((30, 30)) < 0.1, 0, t), 1, 0) for t in truths]
    # One is not predicted in one piece.
    founds[0][10:20] = np.where(founds[0][10:20] > 0, 29, 0)
    of = [[rng.integers(1, 3, 30) for _ in truths] for _ in range(2)]
    of[1] = [np.where(rng.random(30) < 0.2, b, a) for a, b in zip(*of, strict=True)]
    t = store(tmp_path / "t.zarr", [one.astype(np.uint16) for one in truths], of[0])
    p = store(tmp_path / "p.zarr", [one.astype(np.uint16) for one in founds], of[1])
    report = evaluate(p, t, scheduler="sync", bootstrap=50)
    pairs = list(zip(truths, of[0], founds, of[1], strict=True))
    expected = [brute_pq(pairs, number) for number in (1, 2)]
    found = report.overall
    assert [c.pq for c in found.object_classes] == pytest.approx(expected)
    assert found.mpq == pytest.approx(np.mean(expected))
    each = [np.mean([brute_pq([pair], number) for number in (1, 2)]) for pair in pairs]
    assert report.mean.mpq == pytest.approx(np.mean(each))
    low, high = report.certainty.intervals["mpq"]
    assert low <= found.mpq <= high


def test_classes_meet_by_name_and_without_them_objects_are_compared_alone(lab):
    truth = lab("t", TRUTH)
    other = lab("p", TRUTH, classes="tumour,stroma,vessel")
    assert [c.name for c in evaluate(other, truth).overall.object_classes] == [*NAMES[1:], "vessel"]
    assert evaluate(other, truth).overall.mpq == 1
    plain = lab("q", TRUTH, kind="instances")
    report = evaluate(plain, truth)
    assert (report.overall.pq, report.overall.mpq, report.overall.object_classes) == (1, None, ())
    assert "without their classes: the prediction has none" in report.warnings[0]


def test_a_table_of_objects_and_regions_names_the_class(lab, tmp_path):
    url = lab("t", [*TRUTH, feature(square(10, 20), "tumour")])
    region = [feature(((0, 0), (20, 15)), "left"), feature(((0, 15), (20, 30)), "right")]
    (tmp_path / "r.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": region})
    )
    report = measure(url, region=str(tmp_path / "r.geojson"), pixel_size="2")
    assert [row["class"] for row in rows_of(report.output)] == [
        "tumour", "tumour", "stroma", "tumour",
    ]  # fmt: skip
    rows = [
        (r["region_name"], r["class"], int(r["objects"])) for r in rows_of(report.region_output)
    ]
    assert rows == [
        ("left", "stroma", 1),
        ("left", "tumour", 2),
        ("right", "stroma", 0),
        ("right", "tumour", 1),
    ]
    # 300 pixels of 4 square micrometres.
    assert float(rows_of(report.region_output)[1]["density_per_mm2"]) == pytest.approx(2 / 1.2e-3)


@pytest.mark.parametrize(
    "to",
    [
        "geojson",
        "coco",
        "labelme",
        pytest.param("rois", marks=pytest.mark.skipif(not find_spec("roifile"), reason="absent")),
    ],
)
def test_outlines_name_the_class_and_come_back_with_it(to, lab, tmp_path):
    url = lab("t", TRUTH)
    out = str(tmp_path / ("outlines.json" if to == "coco" else "outlines"))
    export_prediction(url, to=to, output=out)
    again = str(tmp_path / "again.zarr")
    import_images(str(tmp_path / "t/images"), again, labels=out, kind="instances+classes")
    assert classes_of(again) == classes_of(url)


@pytest.mark.parametrize("to", ["tiff", "png"])
def test_what_holds_ids_alone_has_a_table_of_classes_beside_it(to, lab, tmp_path, capsys):
    data = lab("data", [feature(A, "tumour"), feature(B, "stroma")], [feature(C, "tumour")])
    slide = f"{data}/0"
    out = tmp_path / f"s.{to[:3]}"
    progress = Watching()
    report = export_prediction(slide, to=to, output=str(out), progress=progress)
    table = tmp_path / "s.classes.csv"
    rows = {int(row["id"]): row["class"] for row in rows_of(table)}
    assert rows == classes_of(slide)
    drawn = np.array(Image.open(out))
    assert set(np.unique(drawn)) - {0} == set(rows)
    assert report.tables == 1
    assert any("class of each object is in s.classes.csv" in note for note in progress.notes)
    # What is there stays, unless it is ours and is to be replaced.
    out.unlink()
    with pytest.raises(OutputError, match="must not exist yet"):
        export_prediction(slide, to=to, output=str(out))
    assert not out.exists()
    table.write_text("mine")
    with pytest.raises(OutputError):
        export_prediction(slide, to=to, output=str(out), overwrite=True)
    assert table.read_text() == "mine"
    folder = tmp_path / "all"
    assert export_prediction(data, to=to, output=str(folder)).tables == 2
    for name in "01":
        rows = {int(row["id"]): row["class"] for row in rows_of(folder / f"{name}.classes.csv")}
        assert rows == classes_of(data, int(name))
    # Outlines name the class, and class maps have no objects.
    assert export_prediction(slide, to="geojson", output=str(tmp_path / "o.geojson")).tables == 0


def test_each_error_tells_the_true_and_the_predicted_class(lab, tmp_path):
    truth = lab("truth", [feature(A, "tumour"), feature(B, "stroma"), feature(C, "tumour")])
    other = square(10, 20)
    found = lab("found", [feature(A, "stroma"), feature(B, "stroma"), feature(other, "tumour")])
    table, page = tmp_path / "o.csv", tmp_path / "r.html"
    evaluate(found, truth, objects=str(table), report=str(page), bootstrap=0)
    told = {
        (row["side"], row["centroid_y"], row["centroid_x"]): (
            row["kind"], row["true_class"], row["predicted_class"],
        )
        for row in rows_of(table)
    }  # fmt: skip
    a, b, c, d = ("2.5", "2.5"), ("2.5", "11.5"), ("11.5", "2.5"), ("11.5", "21.5")
    assert told == {
        ("truth", *a): ("match", "tumour", "stroma"),
        ("truth", *b): ("match", "stroma", "stroma"),
        ("truth", *c): ("miss", "tumour", ""),
        ("prediction", *a): ("match", "tumour", "stroma"),
        ("prediction", *b): ("match", "stroma", "stroma"),
        ("prediction", *d): ("false", "", "tumour"),
    }
    content = page.read_text()
    start = content.index('{"', content.index("data"))
    data, _ = json.JSONDecoder().raw_decode(content[start:])
    assert data["confusion"] == {
        "classes": ["stroma", "tumour"],
        "matches": [[1, 0], [1, 0]],
        "missed": [0, 1],
        "false": [0, 1],
    }
    # The one of another class is among those to look at, once.
    seen = [(one["kind"], one["true_class"], one["predicted_class"]) for one in data["objects"]]
    assert sorted(seen, key=str) == [
        ("false", None, "tumour"), ("match", "tumour", "stroma"), ("miss", "tumour", None),
    ]  # fmt: skip


def test_copies_keep_the_classes(lab, tmp_path):
    url = lab("t", TRUTH)
    augment(url, str(tmp_path / "more.zarr"), copies=1, sigma=1.0, scheduler="sync")
    for number in range(2):
        assert classes_of(str(tmp_path / "more.zarr"), number) == classes_of(url)


def test_a_million_objects_are_no_burden_to_who_opens_them(tmp_path):
    labels = np.arange(1, 1_000_001, dtype=np.uint32).reshape(1000, 1000)
    numbers = 1 + labels.ravel() % 2
    url = store(tmp_path / "t.zarr", [labels], [numbers])
    document = tmp_path / "t.zarr/s0/labels/instances/zarr.json"
    assert document.stat().st_size < 10_000
    found = read_object_classes(open_dataset(url).samples[0].image)
    np.testing.assert_array_equal(found.of(labels.ravel()), numbers)
    assert found.of(np.array([0, 1_000_001])).tolist() == [0, 0]
    assert len(numbers) > TOLD


@pytest.mark.parametrize(("ids", "numbers"), [([3, 2], [1, 1]), ([1, 2], [1, 3]), ([1, 2], [0, 1])])
def test_a_table_that_can_not_be_right_is_refused(ids, numbers, tmp_path):
    url = store(tmp_path / "t.zarr", [np.ones((4, 4), np.uint8)], [[1]])
    (sample,) = open_dataset(url).samples
    more = ObjectClasses(np.array(ids), np.array(numbers), (*NAMES, "vessel"))
    write_object_classes(sample.labels(), more)
    update_attributes(f"{url}/s0/labels/instances", object_classes=list(NAMES))
    with pytest.raises(InputError, match="rows of ids and of classes below 3, each id once"):
        measure(url)
