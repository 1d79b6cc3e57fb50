"""Corrected windows become judged samples: the same ones whatever program drew the labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tests.commands.conftest import tiny_model
from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.import_images.command import import_images
from unetkit.commands.import_images.corrections import correct
from unetkit.commands.import_images.windows import Window, joined_windows
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.object_classes import (
    ObjectClasses,
    read_object_classes,
    write_object_classes,
)

SIZE = (90, 110)


def discs(size=SIZE, *, seed=0, count=14, radius=6):
    """Draw objects that may touch and reach over the border, numbered at random."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    labels = np.zeros(size, np.uint16)
    for number in rng.permutation(np.arange(1, count + 1)) * 7:
        cy, cx = rng.integers(0, size[0]), rng.integers(0, size[1])
        labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return labels


def files_of(store):
    """Read every byte of a store, by place."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """Predict a slide of two channels that has a pixel size."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).integers(0, 60000, (2, *SIZE), np.uint16)
    tifffile.imwrite("slide.tif", noise, photometric="minisblack")
    import_images("slide.tif", "slide.zarr", axes="cyx", pixel_size="0.5,0.25")
    tile_predict(
        "slide.zarr",
        model=[tiny_model("m.safetensors", channels=2)],
        scheduler="sync",
        device="cpu",
        precision="exact",
        tile=32,
    )
    return "slide.prediction.zarr"


def traced(labels, to, name):
    """Write labels as another program's file of outlines, through an image of these labels."""
    image = np.zeros(labels.shape, np.uint8)
    tifffile.imwrite("labels.tif", labels)
    tifffile.imwrite("traced.tif", image)
    import_images("traced.tif", "traced.zarr", labels="labels.tif", overwrite=True)
    export_prediction("traced.zarr/traced", to=to, output=name)
    return name


def expected(labels, image, window, context):
    """Cut a window out by plain indexing, and number its objects one by one."""
    y0, y1, x0, x1 = window
    top, left = max(0, y0 - context), max(0, x0 - context)
    bottom, right = min(SIZE[0], y1 + context), min(SIZE[1], x1 + context)
    judged = np.zeros(SIZE, bool)
    judged[y0:y1, x0:x1] = True
    inside = set(labels[judged].tolist()) - {0}
    numbers, part = {}, np.zeros((bottom - top, right - left), int)
    for y in range(top, bottom):
        for x in range(left, right):
            if labels[y, x] in inside:
                part[y - top, x - left] = numbers.setdefault(labels[y, x], len(numbers) + 1)
    return image[:, top:bottom, left:right], part, ~judged[top:bottom, left:right]


@pytest.mark.parametrize("context", [0, 13, 500])
def test_windows_are_cut_with_their_surroundings_and_nothing_else_is_judged(slide, context):
    labels = discs()
    tifffile.imwrite("edited.tif", labels)
    windows = [(0, 30, 0, 40), (50, 90, 60, 110)]
    judged = ["0:30,0:40", "50:90,60:110"]
    report = correct(slide, edited="edited.tif", judged=judged, context=context)
    image = tifffile.imread("slide.tif")
    found = open_dataset("corrections.zarr")
    assert report.samples == found.names == ("slide-y0-x0", "slide-y50-x60")
    for sample, window in zip(found.samples, windows, strict=True):
        pixels, numbers, ignored = expected(labels, image, window, context)
        assert np.array_equal(np.asarray(sample.data), pixels)
        assert np.array_equal(np.asarray(sample.labels()), numbers)
        assert np.array_equal(np.asarray(sample.ignore) != 0, ignored)
        assert sample.source == "slide"
        assert sample.image.pixel_size == {"y": 0.5, "x": 0.25}
    objects = [len(np.unique(labels[a:b, c:d])) - 1 for a, b, c, d in windows]
    assert report.objects == sum(objects)
    assert report.judged_pixels == 30 * 40 + 40 * 50


