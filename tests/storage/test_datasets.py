"""Datasets as they are built and read: samples with their parts, the list last, and stacks."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import (
    InputError,
    LabelError,
    MissingError,
    OutputError,
    ResourceError,
    UsageError,
)
from unetkit.storage.datasets import (
    DatasetWriter,
    label_dtype,
    open_dataset,
    order_remark,
    write_sample,
)
from unetkit.storage.image_writer import create_image, create_labels, create_weights
from unetkit.storage.images import open_image

PIXELS = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)


def dataset(folder, **shapes):
    """Write samples of the named channel counts."""
    writer = DatasetWriter(str(folder / "data.zarr"))
    for name, count in shapes.items():
        writer.add(name, PIXELS[:count], axes="cyx", source="s", channel_names="rgb"[:count])
    writer.finish()
    return writer.url


@pytest.fixture
def writer(tmp_path):
    return DatasetWriter(str(tmp_path / "data.zarr"))


def test_a_dataset_reads_back_sample_by_sample(tmp_path):
    found = open_dataset(dataset(tmp_path, a=3, b=3), channels="b,r")
    assert (found.kind, found.names) == ("dataset", ("a", "b"))
    sample = found["b"]
    assert (sample.source, sample.image.channel_names) == ("s", ("b", "r"))
    np.testing.assert_array_equal(sample.data.read(0, 0, 4, 0, 4), PIXELS[[2, 0]])
    with pytest.raises(InputError, match="one of a, b, got 'c'"):
        found["c"]


def test_labels_that_are_not_there_name_the_remedy(tmp_path):
    sample = open_dataset(dataset(tmp_path, a01=1))["a01"]
    assert (sample.label_kind, sample.ignore, sample.weights) == (None, None, None)
    assert sample.class_names == ()
    with pytest.raises(InputError) as caught:
        sample.labels()
    assert str(caught.value) == (
        "sample 'a01' in data.zarr has no labels; run 'unetkit import' with --labels"
    )
    with pytest.raises(InputError, match="no labels of the kind 'classes'"):
        sample.labels("classes")


def test_samples_with_other_channel_counts_are_named(tmp_path):
    url = dataset(tmp_path, a=3, b=3, odd=1)
    with pytest.raises(InputError, match="3 in 'a' and 1 in 'odd'; choose some with --channels"):
        open_dataset(url)
    assert open_dataset(url, channels="r").names == ("a", "b", "odd")
    assert open_dataset(url, mixed=True).names == ("a", "b", "odd")
    with pytest.raises(UsageError, match=r"those of odd, got 'g'; it has channel 0 \(r\)$"):
        open_dataset(url, channels="g")


def test_only_one_sample_is_an_image_and_no_sample_no_dataset(tmp_path):
    url = dataset(tmp_path)
    with pytest.raises(InputError, match="at least one sample"):
        open_dataset(url)
    assert open_dataset(url, empty=True).samples == ()
    with pytest.raises(InputError, match="dataset of 0"):
        open_image(url)
    assert open_image(dataset(tmp_path, a01=1)).name == "a01"
    dataset(tmp_path, a02=1)
    with pytest.raises(InputError, match=r"dataset of 2; name one, such as .*data\.zarr/a01"):
        open_image(url)
    assert open_image(f"{url}/a02").name == "a02"


def test_an_image_counts_as_a_dataset_of_one_and_so_does_a_bare_array(tmp_path):
    url = str(tmp_path / "slide.zarr")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    found = open_dataset(url)
    assert (found.kind, found.names, found["slide"].source) == ("image", ("slide",), "slide")
    with pytest.raises(InputError, match="must be a dataset"):
        DatasetWriter(url)  # only a dataset gets samples
    url = str(tmp_path / "bare.zarr")
    zarr.create_array(url, data=PIXELS)
    assert open_dataset(url, axes="cyx", channels="2")["bare"].data.channels == 1


def edit(folder, samples):
    path = folder / "data.zarr" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["unetkit"]["samples"] = samples
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["../other", "/etc", "a/../..", "s3://b", "", "x\0", 7])
def test_hostile_sample_names_are_refused(name, tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": name}])
    with pytest.raises(InputError, match="must be a plain folder name"):
        open_dataset(url)


def test_a_sample_behind_a_link_out_of_the_store_is_refused(tmp_path):
    url = dataset(tmp_path, a=1)
    (tmp_path / "data.zarr" / "a").rename(tmp_path / "elsewhere")
    (tmp_path / "data.zarr" / "a").symlink_to(tmp_path / "elsewhere")
    for opening in (open_dataset, open_image):
        with pytest.raises(InputError, match="must be a path inside it"):
            opening(url)


@pytest.mark.parametrize("names", ["aa", ["a", "./a"], ["a", "A/../a"], ["a"] * 50_000])
def test_no_sample_counts_twice(names, tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": name} for name in names])
    with pytest.raises(InputError, match=r"different names, got 'a' twice|plain folder name"):
        open_dataset(url)


def test_a_list_of_samples_that_are_not_there_is_refused_at_the_first(tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": f"s{n}"} for n in range(50_000)])
    with pytest.raises(MissingError, match=r"'unetkit remove .* s0', or restore it"):
        open_dataset(url)


def test_channels_of_one_name_are_one_channel_in_whatever_order_samples_have_them(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, order in (("a", "rgb"), ("b", "bgr"), ("c", "grb")):
        pixels = PIXELS[["rgb".index(channel) for channel in order]]
        writer.add(name, pixels, axes="cyx", channel_names=order)
    writer.finish()
    for channels, wanted in ((None, [0, 1, 2]), ("1", [1]), ("b,0", [2, 0])):
        for sample in open_dataset(writer.url, channels=channels).samples:
            assert "".join(sample.image.channel_names) == "".join("rgb"[n] for n in wanted)
            np.testing.assert_array_equal(sample.data.read(0, 0, 4, 0, 4), PIXELS[wanted])


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ({"a": "xy", "b": "xy"}, None),
        ({"a": "01", "b": "01"}, None),
        ({"a": "xy", "b": "yx", "c": "yx"}, "different orders: x, y in 'a'; y, x in 'b'"),
        ({"a": "xy", "b": "xz"}, "different names: x, y in 'a'; x, z in 'b'"),
        ({"a": "01", "b": "xy"}, "different names: 0, 1 in 'a'; x, y in 'b'"),
    ],
)
def test_differing_channels_are_told(channels, said):
    remark = order_remark(channels)
    assert remark is None if said is None else remark == f"channels have {said}"


def labelled(folder, **labels):
    """Write an image with labels of these names, of 1 and 2, or of 3 where they are `other`."""
    url = str(folder / "site.ome.zarr")
    shape = {"shape": (4, 4), "axes": "yx"}
    create_image(url, dtype=np.uint8, **shape).write(0, 0, 0, PIXELS[0][None])
    for name, value in labels.items():
        create_labels(url, name, dtype=np.uint8, **shape).write(
            0, 0, 0, np.full((4, 4), value, np.uint8)
        )
    return url


@pytest.mark.parametrize(
    ("chosen", "kind", "value"),
    [
        (None, "instances", 1),
        ("classes", "classes", 2),
        ("nuclei", "instances", 3),
        ("tissue=classes", "classes", 4),
    ],
)
def test_labels_are_chosen_by_name(chosen, kind, value, tmp_path):
    url = labelled(tmp_path, instances=1, classes=2, nuclei=3, tissue=4, ignore=0)
    (sample,) = open_dataset(url, labels=chosen).samples
    assert sample.label_kind == kind
    assert sample.labels().read(0, 0, 1, 0, 1) == value
    assert sample.ignore is not None
    assert chosen is None or sorted(sample.image.labels) == sorted([kind, "ignore"])


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        ("nucleus", InputError, "got 'nucleus'; it has 'nuclei', 'cells'"),
        ("nuclei=masks", UsageError, "a name such as cells, or cells=classes"),
        ("ignore", UsageError, "a name such as cells"),
    ],
)
def test_labels_that_are_not_there_are_not_chosen(chosen, error, words, tmp_path):
    url = labelled(tmp_path, nuclei=1, cells=1)
    with pytest.raises(error, match=words):
        open_dataset(url, labels=chosen)
    with pytest.raises(InputError, match="got 'nuclei', 'cells'; choose with --labels nuclei, or"):
        open_dataset(url).samples[0].labels()


def test_weights_are_those_of_the_labels_they_were_made_for(tmp_path):
    url = labelled(tmp_path, instances=1, nuclei=2)
    create_weights(url, shape=(4, 4), axes="yx", attributes={"labels": "nuclei"})
    assert open_dataset(url).samples[0].weights is None
    assert open_dataset(url, labels="nuclei").samples[0].weights is not None


def test_a_listed_sample_must_be_there_and_be_an_image(tmp_path):
    url = dataset(tmp_path, a=1)
    edit(tmp_path, [{"name": "b"}])
    with pytest.raises(MissingError, match="must be there, got none"):
        open_dataset(url)
    zarr.create_array(f"{url}/b", data=PIXELS[0])
    with pytest.raises(InputError, match=r"sample 'b' .* must be an OME-Zarr image"):
        open_dataset(url)


PLANE = np.arange(20, dtype=np.uint8).reshape(5, 4)


def test_a_sample_with_all_its_parts_reads_back_and_is_valid(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"), attributes={"command": "import"})
    labels = PLANE.astype(np.int64) * 1000
    writer.add(
        "a01",
        np.stack([PLANE, PLANE + 1]),
        axes="cyx",
        source="slide 7",
        labels=labels,
        ignore=PLANE > 3,
        weights=PLANE / 2,
        channel_names=("DAPI", "GFP"),
        pixel_size={"y": 0.5, "x": 0.25},
        attributes={"a": np.float64(1)},
        label_attributes={"objects": 19},
        weights_attributes={"preset": "paper2015"},
    )
    writer.add("b", PLANE, axes="yx", labels=PLANE % 2, kind="classes", class_names=("bg", "cell"))
    writer.finish()
    found = open_dataset(writer.url, mixed=True)
    assert found.attributes["command"] == "import"
    a, b = found["a01"], found["b"]
    assert (a.source, a.label_kind, b.source, b.label_kind) == (
        "slide 7", "instances", "b", "classes"
    )  # fmt: skip
    assert b.class_names == ("bg", "cell")
    assert a.image.pixel_size == {"y": 0.5, "x": 0.25}
    assert a.image.attributes["a"] == 1.0
    assert a.image.label_attributes["instances"]["objects"] == 19
    assert a.image.weights_attributes["preset"] == "paper2015"
    assert a.labels().dtype == np.uint16
    assert a.ignore is not None
    assert a.weights is not None
    everything = (0, 0, 5, 0, 4)
    np.testing.assert_array_equal(a.data.read(*everything), [PLANE, PLANE + 1])
    np.testing.assert_array_equal(a.labels().read(*everything), labels)
    np.testing.assert_array_equal(a.ignore.read(*everything), PLANE > 3)
    np.testing.assert_array_equal(a.weights.read(*everything), PLANE / np.float32(2))
    for name in ("a01", "a01/labels", "a01/weights", "b", "b/labels"):
        yaozarrs.validate_zarr_store(f"{writer.url}/{name}")


@settings(max_examples=20, deadline=None)
@given(
    axes=st.sampled_from(["yx", "cyx", "zyx", "tyx", "tczyx", "tcyx", "czyx"]),
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
)
def test_arrays_of_any_axes_read_back(axes, sizes, tmp_path_factory):
    shape = tuple(size for size, axis in zip(sizes, "tczyx", strict=True) if axis in axes)
    content = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    url = str(tmp_path_factory.mktemp("w") / "a.zarr")
    labels = content.take(0, axis=axes.index("c")) if "c" in axes else content
    write_sample(url, content, axes=axes, labels=labels)
    image = open_image(url)
    # The oracle: planes in t, z order.
    order = [axes.index(axis) for axis in "tzcyx" if axis in axes]
    lead = sum(axis in "tz" for axis in axes)
    planes = content.transpose(order).reshape(-1, *content.transpose(order).shape[lead:])
    for number, plane in enumerate(planes):
        box = (number, 0, image.data.height, 0, image.data.width)
        wanted = plane if "c" in axes else plane[np.newaxis]
        np.testing.assert_array_equal(image.data.read(*box), wanted)
        np.testing.assert_array_equal(image.labels["instances"].read(*box), wanted[0])


def test_more_samples_can_be_added_later(tmp_path):
    url = str(tmp_path / "data.zarr")
    for name in ("a", "b"):
        writer = DatasetWriter(url, attributes={name: 1})
        writer.add(name, PLANE, axes="yx")
        writer.finish()
    found = open_dataset(url)
    assert found.names == ("a", "b")
    assert {"a", "b"} <= set(found.attributes)
    with pytest.raises(OutputError, match="must be new, got 'a' twice"):
        DatasetWriter(url).add("a", PLANE, axes="yx")


def test_what_an_interrupted_run_left_is_written_again(writer):
    DatasetWriter(writer.url).add("a", PLANE, axes="yx")
    writer.add("a", PLANE + 1, axes="yx")
    writer.finish()
    found = open_dataset(writer.url)["a"].data
    np.testing.assert_array_equal(found.read(0, 0, 5, 0, 4)[0], PLANE + 1)


def test_a_place_can_be_reserved_for_another_writer(writer):
    place = writer.reserve("a", source="s")
    with pytest.raises(InputError, match=r"sample 'a' .* must be written"):
        writer.finish()
    create_image(place, shape=(1, 2000, 4), axes="cyx", dtype=np.uint8)
    writer.finish()
    assert open_dataset(writer.url)["a"].image.levels == 2


def test_a_sample_that_fails_leaves_its_name_free_and_all_are_listed_at_the_end(writer):
    with pytest.raises(InputError, match="labels must be as large"):
        writer.add("a", PLANE, axes="yx", labels=PLANE[1:])
    writer.add("a", PLANE, axes="yx")
    assert open_dataset(writer.url, empty=True).names == ()
    writer.finish()
    assert open_dataset(writer.url).names == ("a",)


def test_names_that_are_no_folders_are_refused_and_strange_ones_work(writer):
    for name in ("", ".", "..", "a/b", "/a", ".hidden", "a\n", "zarr.json", "__x"):
        with pytest.raises(InputError, match="plain folder name"):
            writer.reserve(name)
    strange = ("exp[control]", "img[bold]", "a b", "äö", "-rf", "🔬")
    for name in strange:
        writer.add(name, PLANE, axes="yx", labels=PLANE)
    writer.finish()
    for name in strange:
        assert open_dataset(writer.url)[name].label_kind == "instances"


@pytest.mark.parametrize(
    "options", [{"kind": "cells"}, {"axes": "cyx"}, {"axes": "yy"}, {"axes": "xy"}]
)
def test_unknown_words_are_refused(options, tmp_path):
    with pytest.raises(UsageError, match="must"):
        write_sample(str(tmp_path / "a"), PLANE, **{"axes": "yx", **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(0, "u1"), (255, "u1"), (256, "u2"), (70_000, "u4"), (2**24 + 1, "u4"), (2**32 - 1, "u4")],
)
def test_ids_keep_their_values_in_the_narrowest_type(top, dtype):
    assert label_dtype(np.array([0, top])) == np.dtype(dtype)


@pytest.mark.parametrize(
    "labels", [np.array([-1]), np.array([2**32]), np.array([1.0]), np.array([np.nan])]
)
def test_labels_that_no_viewer_knows_are_refused(labels):
    with pytest.raises(LabelError, match="labels must"):
        label_dtype(labels)


IMAGES = np.arange(3 * 2 * 8 * 6, dtype=np.uint16).reshape(3, 2, 8, 6)


def stack(folder, arrays, **attributes):
    url = str(folder / "stack.zarr")
    zarr.create_group(url, attributes=attributes)
    for name, array in arrays.items():
        names = ("n", "c", "y", "x") if array.ndim == 4 else None
        zarr.create_array(f"{url}/{name}", data=array, dimension_names=names)
    return url


def test_samples_are_numbered_and_read_one_by_one(tmp_path):
    labels = (IMAGES[:, 0] % 5).astype(np.uint8)
    weights = labels / np.float32(2)
    found = open_dataset(stack(tmp_path, {"images": IMAGES, "labels": labels, "weights": weights}))
    assert (found.kind, found.names) == ("stack", ("0000", "0001", "0002"))
    for number, sample in enumerate(found.samples):
        assert sample.label_kind == "instances"
        assert (sample.data.axes, sample.data.shape) == ("cyx", (2, 8, 6))
        np.testing.assert_array_equal(sample.data.read(0, 1, 8, 0, 6), IMAGES[number, :, 1:])
        np.testing.assert_array_equal(sample.labels().read(0, 0, 8, 0, 6), labels[number])
        assert sample.weights is not None
        np.testing.assert_array_equal(sample.weights.read(0, 0, 8, 0, 6), weights[number])


@pytest.mark.parametrize("axes", [None, "yx", "nyx"])
def test_plain_planes_need_no_axes(axes, tmp_path):
    found = open_dataset(stack(tmp_path, {"images": IMAGES[:, 0]}), axes=axes)
    assert found["0002"].data.read(0, 0, 8, 0, 6).shape == (1, 8, 6)
    assert found["0002"].label_kind is None


def test_the_last_axis_may_be_channels(tmp_path):
    url = str(tmp_path / "s.zarr")
    zarr.create_group(url)
    zarr.create_array(f"{url}/images", data=IMAGES.transpose(0, 2, 3, 1))
    with pytest.raises(InputError, match="--axes"):
        open_dataset(url)
    sample = open_dataset(url, axes="nyxc", channels="1")["0001"]
    np.testing.assert_array_equal(sample.data.read(0, 0, 8, 0, 6), IMAGES[1, 1:])


def test_an_attribute_says_that_labels_are_classes(tmp_path):
    arrays = {"images": IMAGES[:, 0], "labels": (IMAGES[:, 0] % 2).astype(np.uint8)}
    own = {"label_kind": "classes", "class_names": ["a", "b"]}
    sample = open_dataset(stack(tmp_path, arrays, unetkit=own))["0000"]
    assert (sample.label_kind, sample.class_names) == ("classes", ("a", "b"))
    for number, names in enumerate((float("inf"), 7, "ab", [1, 2], {"a": 1})):
        (folder := tmp_path / str(number)).mkdir()
        sample = open_dataset(stack(folder, arrays, unetkit=own | {"class_names": names}))["0000"]
        with pytest.raises(InputError, match=r"class_names of .* must be names, got"):
            sample.class_names  # noqa: B018 - a property
    (tmp_path / "odd").mkdir()
    with pytest.raises(InputError, match="label_kind"):
        open_dataset(stack(tmp_path / "odd", arrays, unetkit={"label_kind": "cells"}))


@pytest.mark.parametrize(
    ("name", "array", "error", "words"),
    [
        ("labels", np.zeros((2, 8, 6), np.uint8), InputError, "one entry"),
        ("labels", np.zeros((3, 8, 7), np.uint8), InputError, "as large as its image"),
        ("labels", IMAGES[:, 0] / 2, LabelError, "must be integers"),
        ("weights", np.zeros((3, 8), np.float32), InputError, "one entry"),
        ("images", np.zeros((8, 6), np.uint8), InputError, r"\(N, Y, X\) or more"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, array, error, words, tmp_path):
    with pytest.raises(error, match=words):
        open_dataset(stack(tmp_path, {"images": IMAGES[:, 0], name: array}))


def test_a_stack_of_one_is_an_image_and_one_of_more_is_none(tmp_path):
    for name in ("one", "three"):
        (tmp_path / name).mkdir()
    image = open_image(stack(tmp_path / "one", {"images": IMAGES[:1]}))
    assert (image.name, image.data.shape) == ("0000", (2, 8, 6))
    with pytest.raises(InputError, match="a stack of 3"):
        open_image(stack(tmp_path / "three", {"images": IMAGES}))


def viewed(url):
    """List what napari's reader opens, which goes by the OME-XML, and hold the series to it."""
    document = ElementTree.parse(f"{url}/OME/METADATA.ome.xml").getroot()
    listed = [image.attrib["ID"].removeprefix("Image:") for image in document]
    attributes = dict(zarr.open_group(f"{url}/OME", mode="r").attrs)
    assert attributes.get("ome", attributes)["series"] == listed
    for path, image in zip(listed, document, strict=True):
        shape = zarr.open_array(f"{url}/{path}/0", mode="r").shape
        (pixels,) = image
        assert (int(pixels.attrib["SizeY"]), int(pixels.attrib["SizeX"])) == shape[-2:]
    return listed


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_viewers_find_the_samples_of_a_dataset(version, tmp_path):
    url = str(tmp_path / "data.zarr")
    writer = DatasetWriter(url, ome_version=version)
    for name in ("a", "b 2"):
        place = writer.reserve(name)
        create_image(place, shape=(1, 4, 6), axes="cyx", dtype="f4", ome_version=version)
    writer.finish()
    assert viewed(url) == ["a", "b 2"]
    if version == "0.5":  # of 0.4 it tells no version, which this layout does not have there
        yaozarrs.validate_zarr_store(url)
    root = dict(zarr.open_group(url, mode="r").attrs)
    assert root.get("ome", root)["bioformats2raw.layout"] == 3
    assert open_dataset(url).names == ("a", "b 2")
    writer = DatasetWriter(url)
    create_image(writer.reserve("c"), shape=(4, 6), axes="yx", dtype="u1", ome_version=version)
    writer.finish()
    writer.remove(["a"])
    assert viewed(url) == ["b 2", "c"]


def test_viewers_see_the_earlier_samples_where_the_list_can_not_be_written(tmp_path, faults):
    url = dataset(tmp_path, a=1)
    before = sorted(tmp_path.rglob("*"))
    writer = DatasetWriter(url)
    writer.add("b", PIXELS[0], axes="yx")
    with faults.at("open", "data.zarr/.zarr.json", 28, times=1), pytest.raises(ResourceError):
        writer.finish()
    assert viewed(url) == ["a"]
    assert [path for path in sorted(tmp_path.rglob("*")) if f"{url}/b" not in str(path)] == before


@pytest.mark.parametrize("name", ["OME", "ome", "caf\udce9"])
def test_no_sample_is_called_as_the_list_for_viewers_or_as_no_document_can_say(name, tmp_path):
    with pytest.raises(InputError, match="must be a plain folder name"):
        DatasetWriter(str(tmp_path / "data.zarr")).add(name, PIXELS[0], axes="yx")
