"""Outlines written for other programs are to each of them, and to us, the pixels of the labels."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from skimage.measure import regionprops
from skimage.segmentation import expand_labels

import unetkit
from unetkit.arrays.outlines import edges, polygons
from unetkit.arrays.polygons import Painter, joined
from unetkit.storage.annotations import read_annotations
from unetkit.storage.outline_files import WRITERS, Outline, Picture, packed_counts
from unetkit.storage.outputs import written_by_unetkit
from unetkit.storage.readers import open_file

FORMATS = {"geojson": "a.geojson", "coco": "a.json", "labelme": "a.json", "rois": "a.zip"}


def written(folder, to, labels, *, name="dead cell", plane=None):
    """Write the outlines of labels; returns the path."""
    if to == "rois":
        pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    height, width = labels.shape
    found = edges(np.pad(labels, 1), y0=0, x0=0, width=width)
    made = [Outline(n, p, name, plane) for n, p in polygons(*found, height=height, width=width)]
    about = {"version": "0", "source": "a.zarr"}
    path = str(folder / FORMATS[to])
    assert WRITERS[to](path, [Picture("a.png", height, width, made, about=about)]) == len(made)
    return path


def painted(drawing, size):
    """Paint a drawing as an import does."""
    on_centres = [drawing.convention == "centres" and not s.is_mask for s in drawing.shapes]
    shapes = joined([shape.parts for shape in drawing.shapes], on_centres)
    values = np.array([int(shape.name) for shape in drawing.shapes])
    found = Painter(shapes, values).paint(0, size[0], 0, size[1])
    return np.zeros(size, int) if found is None else found


def as_pycocotools_fills(path, size):
    mask = pytest.importorskip("pycocotools.mask", reason="COCO's own package fills it")
    found = np.zeros(size, int)
    for one in json.loads(Path(path).read_text())["annotations"]:
        runs = one["segmentation"]
        runs = mask.merge(mask.frPyObjects(runs, *size)) if isinstance(runs, list) else runs
        inside = mask.decode(runs)
        found += inside.astype(int) * int(one["name"])
        assert (one["area"], one["bbox"]) == (inside.sum(), mask.toBbox(runs).tolist())
    return found


def as_labelme_fills(path, size):
    """Fill as `labelme.utils.shapes_to_label` does, which needs Qt to be imported."""
    found = np.zeros(size, int)
    for one in json.loads(Path(path).read_text())["shapes"]:
        points = [tuple(point) for point in one["points"]]
        if one["shape_type"] == "mask":
            inside = np.zeros(size, bool)
            (x0, y0), (x1, y1) = points
            pixels = np.array(Image.open(io.BytesIO(base64.b64decode(one["mask"]))))
            inside[y0 : y1 + 1, x0 : x1 + 1] = pixels.astype(bool)
        else:
            picture = Image.new("L", size[::-1])
            ImageDraw.Draw(picture).polygon(points, outline=1, fill=1)
            inside = np.array(picture, bool)
        found += inside * int(one["description"])
    return found


def as_imagej_fills(path, size):
    """Fill what roifile reads: a pixel is in where an odd number of rings go around its centre."""
    roifile = pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    found = np.zeros(size, int)
    with zipfile.ZipFile(path) as packed:
        rois = [roifile.ImagejRoi.frombytes(packed.read(name)) for name in packed.namelist()]
    for roi in rois:
        crossings = np.zeros((size[0], size[1] + 1), int)
        for ring in roi.coordinates(multi=True):
            closed = np.vstack([ring, ring[:1]]).astype(int)
            for (x0, y0), (x1, y1) in pairwise(closed):
                if x0 == x1:
                    crossings[min(y0, y1) : max(y0, y1), x0] += 1
        found += (crossings.cumsum(axis=1)[:, :-1] % 2) * int(roi.name)
    return found


OWN = {"coco": as_pycocotools_fills, "labelme": as_labelme_fills, "rois": as_imagej_fills}


any_labels = st.builds(
    lambda high, wide, scale, seed: np.kron(
        np.random.default_rng(seed).integers(0, 4, (-(-high // scale), -(-wide // scale))),
        np.ones((scale, scale), int),
    )[:high, :wide],
    *(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 999)),
)


@pytest.mark.parametrize("to", FORMATS)
@settings(max_examples=25)
@given(labels=any_labels)
def test_any_labels_come_back(to, tmp_path_factory, labels):
    """Touching, with holes, in pieces, along the border, of single pixels."""
    path = written(tmp_path_factory.mktemp("outlines"), to, labels)
    (drawing,) = read_annotations(path)
    assert {shape.label for shape in drawing.shapes} <= {"dead cell"}
    np.testing.assert_array_equal(painted(drawing, labels.shape), labels)
    assert written_by_unetkit(path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("to", OWN)
@settings(max_examples=25)
@given(labels=any_labels)
def test_the_formats_own_programs_fill_the_same_pixels(to, tmp_path_factory, labels):
    path = written(tmp_path_factory.mktemp("outlines"), to, labels)
    np.testing.assert_array_equal(OWN[to](path, labels.shape), labels)


def like_tissue(labels):
    """Grow objects until they touch, give every third a hole, and make one of every two fifths."""
    grown = expand_labels(labels, 7)
    for one in regionprops(grown):
        y, x = map(int, one.centroid)
        if one.label % 3 == 0:
            grown[y - 2 : y + 3, x - 1 : x + 2][one.image.sum() % 2 :] = 0
    return np.where(grown % 5 == 1, grown // 10 * 10 + 1, grown)


def real_masks(name):
    """Read crops of the demo's nuclei, or a whole set of real masks."""
    folder = os.environ.get("UNETKIT_TEST_DATA")
    if name != "demo" and folder is None:
        pytest.skip("UNETKIT_TEST_DATA names no folder with real images")
    paths = [Path(unetkit.__file__).parent / "data/demo_labels.png"]
    if name != "demo":
        paths = sorted((Path(str(folder)) / name / "masks").iterdir())
    masks = [open_file(str(path), labels=True).load().astype(int) for path in paths]
    crops = [mask[-150:, -200:] for mask in masks] if name == "demo" else masks
    return [*crops, *map(like_tissue, crops[:2])]