def test_every_way_of_drawing_gives_the_same_bytes(slide):
    labels = discs(seed=3)
    tifffile.imwrite("edited.tif", labels)
    zarr.save_array("layer.zarr", labels)
    noise = np.zeros(SIZE, np.uint8)
    DatasetWriter("more.zarr").add("slide", noise, axes="yx", labels=labels)
    traced(labels, "geojson", "edited.geojson")
    traced(labels, "rois", "edited.zip")
    kinds = ["edited.tif", "layer.zarr", "edited.geojson", "edited.zip"]
    found = []
    for number, edited in enumerate(kinds):
        out = f"c{number}.zarr"
        correct(slide, edited=edited, judged=["20:70,10:80"], output=out, context=16)
        found.append(files_of(out))
    assert len(found[0]) > 5
    assert all(one == found[0] for one in found[1:])


def test_shapes_of_a_class_say_what_was_judged(slide):
    labels = discs(seed=5)
    path = Path(traced(labels, "geojson", "edited.geojson"))
    document = json.loads(path.read_text())
    ring = [[10, 10], [60, 10], [60, 50], [10, 10]]
    region = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "type": "Feature"}
    region["properties"] = {"classification": {"name": "seen"}}
    document["features"].append(region)
    path.write_text(json.dumps(document))
    correct(slide, edited=str(path), judged=["seen"], context=5)
    (sample,) = open_dataset("corrections.zarr").samples
    assert sample.name == "slide-y10-x10"
    judged = np.asarray(sample.ignore) == 0
    assert judged.shape == (50, 60)
    # Half of a box of 40 x 50; the other half was not judged.
    assert 900 < judged.sum() < 1100
    assert judged[5:45, 5:55].sum() == judged.sum()
    inside = labels[5:55, 5:65]
    kept = np.isin(inside, np.unique(inside[judged])) & (inside > 0)
    assert np.array_equal(np.asarray(sample.labels()) > 0, kept)


def test_what_is_not_as_predicted_is_counted(slide, kit):
    before = np.asarray(open_dataset(slide).samples[0].labels("instances"))
    tifffile.imwrite("same.tif", before)
    same = correct(slide, edited="same.tif", judged=["0:90,0:110"], output="same.zarr")
    assert (same.objects, same.changed, same.removed) == (len(np.unique(before)) - 1, 0, 0)
    edited = before.copy()
    lost, cut = np.unique(before[before > 0])[:2]
    edited[before == lost] = 0
    edited[np.unravel_index((before == cut).argmax(), SIZE)] = 0
    tifffile.imwrite("edited.tif", edited)
    watching = kit.watching()
    options = {"judged": ["0:90,0:110"], "output": "c.zarr", "progress": watching}
    report = correct(slide, edited="edited.tif", **options)
    words = f"{report.changed} of them new, or of another outline by a pixel or more"
    assert any(words in note for note in watching.notes)
    assert report.objects == len(np.unique(edited)) - 1
    assert report.changed == int((edited == cut).any())
    assert report.removed == 1 + int(not (edited == cut).any())


def test_more_windows_are_added_and_known_ones_skipped(slide):
    tifffile.imwrite("edited.tif", discs(seed=6))
    told = {"edited": "edited.tif", "append": True}
    correct(slide, edited="edited.tif", judged=["0:40,0:40"])
    before = files_of("corrections.zarr/slide-y0-x0")
    report = correct(slide, judged=["0:40,0:40", "50:80,0:40"], **told)
    assert (report.samples, report.skipped_known) == (("slide-y50-x0",), 1)
    assert open_dataset("corrections.zarr").names == ("slide-y0-x0", "slide-y50-x0")
    assert files_of("corrections.zarr/slide-y0-x0") == before
    tifffile.imwrite("edited.tif", discs(seed=7))
    with pytest.raises(OutputError, match="got 'slide-y0-x0', which meets 'slide-y0-x0'"):
        correct(slide, judged=["0:40,0:40"], **told)
    with pytest.raises(OutputError, match="must not exist yet"):
        correct(slide, edited="edited.tif", judged=["0:40,0:40"])
    with pytest.raises(InputError, match="must have the channels of"):
        correct(slide, judged=["60:70,60:90"], channels="0", **told)


