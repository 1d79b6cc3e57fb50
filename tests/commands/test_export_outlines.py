"""GeoJSON streamed block by block says what the whole image would say, for QuPath to read."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.commands.export_prediction import Outlined, outlines
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.outline_files import Picture, write_geojson

Array = np.ndarray[Any, Any]


def stored(folder, content, classes=None, *, chunk=8):
    """Store labels, and a class map beside them."""
    url, axes = str(folder / "a.zarr"), "tzyx"[-content.ndim :]
    create_image(url, shape=content.shape, axes=axes, dtype="u1")
    made = []
    for name, array in (("instances", content), ("classes", classes)):
        if array is not None:
            size: dict[str, Any] = {"shape": array.shape, "axes": axes, "chunk": chunk}
            data = create_labels(url, name, dtype="u4", **size)
            for number, plane in enumerate(array.reshape(-1, *array.shape[-2:])):
                data.write(number, 0, 0, plane.astype(np.uint32))
            made.append(data)
    return made if classes is not None else made[0]


def written(folder, outlined):
    steps: list[None] = []
    path = folder / "a.geojson"
    made = outlines(outlined, lambda: steps.append(None))
    count = write_geojson(str(path), [Picture("a.png", 0, 0, made, about={"version": "0"})])
    assert len(steps) == outlined.steps
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    assert document["unetkit"] == {"version": "0"}
    features: list[dict[str, Any]] = document["features"]
    assert len(features) == count
    return features


def filled(geometry, shape):
    """Fill a geometry: left of a pixel's centre an odd number of its edges is crossed."""
    parts = geometry["coordinates"]
    parts = [parts] if geometry["type"] == "Polygon" else parts
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for rings in parts:
        for ring in rings:
            assert ring[0] == ring[-1]
            for (x0, y0), (x1, y1) in itertools.pairwise(ring):
                if x0 == x1:
                    crossings[min(y0, y1) : max(y0, y1), x0] += 1
    return crossings.cumsum(axis=1)[:, :-1] % 2 == 1


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_filled_again_they_are_the_labels_whatever_the_blocks(
    tmp_path_factory, height, width, scale, seed
):
    folder = tmp_path_factory.mktemp("outlines")
    coarse = np.random.default_rng(seed).integers(0, 4, (-(-height // scale), -(-width // scale)))
    content = np.kron(coarse, np.ones((scale, scale), int))[:height, :width]
    labels = stored(folder, content)
    streamed = written(folder, Outlined(labels, side=8))
    again = np.zeros(content.shape, int)
    for feature in streamed:
        again[filled(feature["geometry"], content.shape)] += int(feature["properties"]["name"])
    np.testing.assert_array_equal(again, content)
    by_name = {feature["properties"]["name"]: feature for feature in streamed}
    whole = {
        feature["properties"]["name"]: feature for feature in written(folder, Outlined(labels))
    }
    assert by_name == whole


def test_objects_are_named_by_their_most_frequent_class(tmp_path):
    content, classes = np.zeros((20, 30), int), np.zeros((20, 30), int)
    content[2:18, 3:27] = 7
    classes[4:16, 5:8] = 1
    classes[4:16, 8:25] = 2
    content[0, 0] = 9  # nothing but background, as a rim that grew
    labels, map_ = stored(tmp_path, content, classes)
    names = ("background", "dead", "alive")
    features = written(tmp_path, Outlined(labels, map_, names, side=8))
    found = {f["properties"]["name"]: f["properties"] for f in features}
    assert found["7"] == {
        "objectType": "detection",
        "name": "7",
        "classification": {"name": "alive"},
    }
    assert "classification" not in found["9"]
    (only,) = {
        feature["properties"]["classification"]["name"]
        for feature in written(tmp_path, Outlined(labels, map_, ("background", "nucleus")))
    }
    assert only == "nucleus"


@pytest.mark.parametrize("names", [("background", "a", "b"), ()])
def test_a_class_map_gives_one_annotation_a_connected_piece(names, tmp_path):
    content = np.zeros((20, 20), int)
    content[2:5, 2:5] = content[5:9, 5:9] = content[10:15, 10:15] = 1
    content[12, 12] = 0
    content[0] = 2
    outlined = Outlined(stored(tmp_path, content), None, names, are_objects=False, side=8)
    features = written(tmp_path, outlined)
    first, second = names[1:] or ("1", "2")
    assert sorted(f["properties"]["classification"]["name"] for f in features) == [
        *[first] * 3,
        second,
    ]
    for feature in features:
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["objectType"] == "annotation"
    whole = sum(filled(f["geometry"], (20, 20)).astype(int) for f in features)
    np.testing.assert_array_equal(whole, content != 0)


def test_planes_are_named_as_qupath_names_them(tmp_path):
    content = np.zeros((2, 3, 9, 9), int)
    content[1, 2, 3:5, 3:5] = 4
    (feature,) = written(tmp_path, Outlined(stored(tmp_path, content)))
    assert feature["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}


def test_nothing_gives_an_empty_collection(tmp_path):
    assert written(tmp_path, Outlined(stored(tmp_path, np.zeros((20, 20), int)))) == []