REAL = ["demo", "bbbc039_nuclei", "usiigaci_phase"]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", REAL)
def test_real_masks_and_such_as_of_tissue_come_back(name, to, tmp_path):
    for labels in real_masks(name):
        (drawing,) = read_annotations(written(tmp_path, to, labels))
        np.testing.assert_array_equal(painted(drawing, labels.shape), labels)


def by_pycocotools(folder, labels):
    mask = pytest.importorskip("pycocotools.mask", reason="COCO's own package writes it")
    numbers = np.unique(labels)[1:]
    runs = mask.encode(np.asfortranarray(labels[..., None] == numbers, np.uint8))
    objects = [
        {"image_id": 1, "category_id": 1, "name": str(number), "segmentation": one}
        for number, one in zip(numbers, runs, strict=True)
    ]
    size = dict(zip(("height", "width"), labels.shape, strict=True))
    images = [{"id": 1, "file_name": "a.png", **size}]
    document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "n"}]}
    (folder / "a.json").write_text(json.dumps(document, default=bytes.decode))
    return folder / "a.json"


def runs_of(labels):
    """Yield each number with its pixels as boxes one row high: left, top, right, bottom."""
    for one in regionprops(labels):
        padded = np.pad(one.image, ((0, 0), (1, 1))).astype(int)
        y, x = np.nonzero(np.diff(padded, axis=1))
        top, left = one.bbox[0] + y[::2], one.bbox[1]
        yield one, np.c_[left + x[::2], top, left + x[1::2], top + 1]


def by_shapely(folder, labels):
    shapely = pytest.importorskip("shapely", reason="shapely writes it")
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(shapely.union_all(shapely.box(*runs.T)))),
            "properties": {"name": str(one.label)},
        }
        for one, runs in runs_of(labels)
    ]
    document = {"type": "FeatureCollection", "features": features}
    (folder / "a.geojson").write_text(json.dumps(document))
    return folder / "a.geojson"


def by_roifile(folder, labels):
    """Write composites of rectangles, as ImageJ does of a selection in pieces."""
    roifile = pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    rois = []
    for one, runs in runs_of(labels):
        corners = runs[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        steps = np.concatenate(
            [np.broadcast_to([[0], [1], [1], [1]], (len(runs), 4, 1)), corners], 2
        )
        path = np.c_[steps.reshape(-1, 12), np.full(len(runs), 4)].astype(np.float32).ravel()
        top, left, bottom, right = one.bbox
        own = {"left": left, "top": top, "right": right, "bottom": bottom, "name": str(one.label)}
        own |= {"multi_coordinates": path, "shape_roi_size": len(path)}
        rois.append(roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, **own))
    roifile.roiwrite(folder / "a.zip", rois, mode="w")
    return folder / "a.zip"


