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
    placement_of,
    read_multiscale,
)


def group(attributes):
    return GroupNode("here.zarr", 3, attributes)


def level(scale, *more):
    steps = [{"type": "scale", "scale": scale}, *more]
    return {"path": "0", "coordinateTransformations": steps}


def document(**changes):
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    return {"axes": axes, "datasets": [level([250.0, 500.0])], **changes}


def test_what_is_written_reads_back():
    attributes = NewGroup(
        kind="image",
        name="cells",
        axes="czyx",
        placement=placement_of({"y": 0.25, "x": 0.5}),
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


@pytest.mark.parametrize("scale", [[float("nan"), 0.5], [0.5, 0.0], [float("inf"), 1]])
def test_a_scale_that_is_no_size_is_unknown(scale):
    found = read_multiscale(group({"multiscales": [document(datasets=[level(scale)])]}))
    assert found is not None
    assert found.pixel_size is None
    (written,) = multiscales(name="a", axes="yx", placement=found.placement, factors=[(1, 1)])
    kept = [n if n > 0 and n < 9 else 1.0 for n in scale]
    assert written["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": kept}]


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_images_of_versions_without_axes_have_five(version):
    told = {"version": version, "datasets": [{"path": "0"}]}
    named = {"axes": ["c", "y", "x"]} if version == "0.3" else {}
    found = read_multiscale(group({"multiscales": [{**told, **named}]}))
    assert found is not None
    assert found.axes == ("cyx" if named else "tczyx")
    assert found.pixel_size is None


def test_levels_lie_where_the_first_one_does():
    moved = level([2.0, 4.0], {"type": "translation", "translation": [10.0, -20.0]})
    whole = [{"type": "translation", "translation": [1.0, 2.0]}]
    read = group({"multiscales": [document(datasets=[moved], coordinateTransformations=whole)]})
    found = read_multiscale(read)
    assert found is not None
    kept, mean = (
        multiscales(
            name="a",
            axes="yx",
            placement=found.placement,
            factors=[(1, 1), (2, 2)],
            nearest=nearest,
        )[0]
        for nearest in (True, False)
    )
    assert kept["axes"] == document()["axes"]
    first = moved["coordinateTransformations"]
    assert [entry["datasets"][0]["coordinateTransformations"] for entry in (kept, mean)] == [
        first,
        first,
    ]
    identity = {"type": "scale", "scale": [1.0, 1.0]}
    assert kept["coordinateTransformations"] == [identity, *whole]
    assert kept["datasets"][1]["coordinateTransformations"][1] == first[1]
    # The centre of a block of two by two pixels of 2 x 4 units lies half a pixel further on.
    shifted = {"type": "translation", "translation": [11.0, -18.0]}
    assert mean["datasets"][1]["coordinateTransformations"][1] == shifted


@pytest.mark.parametrize(
    ("axes", "letters"),
    [
        ([{"name": "channel", "type": "channel"}, "y", "x"], "cyx"),
        ([{"name": "wavelength", "type": "channel"}, {"name": "Y"}, {"name": "X"}], "cyx"),
        ([{"name": "frame", "type": "time"}, "height", "width"], "tyx"),
        (["time", "channel", "depth", "row", "column"], "tczyx"),
    ],
)
def test_axes_are_known_by_their_type_or_by_a_word(axes, letters):
    datasets = [level([1.0] * len(axes))]
    found = read_multiscale(group({"multiscales": [document(axes=axes, datasets=datasets)]}))
    assert found is not None
    assert found.axes == letters


LENGTHS = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "yx"]


def later(step, *, systems=("physical",), output="physical", axes=LENGTHS):
    """Return a group of version 0.6 whose only level is placed by a step."""
    ends = {"input": {"path": "s0"}, "output": {"name": output}}
    document = {
        "name": "cells",
        "coordinateSystems": [{"name": name, "axes": axes} for name in systems],
        "datasets": [{"path": "s0", "coordinateTransformations": [{**step, **ends}]}],
    }
    return group({"ome": {"version": "0.6", "multiscales": [document]}})


SCALE = {"type": "scale", "scale": [500.0, 250.0]}
SHIFT = {"type": "translation", "translation": [30, 20]}


