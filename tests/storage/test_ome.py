"""OME-Zarr documents: what is written reads back, and what others write is understood."""

import pytest

from unetkit.errors import InputError, UsageError
from unetkit.storage.image_file import are_axes
from unetkit.storage.nodes import GroupNode
from unetkit.storage.ome import (
    NewGroup,
    channel_names,
    check_axes,
    listed_samples,
    multiscales,
    omero,
    read_multiscale,
)


def group(attributes):
    return GroupNode("here.zarr", 3, attributes)


def document(**changes):
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [250.0, 500.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    return {"axes": axes, "datasets": datasets, **changes}


def test_what_is_written_reads_back():
    attributes = NewGroup(
        kind="image",
        name="cells",
        axes="czyx",
        pixel_size={"y": 0.25, "x": 0.5},
        own={"a": 1},
        extra={},
    ).attributes()
    found = read_multiscale(group(attributes))
    assert found is not None
    assert (found.axes, found.name, found.version) == ("czyx", "cells", "0.5")
    assert found.pixel_size == {"y": 0.25, "x": 0.5}
    assert found.paths == ("here.zarr/0",)
    assert attributes["unetkit"] == {"a": 1, "schema": 1, "kind": "image"}
    z = attributes["ome"]["multiscales"][0]["axes"][1]
    assert z == {"name": "z", "type": "space"}


@pytest.mark.parametrize("nested", [True, False])
def test_units_become_micrometres_in_both_versions(nested):
    inner = {"multiscales": [document()]}
    found = read_multiscale(group({"ome": {"version": "0.5", **inner}} if nested else inner))
    assert found is not None
    assert found.pixel_size == {"y": 0.25, "x": 0.5}
    assert found.version == ("0.5" if nested else "0.4")


def test_a_scale_of_the_whole_image_counts_too_and_one_without_a_unit_is_no_pixel_size():
    scale = [{"type": "scale", "scale": [2.0, 2.0]}]
    found = read_multiscale(group({"multiscales": [document(coordinateTransformations=scale)]}))
    assert found is not None
    assert found.pixel_size == {"y": 0.5, "x": 1.0}
    axes = [{"name": a, "type": "space"} for a in "yx"]
    found = read_multiscale(group({"multiscales": [document(axes=axes)]}))
    assert found is not None
    assert found.pixel_size is None
    for without in ({}, {"multiscales": []}):
        assert read_multiscale(group(without)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": None},
        {"axes": []},
        {"axes": [{"name": "y"}, {"name": "y"}]},
        {"axes": [{"name": "q"}, {"name": "x"}]},
        {"axes": [{}, {}]},
        {"datasets": []},
        {"datasets": [{}]},
        {"datasets": 3},
        {"datasets": [{"path": "../../x"}]},
        {"datasets": [{"path": "/etc"}]},
        {"datasets": [{"path": "s3://b/x"}]},
        {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale"}]}]},
        {
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": ["a", 1]}]}
            ]
        },
    ],
)
def test_senseless_documents_are_refused(changes):
    with pytest.raises(InputError, match="must"):
        read_multiscale(group({"multiscales": [document(**changes)]}))


def test_levels_of_means_are_shifted_by_half_a_block():
    sizes = {"y": 0.5, "x": 0.5}
    factors = [(1, 1), (2, 2), (4, 4)]
    (mean,) = multiscales(name="a", axes="cyx", pixel_size=sizes, factors=factors, nearest=False)
    steps = [level["coordinateTransformations"] for level in mean["datasets"]]
    assert steps[0] == [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    # A pixel of level 2 covers pixels 0 to 3, whose centre is at 1.5 pixels, 0.75 micrometres.
    assert steps[2] == [
        {"type": "scale", "scale": [1.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 0.75, 0.75]},
    ]
    (kept,) = multiscales(name="a", axes="yx", pixel_size=sizes, factors=factors)
    assert all(len(level["coordinateTransformations"]) == 1 for level in kept["datasets"])


def test_channel_names_fall_back_to_numbers():
    labels = {"omero": {"channels": [{"label": "DAPI"}, {}]}}
    assert channel_names(group({"ome": labels}), 2) == ("DAPI", "1")
    assert channel_names(group({"ome": labels}), 3) == ("0", "1", "2")
    own = {"unetkit": {"channel_names": ["a", "b"]}, "ome": labels}
    assert channel_names(group(own), 2) == ("a", "b")
    assert channel_names(group({}), 1) == ("0",)


def test_one_channel_is_white_and_three_are_red_green_blue():
    assert [c["color"] for c in omero(["grey"])["channels"]] == ["FFFFFF"]
    assert [c["color"] for c in omero("rgb")["channels"]] == ["FF0000", "00FF00", "0000FF"]
    assert len(omero("abcdefgh")["channels"]) == 8


def test_axes_letters():
    assert check_axes("YX", 2, url="a") == "yx"
    for axes, ndim in (("yx", 3), ("yy", 2), ("cy", 2), ("qyx", 3), ("", 0)):
        assert not are_axes(axes, ndim)
        with pytest.raises(UsageError, match="axes must be"):
            check_axes(axes, ndim, url="a")


@pytest.mark.parametrize("listed", [None, "a", ["a"], [{}], [{"name": ".."}], [{"name": "a/b"}, 3]])
def test_a_senseless_list_of_samples_is_refused(listed):
    with pytest.raises(InputError, match="must be"):
        listed_samples(group({"unetkit": {"kind": "dataset", "samples": listed}}))


def test_a_sample_is_its_own_source_where_none_is_named():
    listed = [{"name": "a"}, {"name": "b", "source": "a"}]
    node = group({"unetkit": {"kind": "dataset", "samples": listed}})
    assert listed_samples(node) == [("a", "a", "here.zarr/a"), ("b", "a", "here.zarr/b")]