def by_labelme(folder, labels):
    """Write the document that `LabelFile.save` of labelme 6.3.1 writes; its package needs Qt."""
    shapes = []
    for one in regionprops(labels):
        file = io.BytesIO()
        Image.fromarray(one.image.astype(np.uint8)).save(file, "PNG")
        top, left, bottom, right = one.bbox
        corners = [[float(left), float(top)], [right - 1.0, bottom - 1.0]]
        mask = base64.b64encode(file.getvalue()).decode()
        own = {"label": "n", "points": corners, "group_id": None, "description": str(one.label)}
        shapes.append({**own, "shape_type": "mask", "flags": {}, "mask": mask})
    document = {"version": "6.3.1", "flags": {}, "shapes": shapes, "imagePath": "a.png"}
    high, wide = labels.shape
    document |= {"imageData": None, "imageHeight": high, "imageWidth": wide}
    (folder / "a.json").write_text(json.dumps(document, indent=2))
    return folder / "a.json"


@pytest.mark.parametrize("write", [by_pycocotools, by_shapely, by_roifile, by_labelme])
@pytest.mark.parametrize("name", REAL)
def test_what_the_formats_own_packages_write_are_these_pixels(name, write, tmp_path):
    for labels in real_masks(name)[-3:]:
        (drawing,) = read_annotations(str(write(tmp_path, labels)))
        np.testing.assert_array_equal(painted(drawing, labels.shape), labels)


def test_masks_and_run_lengths_are_kept_for_what_a_polygon_can_t_be(tmp_path):
    labels = np.zeros((20, 30), int)
    labels[2:8, 2:8], labels[4:6, 4:6] = 1, 0
    labels[2:8, 10:16], labels[12:14, 10:16] = 2, 2
    labels[2:8, 20:26] = 3
    made = json.loads(Path(written(tmp_path, "coco", labels)).read_text())
    assert [type(one["segmentation"]) for one in made["annotations"]] == [dict, list, list]
    assert made["categories"] == [{"id": 1, "name": "dead cell"}]
    made = json.loads(Path(written(tmp_path, "labelme", labels)).read_text())
    assert [one["shape_type"] for one in made["shapes"]] == ["mask", "mask", "polygon"]
    assert (made["imagePath"], made["imageHeight"], made["imageWidth"]) == ("a.png", 20, 30)


def test_counts_are_packed_as_pycocotools_unpacks_them():
    mask = pytest.importorskip("pycocotools.mask", reason="COCO's own package packs them")
    counts = np.random.default_rng(3).integers(1, 2 ** np.arange(1, 25, 0.2, dtype=float))
    size = [1, int(counts.sum())]
    expected = mask.frPyObjects({"size": size, "counts": counts.tolist()}, *size)
    assert packed_counts(counts) == expected["counts"].decode()


def test_rois_far_out_on_a_slide_keep_their_place_plane_and_class(tmp_path):
    roifile = pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    ring = np.array([[0, 0], [5, 0], [5, 4], [0, 4]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1]])
    shifts = [(0, 0), (32_760, 9), (40_000, 70_000), (900_001, 800_003)]
    placed = [
        [rings + shift for rings in one] for shift in shifts for one in ([ring], [ring, hole])
    ]
    made = [Outline(number, [part], "7", (2, number)) for number, part in enumerate(placed)]
    path = str(tmp_path / "a.zip")
    WRITERS["rois"](path, [Picture("a.png", 2**20, 2**20, made, about={"version": "0"})])
    (drawing,) = read_annotations(path)
    assert [shape.plane for shape in drawing.shapes] == [one.plane for one in made]
    # A class that looks like a number is a name all the same.
    assert {shape.label for shape in drawing.shapes} == {"7"}
    for roi, shape, outline in zip(roifile.roiread(path), drawing.shapes, made, strict=True):
        for (rings, own), expected in zip(
            zip(shape.parts[0], roi.coordinates(multi=True), strict=True),
            outline.rings,
            strict=True,
        ):
            np.testing.assert_array_equal(rings, expected)
            np.testing.assert_array_equal(own[: len(expected)], expected)
