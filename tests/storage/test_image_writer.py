"""New images, labels and weights are valid OME-Zarr 0.5 or 0.4, and replace nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.image_writer import (
    create_image,
    create_labels,
    create_weights,
    list_new_labels,
    update_attributes,
)
from unetkit.storage.images import ome_image, open_image
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.pyramids import add_pyramid

SIZES = {"t": 2, "c": 3, "z": 2, "y": 40, "x": 30}


def shape(axes):
    return tuple(SIZES[axis] for axis in axes)


def opened(url):
    node = read_node(url)
    assert isinstance(node, GroupNode)
    return ome_image(node)


@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tyx", "tczyx"])
@pytest.mark.parametrize("pixel_size", [None, {"y": 0.5, "x": 0.5, "z": 2.0}])
def test_every_part_is_valid_ome_zarr(axes, pixel_size, tmp_path):
    url = str(tmp_path / "a.zarr")
    plain = axes.replace("c", "")
    names = ("r", "g", "b") if "c" in axes else ()
    create_image(
        url,
        shape=shape(axes),
        axes=axes,
        dtype=np.uint8,
        chunk=16,
        channel_names=names,
        pixel_size=pixel_size,
    )
    for name, dtype in (("instances", np.uint32), ("ignore", np.uint8)):
        create_labels(url, name, shape=shape(plain), axes=plain, dtype=dtype)
    create_weights(url, shape=shape(plain), axes=plain)
    for part in ("", "/labels", "/weights"):
        yaozarrs.validate_zarr_store(url + part)
    image = opened(url)
    assert image.data.axes == axes
    assert image.channel_names == (names or ("0",))
    assert image.pixel_size == (
        pixel_size and {axis: size for axis, size in pixel_size.items() if axis in axes}
    )
    assert set(image.labels) == {"instances", "ignore"}
    assert image.weights.dtype == np.float32
    assert image.data.chunk == (16, 16)


def test_validation_would_notice(tmp_path):
    url = str(tmp_path / "a.zarr")
    create_image(url, shape=(40, 30), axes="yx", dtype=np.uint8)
    create_labels(url, "classes", shape=(40, 30), axes="yx", dtype=np.uint8)
    path = tmp_path / "a.zarr" / "labels" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["ome"]["labels"].append("nowhere")
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="nowhere"):
        yaozarrs.validate_zarr_store(url)


def test_few_channels_share_a_chunk_and_many_do_not(tmp_path):
    for count, wanted in ((3, 3), (40, 1)):
        array = create_image(
            str(tmp_path / f"{count}.zarr"), shape=(count, 8, 8), axes="cyx", dtype=np.uint16
        )
        assert array.chunks == (wanted, 8, 8)


def test_what_exists_is_never_replaced(tmp_path):
    url = str(tmp_path / "a.zarr")
    options: dict[str, Any] = {"shape": (4, 4), "axes": "yx"}
    create_image(url, dtype=np.uint8, **options)
    create_labels(url, "classes", dtype=np.uint8, **options)
    create_weights(url, **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").touch()
    for create in (
        lambda: create_image(url, dtype=np.uint8, **options),
        lambda: create_image(str(tmp_path / "mine"), dtype=np.uint8, **options),
        lambda: create_labels(url, "classes", dtype=np.uint8, **options),
        lambda: create_weights(url, **options),
    ):
        with pytest.raises(OutputError, match="must not exist yet"):
            create()
    assert os.listdir(tmp_path / "mine") == ["thesis.docx"]  # noqa: PTH208


def test_an_image_goes_into_a_partial_that_holds_its_journal(tmp_path):
    (tmp_path / ".unetkit").mkdir()
    (tmp_path / ".unetkit" / "journal.txt").touch()
    create_image(str(tmp_path), shape=(4, 4), axes="yx", dtype=np.uint8)
    assert (tmp_path / ".unetkit" / "journal.txt").exists()


@pytest.mark.parametrize("axes", ["xy", "yxc", "ctyx", "yxx", "qyx", "yx"])
def test_axes_that_ome_zarr_does_not_know_are_refused(axes, tmp_path):
    with pytest.raises(UsageError, match="axes of an image"):
        create_image(
            str(tmp_path / "a"), shape=(4,) * (len(axes) + (axes == "yx")), axes=axes, dtype="u1"
        )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_axis_creates_nothing(tmp_path):
    with pytest.raises(InputError, match="axis of size 0"):
        create_image(str(tmp_path / "a"), shape=(0, 4), axes="yx", dtype=np.uint8)
    assert list(tmp_path.iterdir()) == []


def test_labels_are_integers_of_an_image(tmp_path):
    url = str(tmp_path / "a.zarr")
    options: dict[str, Any] = {"shape": (4, 4), "axes": "yx"}
    with pytest.raises(InputError, match="OME-Zarr image to get labels"):
        create_labels(url, "classes", dtype=np.uint8, **options)
    assert list(tmp_path.iterdir()) == []
    create_image(url, dtype=np.uint8, **options)
    with pytest.raises(LabelError, match="must be integers"):
        create_labels(url, "classes", dtype=np.float32, **options)
    with pytest.raises(UsageError, match="plain folder name"):
        create_labels(url, "../x", dtype=np.uint8, **options)
    with pytest.raises(InputError, match="to get labels or weights"):
        create_weights(str(tmp_path), **options)


@pytest.mark.parametrize("count", [2, 40])
def test_labels_of_many_images_are_listed_together(count, tmp_path):
    options: dict[str, Any] = {"shape": (4, 4), "axes": "yx", "dtype": np.uint8}
    places = [str(tmp_path / f"{number}.zarr") for number in range(count)]
    for url in places:
        create_image(url, **options)
        create_labels(url, "classes", **options)
        create_labels(url, "instances", **options, listed=False)
    assert set(open_image(places[0]).labels) == {"classes"}
    list_new_labels(places, "instances")
    assert all(set(open_image(url).labels) == {"classes", "instances"} for url in places)
    create_image(f"{tmp_path}/a.zarr", **options)
    for name in ("classes", "instances"):
        create_labels(f"{tmp_path}/a.zarr", name, **options)
    listed = [
        Path(url, "labels", "zarr.json").read_bytes() for url in (places[-1], f"{tmp_path}/a.zarr")
    ]
    assert listed[0] == listed[1]


def test_as_many_names_as_channels(tmp_path):
    with pytest.raises(UsageError, match="channel names must be 3"):
        create_image(
            str(tmp_path / "a"), shape=(3, 4, 4), axes="cyx", dtype="u1", channel_names=["DAPI"]
        )


def test_attributes_are_merged(tmp_path):
    url = str(tmp_path / "a.zarr")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8, attributes={"a": 1, "b": 2})
    update_attributes(url, b=np.int64(3), c={"d": (4,)})
    image = opened(url)
    assert image.attributes == {
        "a": 1, "b": 3, "c": {"d": [4]}, "schema": 1, "kind": "image"
    }  # fmt: skip
    yaozarrs.validate_zarr_store(url)
    with pytest.raises(InputError, match="must be a Zarr group"):
        update_attributes(str(tmp_path / "b.zarr"), a=1)


def test_weights_can_be_made_beside_their_place(tmp_path):
    url, partial = str(tmp_path / "a.zarr"), str(tmp_path / "a.zarr" / ".weights.partial")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    create_weights(url, shape=(4, 4), axes="yx", at=partial, attributes={"preset": "paper2015"})
    assert opened(url).weights is None
    Path(partial).rename(f"{url}/weights")
    assert opened(url).weights_attributes["preset"] == "paper2015"


def test_an_image_can_be_written_to_memory():
    url = "memory://bucket/a.zarr"
    array = create_image(url, shape=(2, 1100, 9), axes="cyx", dtype=np.uint8)
    array.write(0, 0, 0, np.full((2, 1100, 9), 7, np.uint8))
    create_labels(url, "classes", shape=(1100, 9), axes="yx", dtype=np.uint8)
    add_pyramid(url)
    image = opened(url)
    assert image.levels == 2
    assert set(image.labels) == {"classes"}
    assert (image.data.read(0, 1000, 1100, 0, 9) == 7).all()
    assert (zarr.open_array(f"{url}/1", mode="r")[:] == 7).all()
    assert not Path("memory:").exists()


def test_a_store_of_0_4_is_valid_and_its_parts_follow_it(tmp_path):
    url = str(tmp_path / "old.zarr")
    image = create_image(
        url,
        shape=(2, 1100, 30),
        axes="cyx",
        dtype=np.uint8,
        channel_names=("DAPI", "GFP"),
        pixel_size={"y": 0.5, "x": 0.5},
        attributes={"note": 1},
        ome_version="0.4",
    )
    pixels = np.random.default_rng(0).integers(0, 255, (2, 1100, 30), np.uint8)
    image.write(0, 0, 0, pixels)
    for name in ("classes", "instances"):
        labels = create_labels(url, name, shape=(1100, 30), axes="yx", dtype=np.uint16)
        labels.write(0, 0, 0, pixels[0].astype(np.uint16))
    weights = create_weights(url, shape=(1100, 30), axes="yx")
    weights.write(0, 0, 0, pixels[1].astype(np.float32))
    add_pyramid(url)
    update_attributes(url, more=2)
    yaozarrs.validate_zarr_store(url)
    assert not list(tmp_path.rglob("zarr.json"))
    again = opened(url)
    assert (again.levels, again.channel_names) == (2, ("DAPI", "GFP"))
    assert again.pixel_size == {"y": 0.5, "x": 0.5}
    assert (again.attributes["note"], again.attributes["more"]) == (1, 2)
    np.testing.assert_array_equal(again.data.read(0, 0, 1100, 0, 30), pixels)
    assert set(again.labels) == {"classes", "instances"}
    for labels in again.labels.values():
        np.testing.assert_array_equal(labels.read(0, 0, 1100, 0, 30), pixels[0])
    assert again.weights is not None
    np.testing.assert_array_equal(again.weights.read(0, 0, 1100, 0, 30), pixels[1])


def test_both_versions_hold_the_same_levels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (1, 1500, 1030), np.uint8)
    made = []
    for version in ("0.5", "0.4"):
        url = str(tmp_path / f"{version}.zarr")
        image = create_image(
            url, shape=(1500, 1030), axes="yx", dtype=np.uint8, ome_version=version
        )
        image.write(0, 0, 0, pixels)
        add_pyramid(url)
        made.append(np.asarray(zarr.open_array(f"{url}/1", mode="r")[:]))
        yaozarrs.validate_zarr_store(url)
    np.testing.assert_array_equal(*made)