def test_a_window_that_meets_an_earlier_one_is_refused_and_one_beside_it_is_not(slide):
    tifffile.imwrite("edited.tif", discs(seed=6))
    told = {"edited": "edited.tif", "append": True}
    correct(slide, edited="edited.tif", judged=["0:40,0:40"])
    before = files_of("corrections.zarr")
    for judged, context in (("39:80,30:70", None), ("10:20,10:20", 0), ("0:90,39:110", 3)):
        words = r"which meets 'slide-y0-x0' of .*'unetkit remove corrections.zarr slide-y0-x0'"
        with pytest.raises(OutputError, match=words):
            correct(slide, judged=[judged, "85:90,0:5"], context=context, **told)
    assert files_of("corrections.zarr") == before
    # What lies around a window may be another's.
    correct(slide, judged=["40:80,0:40", "0:30,40:70"], context=30, **told)
    assert len(open_dataset("corrections.zarr").names) == 3


def test_two_images_of_one_name_are_told_apart(slide):
    tifffile.imwrite("edited.tif", discs(seed=6))
    told = {"edited": "edited.tif", "judged": ["0:40,0:40"]}
    correct(slide, **told)
    before = files_of("corrections.zarr")
    Path("other").mkdir()
    noise = np.random.default_rng(2).integers(0, 60000, (2, *SIZE), np.uint16)
    tifffile.imwrite("other.tif", noise, photometric="minisblack")
    import_images("other.tif", "other/slide.zarr", axes="cyx", pixel_size="0.5,0.25")
    shutil.copytree(slide, f"other/{slide}")
    told = {**told, "append": True}
    with pytest.raises(OutputError, match=r"of another image, .*rename the image, and .* --image"):
        correct(f"other/{slide}", **told)
    assert files_of("corrections.zarr") == before
    Path("other/slide.zarr").rename("other/second.zarr")
    assert correct(f"other/{slide}", image="other/second.zarr", **told).samples == ("second-y0-x0",)
    # No pixel of the other slide is that of the first, wherever their windows lie.
    Path("other/second.zarr").rename("other/slide.zarr")
    assert correct(f"other/{slide}", **{**told, "judged": ["20:60,20:60"]}).samples == (
        "slide-y20-x20",
    )


def test_windows_that_overlap_are_one(slide):
    tifffile.imwrite("edited.tif", discs(seed=8))
    correct(slide, edited="edited.tif", judged=["0:40,0:40", "30:60,30:70"], context=0)
    (sample,) = open_dataset("corrections.zarr").samples
    judged = np.zeros((60, 70), bool)
    judged[:40, :40] = judged[30:, 30:] = True
    assert np.array_equal(np.asarray(sample.ignore) == 0, judged)


def test_a_sample_of_a_dataset_keeps_its_source_and_group(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).integers(0, 60000, (2, *SIZE), np.uint16)
    writer = DatasetWriter("data.zarr")
    for name in "ab":
        writer.add(name, noise[0], axes="yx", source=f"scan-{name}", group="mouse 1")
    writer.finish()
    tile_predict("data.zarr", model=[tiny_model("m.safetensors")], scheduler="sync", device="cpu")
    tifffile.imwrite("edited.tif", discs())
    told = {"edited": "edited.tif", "judged": ["0:40,0:40"]}
    with pytest.raises(
        InputError, match=r"must be of one image, got 2 in data\.prediction\.zarr; "
    ):
        correct("data.prediction.zarr", **told)
    correct("data.prediction.zarr/b", **told)
    (sample,) = open_dataset("corrections.zarr").samples
    assert (sample.name, sample.source, sample.group) == ("b-y0-x0", "scan-b", "mouse 1")


@pytest.mark.parametrize(
    ("seen", "kept", "told"),
    [("1,0", None, False), ("1,0", "1,0", True), (None, "1,0", False), (None, "0,1", True)],
)
def test_intensities_are_told_of_the_channels_that_were_seen(slide, seen, kept, told):
    asked = {"scheduler": "sync", "device": "cpu", "output": "other.zarr", "channels": seen}
    tile_predict("slide.zarr", model=["m.safetensors"], **asked)
    tifffile.imwrite("edited.tif", discs())
    correct("other.zarr", edited="edited.tif", judged=["0:40,0:40"], channels=kept)
    (sample,) = open_dataset("corrections.zarr").samples
    assert ("image_normalization" in sample.image.attributes) is told


