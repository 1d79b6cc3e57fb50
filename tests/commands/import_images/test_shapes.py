"""Outlines become labels to the pixel, and what can't be right is refused and leaves nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetkit
from tests.commands.conftest import Watching
from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.import_images.command import import_images
from unetkit.errors import InputError, LabelError, UnetkitError, UsageError
from unetkit.storage.datasets import open_dataset

DATA = Path(unetkit.__file__).parent / "data"
SHAPE = (20, 30)


def whole(data):
    return np.stack([data.read(n, 0, data.height, 0, data.width) for n in range(data.planes)])


def labels_of(url, kind=None):
    return {s.name: whole(s.labels(kind)) for s in open_dataset(str(url)).samples if s.label_kind}


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(*rings, name=None, label=None, kind="Polygon"):
    marks: dict[str, Any] = {"objectType": "annotation"}
    if name:
        marks["name"] = name
    if label:
        marks["classification"] = {"name": label, "color": [200, 0, 0]}
    coordinates = rings[0] if kind in ("Point", "MultiPolygon") else list(rings)
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": marks}


@pytest.fixture
def lab(tmp_path):
    """Return a function that stores features beside an image and imports both."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(SHAPE)).save(tmp_path / "images/a.png")

    def imported(*features, document=None, **options):
        document = document or {"type": "FeatureCollection", "features": features}
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "a.geojson").write_text(text)
        told = Watching()
        shapes, out = str(tmp_path / "a.geojson"), tmp_path / "out.zarr"
        import_images(str(tmp_path / "images"), str(out), labels=shapes, progress=told, **options)
        (found,) = labels_of(out).values()
        return found[0], told.notes

    return imported


def exported_and_imported(images, masks, folder, to="geojson", **options):
    """Import masks, write their outlines, import these; return the labels of both."""
    first, second = folder / "first.zarr", folder / "second.zarr"
    outlines = folder / ("outlines.json" if to == "coco" else "outlines")
    import_images(str(images), str(first), labels=str(masks), **options)
    export_prediction(str(first), to=to, output=str(outlines))
    told = Watching()
    import_images(str(images), str(second), labels=str(outlines), progress=told, **options)
    return labels_of(first), labels_of(second), told.notes


def assert_same(first, second, notes=()):
    assert first.keys() == second.keys()
    assert first
    for name, expected in first.items():
        np.testing.assert_array_equal(second[name], expected)
    assert not [note for note in notes if "pixel" in note or "shape" in note]


@pytest.fixture
def nuclei(tmp_path):
    for what, name in (("images", "demo_image.png"), ("masks", "demo_labels.png")):
        (tmp_path / what).mkdir()
        (tmp_path / what / "a.png").write_bytes((DATA / name).read_bytes())
    return tmp_path


FORMATS = [
    "geojson", "coco", "labelme",
    pytest.param("rois", marks=pytest.mark.skipif(not find_spec("roifile"), reason="no roifile")),
]  # fmt: skip


@pytest.mark.parametrize("to", FORMATS)
def test_outlines_that_were_exported_come_back_to_the_pixel(to, nuclei):
    assert_same(*exported_and_imported(nuclei / "images", nuclei / "masks", nuclei, to))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["bbbc039_nuclei", "dsb2018_mixed", "usiigaci_phase"])
def test_outlines_of_real_masks_come_back_to_the_pixel(name, to, test_data, tmp_path):
    for what in ("images", "masks"):
        (tmp_path / what).mkdir()
        for path in sorted((test_data / name / what).iterdir())[:3]:
            (tmp_path / what / path.name).symlink_to(path)
    assert_same(*exported_and_imported(tmp_path / "images", tmp_path / "masks", tmp_path, to))


@pytest.mark.parametrize("to", FORMATS)
def test_a_class_map_and_planes_come_back_to_the_pixel(to, tmp_path):
    depth = 1 if to in ("coco", "labelme") else 4
    classes = np.random.default_rng(3).integers(0, 3, (depth, 5, 6)).repeat(4, 1).repeat(4, 2)
    for what, pixels in (("images", np.ones((depth, 20, 24), np.uint8)), ("masks", classes)):
        (tmp_path / what).mkdir()
        path, own = tmp_path / what / "a.tif", {"axes": "ZYX"}
        tifffile.imwrite(path, pixels.astype("u1"), photometric="minisblack", metadata=own)
    own = {"kind": "classes", "classes": "background,myelin,axon"}
    folders = (tmp_path / "images", tmp_path / "masks", tmp_path)
    assert_same(*exported_and_imported(*folders, to, **own))