@pytest.mark.parametrize(
    ("step", "size", "shift"),
    [
        (SCALE, {"y": 0.5, "x": 0.25}, {"y": 0, "x": 0}),
        ({"type": "sequence", "transformations": [SCALE, SHIFT]}, None, {"y": 30, "x": 20}),
        ({"type": "sequence", "transformations": [SHIFT, SCALE]}, None, {"y": 15e3, "x": 5e3}),
    ],
)
def test_scales_and_translations_of_version_06_are_read(step, size, shift):
    found = read_multiscale(later(step, systems=("elsewhere", "physical")))
    assert found is not None
    assert (found.axes, found.name, found.version) == ("yx", "cells", "0.6")
    assert found.pixel_size == (size or {"y": 0.5, "x": 0.25})
    level = found.placement.level
    assert {axis: level.shift.get(axis, 0) for axis in "yx"} == shift


def test_the_whole_example_of_the_specification_is_read():
    kinds = {"t": ("time", "millisecond"), "c": ("channel", None)}
    axes = [
        dict(
            zip(("name", "type", "unit"), (a, *kinds.get(a, ("space", "micrometer"))), strict=True)
        )
        for a in "tczyx"
    ]
    found = read_multiscale(later({"type": "scale", "scale": [0.1, 1, 0.5, 0.5, 0.5]}, axes=axes))
    assert found is not None
    assert found.axes == "tczyx"
    assert found.pixel_size == {"z": 0.5, "y": 0.5, "x": 0.5}
    plain = read_multiscale(later({"type": "identity"}))
    assert plain is not None
    assert plain.placement.scale == {}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (later({"type": "rotation", "rotation": [[0, 1], [1, 0]]}), "scales and translations, got"),
        (
            later({"type": "sequence", "transformations": [SCALE, {"type": "affine"}]}),
            "of the type 'affine'; write it with these",
        ),
        (later(SCALE, output="nowhere"), "lead to one of its coordinate systems, got 'nowhere'"),
        (later({"type": "scale", "path": "scales"}), "must follow OME-Zarr 0.1 to 0.6"),
        (later(SCALE, axes=[{"name": "y"}, {"name": "d"}]), "must follow OME-Zarr 0.1 to"),
        (later(SCALE, systems=()), "lead to one of its coordinate systems"),
    ],
)
def test_what_else_version_06_can_say_is_refused_in_a_sentence(node, said):
    with pytest.raises(InputError, match=said):
        read_multiscale(node)


def test_a_version_that_is_not_known_yet_is_named():
    unknown = {"datasets": [{"path": "0"}]}
    with pytest.raises(InputError, match=r"0\.1 to 0\.6, got version 0\.7"):
        read_multiscale(group({"ome": {"version": "0.7", "multiscales": [unknown]}}))


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
        *(
            {"datasets": [level(scale)]}
            for scale in (["a", 1], ["1", "1"], [10**400, 1], [True, 1])
        ),
        *({"coordinateTransformations": steps} for steps in (["scale"], [None], None, {"a": 1}, 3)),
        {"datasets": [{"path": "0", "coordinateTransformations": {"type": "scale"}}]},
    ],
)
def test_senseless_documents_are_refused(changes):
    with pytest.raises(InputError, match="must"):
        read_multiscale(group({"multiscales": [document(**changes)]}))


def test_levels_of_means_are_shifted_by_half_a_block():
    sizes = placement_of({"y": 0.5, "x": 0.5})
    factors = [(1, 1), (2, 2), (4, 4)]
    (mean,) = multiscales(name="a", axes="cyx", placement=sizes, factors=factors, nearest=False)
    steps = [level["coordinateTransformations"] for level in mean["datasets"]]
    assert steps[0] == [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    # A pixel of level 2 covers pixels 0 to 3, whose centre is at 1.5 pixels, 0.75 micrometres.
    assert steps[2] == [
        {"type": "scale", "scale": [1.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 0.75, 0.75]},
    ]
    (kept,) = multiscales(name="a", axes="yx", placement=sizes, factors=factors)
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
    listed = [{"name": "a"}, {"name": "b", "source": "a", "group": "mouse1"}]
    node = group({"unetkit": {"kind": "dataset", "samples": listed}})
    found = [(one.name, one.source, one.group) for one in listed_samples(node)]
    assert found == [("a", "a", None), ("b", "a", "mouse1")]