def test_planes_are_kept_as_far_as_they_were_judged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).integers(0, 60000, (4, *SIZE), np.uint16)
    tifffile.imwrite("stack.tif", noise, photometric="minisblack")
    import_images("stack.tif", "stack.zarr", axes="zyx")
    model = [tiny_model("m.safetensors")]
    tile_predict("stack.zarr", model=model, scheduler="sync", device="cpu")
    labels = np.stack([discs(seed=n) for n in range(4)])
    tifffile.imwrite("edited.tif", labels, photometric="minisblack")
    correct("stack.prediction.zarr", edited="edited.tif", judged=["20:60,20:60"], context=8)
    (sample,) = open_dataset("corrections.zarr").samples
    assert np.array_equal(np.asarray(sample.data), noise[:, 12:68, 12:68])
    numbers = np.asarray(sample.labels())
    inner = slice(8, 48)
    for own, drawn in zip(numbers, labels, strict=True):
        pairs = np.stack([own[inner, inner], drawn[20:60, 20:60]]).reshape(2, -1)
        assert len({a for a, _ in pairs.T.tolist()}) == len(set(map(tuple, pairs.T.tolist())))
    # Numbers run on over the planes, as instances do.
    ids = [set(np.unique(plane[plane > 0]).tolist()) for plane in numbers]
    assert sorted(n for plane in ids for n in plane) == list(range(1, sum(map(len, ids)) + 1))
    features = [
        {"geometry": {"type": "Polygon", "coordinates": [ring], "plane": {"z": 2}}}
        for ring in ([[0, 0], [40, 0], [40, 30], [0, 30], [0, 0]], [[5, 5], [9, 5], [9, 9], [5, 5]])
    ]
    for feature, name in zip(features, ("seen", "cell"), strict=True):
        feature |= {"type": "Feature", "properties": {"classification": {"name": name}}}
    Path("e.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    correct("stack.prediction.zarr", edited="e.geojson", judged=["seen"], output="c.zarr")
    (sample,) = open_dataset("c.zarr").samples
    assert sample.name == "stack-z2-y0-x0"
    assert (sample.data.axes, sample.data.size("z")) == ("zyx", 1)
    assert np.array_equal(
        np.asarray(sample.data)[0], noise[2, : sample.data.height, :][:, : sample.data.width]
    )
    assert (np.asarray(sample.ignore) == 0).sum() == 30 * 40


def test_classes_are_those_of_the_prediction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).integers(0, 60000, SIZE, np.uint16)
    tifffile.imwrite("slide.tif", noise)
    import_images("slide.tif", "slide.zarr")
    names = ("background", "axon", "myelin")
    model = [tiny_model("m.safetensors", classes=names, target="classes")]
    tile_predict("slide.zarr", model=model, scheduler="sync", device="cpu")
    drawn = (discs() % 3).astype(np.uint8)
    tifffile.imwrite("edited.tif", drawn)
    told = {"judged": ["20:60,30:90"], "context": 4}
    correct("slide.prediction.zarr", edited="edited.tif", **told)
    (sample,) = open_dataset("corrections.zarr").samples
    assert (sample.label_kind, sample.class_names) == ("classes", names)
    inside = np.zeros((48, 68), np.uint8)
    inside[4:-4, 4:-4] = drawn[20:60, 30:90]
    assert np.array_equal(np.asarray(sample.labels()), inside)
    tifffile.imwrite("other.tif", drawn * 2)
    with pytest.raises(LabelError, match=r"prediction's classes, 0 \(background\), .* value 4"):
        correct("slide.prediction.zarr", edited="other.tif", output="c.zarr", **told)


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ({"judged": []}, UsageError, "judged must say where the labels are complete, got nothing"),
        ({"judged": ["seen"]}, UsageError, "--judged must be a rectangle where labels are masks"),
        ({"judged": ["0:9,0:900"]}, UsageError, "must lie inside of every image"),
        ({"edited": "small.tif"}, InputError, "mask must be as high and wide as its image"),
        ({"edited": "binary.tif"}, LabelError, "the one number 255 for .* separate pieces"),
        ({"image": "small.zarr"}, InputError, "must be that of its objects"),
        ({"output": "slide.zarr"}, OutputError, "must lie apart from its input"),
        ({"edited": "far.geojson"}, LabelError, "shapes must lie inside of their image"),
        ({"edited": "several.zarr"}, InputError, "corrected labels must be of one image, got 2"),
    ],
)
def test_what_can_not_be_right_is_refused_and_nothing_written(slide, told, error, words):
    tifffile.imwrite("edited.tif", discs())
    tifffile.imwrite("small.tif", discs((40, 40)))
    tifffile.imwrite("binary.tif", ((discs() > 0) * 255).astype(np.uint8))
    import_images("small.tif", "small.zarr")
    ring = [[900, 10], [960, 10], [960, 50], [900, 10]]
    far = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    Path("far.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [far]}))
    writer = DatasetWriter("several.zarr")
    for name in "ab":
        writer.add(name, discs(), axes="yx", labels=discs())
    writer.finish()
    before = sorted(path.name for path in Path().iterdir())
    given = {"edited": "edited.tif", "judged": ["0:40,0:40"], **told}
    with pytest.raises(error, match=words):
        correct(slide, **given)
    assert sorted(path.name for path in Path().iterdir()) == before


def test_pieces_of_a_yes_no_mask_are_numbered_where_asked(slide):
    tifffile.imwrite("binary.tif", ((discs() > 0) * 255).astype(np.uint8))
    told = {"edited": "binary.tif", "judged": ["0:90,0:110"], "connected_components": True}
    correct(slide, **told)
    (sample,) = open_dataset("corrections.zarr").samples
    numbers = np.asarray(sample.labels())
    assert np.array_equal(numbers > 0, discs() > 0)
    assert numbers.max() > 3


def test_windows_are_joined_until_none_overlap():
    rng = np.random.default_rng(0)
    for _ in range(50):
        corners = rng.integers(0, 30, (8, 2))
        boxes = [
            Window(((0, 1), (0, 1), (y, y + int(h)), (x, x + int(w))))
            for (y, x), (h, w) in zip(corners.tolist(), rng.integers(1, 9, (8, 2)), strict=True)
        ]
        found = joined_windows(boxes)
        for n, one in enumerate(found):
            assert not any(one.meets(other) for other in found[n + 1 :])
        for box in boxes:
            assert sum(one.around(box) == one for one in found) == 1
        assert joined_windows(reversed(boxes)) == found


def test_objects_keep_the_class_of_their_number_or_of_their_outline(slide):
    labels = discs(seed=9)
    ids = np.unique(labels[labels > 0])
    place = "data.zarr"
    writer = DatasetWriter(place)
    writer.add("slide", tifffile.imread("slide.tif"), axes="cyx", labels=labels)
    writer.finish()
    table = ObjectClasses.of_objects(ids, 1 + ids % 2, ("background", "live", "dead"))
    write_object_classes(open_dataset(place).samples[0].labels(), table)
    tifffile.imwrite("edited.tif", labels)
    export_prediction("data.zarr/slide", to="geojson", output="edited.geojson")
    told = {"judged": ["10:80,10:100"], "image": "data.zarr/slide", "context": 8}
    for number, edited in enumerate(("edited.tif", "edited.geojson", "data.zarr/slide")):
        correct("data.zarr/slide", edited=edited, output=f"c{number}.zarr", **told)
    (sample,) = open_dataset("c0.zarr").samples
    found = read_object_classes(sample.image)
    numbers, drawn = np.asarray(sample.labels()), labels[2:88, 2:108]
    assert found.names == table.names
    for one, own in zip(found.ids.tolist(), found.numbers.tolist(), strict=True):
        (before,) = np.unique(drawn[numbers == one])
        assert own == 1 + before % 2
    assert files_of("c0.zarr") == files_of("c1.zarr") == files_of("c2.zarr")
    labels[20:30, 20:30] = 9999
    tifffile.imwrite("edited.tif", labels)
    with pytest.raises(LabelError, match="must have a class, got none for the object 9999"):
        correct("data.zarr/slide", edited="edited.tif", output="new.zarr", **told)