def test_holes_parts_and_classes(lab):
    ring = [feature(box(2, 2, 10, 10), box(4, 4, 8, 8), label="axon")]
    two = [[box(12, 2, 14, 4)], [box(16, 2, 18, 4)]]
    two = [feature(two, label="myelin", kind="MultiPolygon")]
    found, _ = lab(*ring, *two)
    expected = np.zeros(SHAPE, int)
    expected[2:10, 2:10] = 1
    expected[4:8, 4:8] = 0
    expected[2:4, 12:14] = expected[2:4, 16:18] = 2
    np.testing.assert_array_equal(found, expected)
    # Classes have the order of their names, unless the user orders them.
    for classes, axon, myelin in ((None, 1, 2), ("background,myelin,axon", 2, 1)):
        found, notes = lab(*ring, *two, kind="classes", classes=classes, overwrite=True)
        numbers = np.array([0, axon, myelin])
        np.testing.assert_array_equal(found, numbers[expected])
        assert notes == []


@pytest.mark.parametrize("alone", ["list", "feature", "spread"])
def test_the_forms_of_geojson(alone, lab):
    """QuPath wrote a bare list once; keys may come in any order."""
    one = feature(box(2, 2, 10, 10))
    document = {
        "list": [one],
        "feature": one,
        "spread": f'\ufeff{{ "features" :[ {json.dumps(one)} ] ,"type": "FeatureCollection" }} ',
    }
    assert lab(document=document[alone])[0].sum() == 64


@pytest.mark.parametrize(("outlines", "pixels"), [(None, 60), ("corners", 60), ("centres", 77)])
def test_where_points_are_counted_from_can_be_said(outlines, pixels, lab):
    assert lab(feature(box(3, 2, 13, 8)), outlines=outlines)[0].sum() == pixels


def test_overlaps_are_said_and_follow_a_rule(lab):
    small, large = feature(box(4, 4, 8, 8)), feature(box(2, 2, 12, 12))
    found, notes = lab(small, large)
    assert set(np.unique(found)) == {0, 2}
    assert "16 pixels lay in several shapes and went to the later shape" in notes[0]
    assert notes[1] == "1 shape lay wholly below others and came in as nothing"
    found, notes = lab(small, large, overlaps="smaller", overwrite=True)
    assert np.bincount(found.ravel()).tolist() == [500, 16, 84]
    assert "went to the smaller shape" in notes[0]
    with pytest.raises(LabelError, match="must not overlap with --overlaps refuse, got 16 pixels"):
        lab(small, large, overlaps="refuse", overwrite=True)


def test_what_has_no_pixels_is_counted_and_said(lab):
    thin = feature(box(3.6, 3, 4.4, 9))
    nothing = {**feature([]), "geometry": None}
    line = feature([0, 1], [3, 4], kind="LineString")
    found, notes = lab(feature(box(2, 2, 4, 4)), thin, feature([]), nothing, line, line)
    assert found.max() == 1
    assert notes == [
        "2 objects had an empty outline and came in as nothing",
        "1 shape held no pixel's centre and came in as nothing",
        "left out what has no area: 2 linestring",
    ]


BOW = [[0, 0], [10, 10], [10, 0], [0, 10]]
GOOD = feature(box(2, 2, 4, 4), label="axon")
CLASSES = {"kind": "classes", "classes": "background,axon"}


@pytest.mark.parametrize(
    ("features", "options", "words"),
    [
        ([GOOD, feature(BOW, name="b")], {}, r"cross.*shape 2 \('b'\).*itself at x 5.0, y 5.0"),
        ([feature(box(2, 20, 18, 28))], {}, "x and y may be swapped"),
        ([GOOD, feature(box(40, 2, 44, 8))], {}, "got shape 2 .* outside of"),
        ([], {}, "must hold shapes, got none"),
        ([GOOD, feature(box(8, 8, 9, 9), label="glia")], CLASSES, "the class 'glia' of shape 2"),
        ([feature(box(8, 8, 9, 9))], CLASSES, "got no class of shape 1"),
        ([feature([[0, 0], [1, float("nan")], [2, 2]])], {}, "numbers of pixels"),
        ([feature([[0], [1], [2]])], {}, "a ring must be a list of points"),
        ([GOOD], {"ignore": 255}, "for masks, got --ignore; leave"),
        ([GOOD], {"connected_components": True}, "got --connected-components"),
        ([GOOD], {"kind": "classes", "classes": "0=background,1=axon"}, "values in --classes"),
    ],
)
def test_what_can_not_be_right_is_refused_and_leaves_nothing(
    features, options, words, lab, tmp_path
):
    with pytest.raises(UnetkitError, match=words) as refused:
        lab(*features, **options)
    assert refused.value.exit_code == (2 if refused.type is UsageError else 3)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson", "images"]


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a" 1}', '{"features": [1 2]}', "nothing", "3", "[" * 9999, '{"type": "Topology"}'],
)
def test_a_file_of_something_else_is_one_sentence(text, lab):
    with pytest.raises(InputError, match=r"annotations must be.*a\.geojson") as refused:
        lab(document=text or " ")
    assert "\n" not in str(refused.value)


