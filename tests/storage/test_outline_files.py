"""Outlines written for other programs are to each of them, and to us, the pixels of the labels."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from unetkit.arrays.outlines import edges, polygons
from unetkit.arrays.polygons import Painter, joined
from unetkit.storage.annotations import read_annotations
from unetkit.storage.outline_files import WRITERS, Outline, Picture, packed_counts
from unetkit.storage.outputs import written_by_unetkit

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