def test_files_find_their_images_by_name(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "shapes").mkdir()
    for n, name in enumerate("abc"):
        Image.fromarray(np.full(SHAPE, n, np.uint8)).save(tmp_path / f"images/{name}.png")
    for name, side in (("a.geojson", 2), ("b.png.geojson", 4), ("z.geojson", 5)):
        (tmp_path / "shapes" / name).write_text(json.dumps(feature(box(0, 0, side, side))))
    told = Watching()
    for out, labels in (("x.zarr", "shapes"), ("y.zarr", "shapes/*.geojson")):
        import_images(
            str(tmp_path / "images"),
            str(tmp_path / out),
            labels=str(tmp_path / labels),
            progress=told,
        )
        sizes = {name: int(found.sum()) for name, found in labels_of(tmp_path / out).items()}
        assert sizes == {"a": 4, "b": 16}
        assert "left out the shapes of 1 other image: 'z.geojson'" in told.notes
    for name in "ab":
        (tmp_path / "images" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"must name images that are there, got 'a.geojson'"):
        import_images(
            str(tmp_path / "images"), str(tmp_path / "z.zarr"), labels=str(tmp_path / "shapes")
        )


def test_images_with_outlines_are_added_to_a_dataset(nuclei):
    first, _, _ = exported_and_imported(nuclei / "images", nuclei / "masks", nuclei)
    told = Watching()
    again = [str(nuclei / "images"), str(nuclei / "first.zarr")]
    import_images(*again, labels=str(nuclei / "outlines"), append=True, progress=told)
    assert told.notes == ["skipped 1 image that the dataset has already"]
    (nuclei / "images/a.png").rename(nuclei / "images/b.png")
    (nuclei / "outlines/a.geojson").rename(nuclei / "outlines/b.geojson")
    import_images(*again, labels=str(nuclei / "outlines"), append=True)
    found = labels_of(nuclei / "first.zarr")
    np.testing.assert_array_equal(found["b"], first["a"])


def test_a_progress_moves_while_one_large_file_is_read_and_one_large_image_painted(tmp_path):
    image, out = tmp_path / "a.tif", str(tmp_path / "out.zarr")
    tifffile.imwrite(image, np.zeros((4096, 3072), np.uint8), compression="zlib")
    # A mebibyte of text, and four megapixels, are a part each.
    features = [feature(box(n, n, n + 4, n + 4), label="x" * 2**18) for n in range(0, 80, 8)]
    document = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "a.geojson").write_text(document)
    told, steps = Watching(), []
    told.advance = lambda parts=1, *, status="": steps.append((told.stages[-1][0], parts))
    import_images(str(image), out, labels=str(tmp_path / "a.geojson"), progress=told)
    wanted = [["reading the shapes", 3, 0], ["importing", 4, 0]]
    assert [stage for stage in told.stages if stage[0] != "looking"] == wanted
    assert steps == [(what, 1) for what, count, _ in wanted for _ in range(count)]
    assert labels_of(out)["a"].max() == len(features)


def test_one_file_of_many_images_is_matched_by_the_names_that_it_holds(tmp_path):
    (tmp_path / "images").mkdir()
    for n, name in enumerate("abc"):
        Image.fromarray(np.full(SHAPE, n, np.uint8)).save(tmp_path / f"images/{name}.png")
    images = [{"id": n, "file_name": f"train/{name}.png"} for n, name in enumerate("bax")]
    ring = [2, 2, 4, 2, 4, 4, 2, 4]
    objects = [{"image_id": n, "category_id": 1, "segmentation": [ring]} for n in (0, 0, 2)]
    document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "n"}]}
    (tmp_path / "coco.json").write_text(json.dumps(document))
    told = Watching()
    source, out = str(tmp_path / "images"), str(tmp_path / "out.zarr")
    import_images(source, out, labels=str(tmp_path / "coco.json"), progress=told)
    # An image that is listed and has no object is background, one that is not is unlabelled.
    assert {name: int(found.max()) for name, found in labels_of(out).items()} == {"a": 0, "b": 2}
    assert "left out the shapes of 1 other image: 'train/x.png'" in told.notes
    document["images"][0] |= {"height": 30, "width": 20}
    (tmp_path / "coco.json").write_text(json.dumps(document))
    with pytest.raises(LabelError, match=r"30 x 20 .* for 20 x 30 .*; its sides are swapped"):
        import_images(source, out, labels=str(tmp_path / "coco.json"), overwrite=True)
