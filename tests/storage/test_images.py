"""What lies at a path is told without creating anything, and opens as an image with its parts."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, LabelError, MissingError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset, write_sample
from unetkit.storage.image_writer import create_image, create_labels, create_weights
from unetkit.storage.images import channel_numbers, detect, open_image
from unetkit.storage.pyramids import thumbnail


def test_what_was_written_reads_back(tmp_path):
    url = str(tmp_path / "slide.ome.zarr")
    array = create_image(
        url, shape=(2, 6, 5), axes="cyx", dtype=np.uint16, channel_names=("DAPI", "GFP")
    )
    content = np.arange(60, dtype=np.uint16).reshape(2, 6, 5)
    array.write(0, 0, 0, content)
    image = open_image(f"{url}/", channels="GFP")
    assert (image.name, image.levels, image.channel_names) == ("slide", 1, ("GFP",))
    np.testing.assert_array_equal(image.data.read(0, 0, 6, 0, 5), content[1:])


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_an_image_and_its_labels_are_arrays(tmp_path):
    url = str(tmp_path / "a.zarr")
    array = np.arange(3 * 7 * 5, dtype="u2").reshape(3, 7, 5)
    labels = array[0] % 3
    write_sample(url, array, axes="cyx", labels=labels, channel_names=["a", "b", "c"])
    image = open_image(url, channels="c,a")
    assert (image.axes, image.shape, image.dtype) == ("cyx", (2, 7, 5), np.uint16)
    np.testing.assert_array_equal(image, array[[2, 0]])
    np.testing.assert_array_equal(image.to_dask(), array[[2, 0]])
    (sample,) = open_dataset(url).samples
    np.testing.assert_array_equal(sample.image, array)
    np.testing.assert_array_equal(sample.labels(), labels)


def test_the_four_kinds(tmp_path):
    at = f"{tmp_path}/".__add__
    DatasetWriter(at("dataset.zarr"))
    create_image(at("image.zarr"), shape=(4, 4), axes="yx", dtype=np.uint8)
    zarr.create_array(at("array.zarr"), data=np.zeros((4, 4), np.uint8))
    zarr.create_group(at("stack.zarr"))
    zarr.create_array(at("stack.zarr/images"), data=np.zeros((2, 4, 4), np.uint8))
    before = listing(tmp_path)
    for kind in ("image", "array", "stack", "dataset"):
        assert detect(at(f"{kind}.zarr")) == detect(at(f"{kind}.zarr/")) == kind
    assert listing(tmp_path) == before


def test_a_misspelt_path_creates_nothing(tmp_path):
    create_image(str(tmp_path / "slide.zarr"), shape=(4, 4), axes="yx", dtype=np.uint8)
    before = listing(tmp_path)
    for wrong in ("slid.zarr", "slide.zarr/nothing", "no/such/slide.zarr"):
        for look in (detect, open_image):
            with pytest.raises(MissingError, match="must exist"):
                look(str(tmp_path / wrong))
    with pytest.raises(MissingError, match=r"did you mean '.*slide\.zarr'"):
        detect(str(tmp_path / "slid.zarr"))
    assert listing(tmp_path) == before


def test_a_folder_of_images_names_the_import_line(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.tif", "notes.txt"):
        (folder / name).touch()
    with pytest.raises(InputError, match=r"2 image files; run 'unetkit import .*images\.zarr'"):
        detect(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.tif", "notes.txt"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, rf"unetkit import .*{name} c\.zarr") for name in ("c.tif", "c.PNG", "c.jpeg")),
        ("model.safetensors", "model file"),
        ("slide.zarr.zip", "zip file; unpack it"),
        ("slide.ozx", "zip file; unpack it"),
        ("notes.txt", "got a file"),
    ],
)
def test_other_files_get_one_sentence(name, words, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=words):
        detect(str(tmp_path / name))


def test_other_folders_get_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder without one"):
        detect(str(tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []
    zarr.create_group(str(tmp_path / "other"))
    with pytest.raises(InputError, match="another Zarr group"):
        detect(str(tmp_path / "other"))
    for key in ("plate", "well", "bioformats2raw.layout"):
        attributes = {"ome": {"version": "0.5", key: 3}}
        zarr.create_group(str(tmp_path / key), attributes=attributes)
        kinds = {"bioformats2raw.layout": "series"}
        assert detect(str(tmp_path / key)) == kinds.get(key, key)
        with pytest.raises(InputError, match=r"must follow OME-Zarr|got a series of 0"):
            open_image(str(tmp_path / key))


def lay_collection(folder, kind, there):
    """Write a plate, a well or a series, with images in the places of `there`."""
    url = str(folder / f"{kind}.ome.zarr")
    documents = {
        "plate": {"": {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}},
        "well": {"": {"well": {"images": [{"path": "0"}, {"path": "7"}]}}},
        "series": {"": {"bioformats2raw.layout": 3}, "/OME": {"series": ["one", "two"]}},
        "unlisted": {"": {"bioformats2raw.layout": 3}},
    }[kind]
    if kind == "plate":
        documents |= {f"/{well}": documents_of_well for well, documents_of_well in WELLS.items()}
    for place, document in documents.items():
        zarr.create_group(f"{url}{place}", zarr_format=2, attributes=document, overwrite=False)
    for place in there:
        create_image(f"{url}/{place}", shape=(8, 8), axes="yx", dtype="u1", ome_version="0.4")
    return url


WELLS = {name: {"well": {"images": [{"path": "0"}]}} for name in ("A/1", "B/2")}


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("plate", ["A/1/0"]),
        ("plate", ["B/2/0"]),
        ("well", ["7"]),
        ("series", ["two"]),
        ("unlisted", ["0"]),
        ("plate", []),
    ],
)
def test_the_advice_for_a_collection_names_an_image_that_opens(kind, there, tmp_path):
    url = lay_collection(tmp_path, kind, there)
    if kind == "unlisted":
        assert open_image(url).data.shape == (8, 8)
        return
    with pytest.raises(InputError, match=f"must hold one image, got a {kind} of 2") as caught:
        open_image(url)
    named = str(caught.value).rpartition(" such as ")[2] if there else None
    assert named == (f"{url}/{there[0]}" if there else None)
    if named:
        assert open_image(named).data.shape == (8, 8)


def test_labels_of_one_z_stand_for_every_z(tmp_path):
    url = str(tmp_path / "stack.zarr")
    create_image(url, shape=(3, 40, 30), axes="zyx", dtype="u1")
    labels = create_labels(url, "instances", shape=(1, 40, 30), axes="zyx", dtype="u2")
    content = np.arange(1200, dtype=np.uint16).reshape(40, 30)
    labels.write(0, 0, 0, content)
    found = open_image(url).labels["instances"]
    assert (found.planes, found.shape) == (3, (3, 40, 30))
    for plane in range(3):
        np.testing.assert_array_equal(found.read(plane, 0, 40, 0, 30), content)
        np.testing.assert_array_equal(thumbnail(found, plane, side=20), content[::2, ::2])


def version_4(folder, array, axes):
    """Write an image as OME-Zarr 0.4: Zarr 2, attributes at the top, with class labels."""
    url = str(folder / "old.zarr")

    def image(axes):
        described = [{"name": a, "type": "space", "unit": "micrometer"} for a in axes]
        scale = [{"type": "scale", "scale": [0.5] * len(axes)}]
        levels = [{"path": "0", "coordinateTransformations": scale}]
        return {"version": "0.4", "axes": described, "datasets": levels, "name": "old"}

    def group(place, **attributes):
        zarr.create_group(place, zarr_format=2, attributes=attributes)

    channels = {"channels": [{"label": "DAPI"}, {"label": "1"}]}
    group(url, multiscales=[image(axes)], omero=channels)
    group(f"{url}/labels", labels=["classes", "other"])
    group(f"{url}/labels/classes", multiscales=[image(axes[1:])])
    zarr.create_array(f"{url}/0", data=array, chunks=(1, 8, 8), zarr_format=2)
    zarr.create_array(f"{url}/labels/classes/0", data=array[0] % 3, chunks=(8, 8), zarr_format=2)
    return url


def test_version_0_4_is_read_with_its_labels(tmp_path):
    array = np.arange(2 * 20 * 10, dtype=np.uint16).reshape(2, 20, 10)
    image = open_image(version_4(tmp_path, array, "cyx"))
    assert (image.name, image.data.axes) == ("old", "cyx")
    assert image.pixel_size == {"y": 0.5, "x": 0.5}
    assert image.other_labels == ("other",)
    np.testing.assert_array_equal(image.data.read(0, 0, 20, 0, 10), array)
    np.testing.assert_array_equal(image.labels["classes"].read(0, 0, 20, 0, 10), array[0] % 3)
    # The second channel is called "1", and names count before numbers.
    assert open_image(image.url, channels="1,DAPI").channel_names == ("1", "DAPI")


@pytest.mark.parametrize(
    ("shape", "names", "axes", "found"),
    [
        ((20, 10), None, None, "yx"),
        ((20, 10), ("x", "y"), None, "xy"),
        ((2, 20, 10), ("C", "Y", "X"), None, "cyx"),
        ((2, 20, 10), None, "zyx", "zyx"),
        ((2, 20, 10), ("c", "y", "x"), "ZYX", "zyx"),
        ((20, 10, 3), None, "yxc", "yxc"),
    ],
)
def test_axes_of_a_bare_array(shape, names, axes, found, tmp_path):
    url = str(tmp_path / "bare.zarr")
    zarr.create_array(url, data=np.zeros(shape, np.uint8), dimension_names=names)
    assert open_image(url, axes=axes).data.axes == found
    # So xarray names those of an array of Zarr 2.
    own = {"_ARRAY_DIMENSIONS": list(found)}
    zarr.create_array(f"{url}/2", shape=shape, dtype="u1", zarr_format=2, attributes=own)
    assert open_image(f"{url}/2").data.axes == found


@pytest.mark.parametrize("names", [None, ("a", "b", "c"), ("band", "y", "x"), ("c", "c", "x")])
def test_more_dimensions_without_names_ask_for_axes(names, tmp_path):
    url = str(tmp_path / "bare.zarr")
    zarr.create_array(url, data=np.zeros((2, 4, 4), np.uint8), dimension_names=names)
    with pytest.raises(InputError, match="add --axes, such as --axes cyx"):
        open_image(url)
    with pytest.raises(UsageError, match="3 different letters"):
        open_image(url, axes="yx")


def test_axes_that_contradict_the_metadata_are_refused(tmp_path):
    url = str(tmp_path / "a.zarr")
    create_image(url, shape=(3, 4, 4), axes="cyx", dtype=np.uint8)
    assert open_image(url, axes="CYX").data.axes == "cyx"
    with pytest.raises(UsageError, match="axes must be 'cyx'"):
        open_image(url, axes="zyx")


def test_channels_are_chosen_by_name_before_number():
    names = ["1", "0", "GFP"]
    assert channel_numbers("0", names, of="a") == [1]
    assert channel_numbers("GFP, 1", names, of="a") == [2, 0]
    assert channel_numbers("2", names, of="a") == [2]
    assert channel_numbers("gfp", names, of="a") == [2]
    assert channel_numbers("a,A", ["A", "a"], of="a") == [1, 0]
    for wrong in ("3", "gfb", "", "-1", "GFP,", "²"):
        with pytest.raises(UsageError, match=r"it has channels 0 \(1\), 1 \(0\), 2 \(GFP\)"):
            channel_numbers(wrong, names, of="a")
    # A number alone would read as how many there are.
    with pytest.raises(UsageError, match=r"got '5'; it has channel '0'$"):
        channel_numbers("5", ["0"], of="a")
    with pytest.raises(UsageError, match="each channel once"):
        channel_numbers("GFP,2", names, of="a")


def labelled(folder):
    url = str(folder / "a.zarr")
    create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    create_labels(url, "instances", shape=(4, 4), axes="yx", dtype=np.uint8)
    create_weights(url, shape=(4, 4), axes="yx")
    return url


@contextmanager
def edited(url):
    """Change the metadata of an array or group behind its back."""
    path = Path(url, "zarr.json")
    document = json.loads(path.read_text())
    yield document
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("part", "dtype", "words"),
    [
        ("labels/instances/0", "float32", "must be integers, got float32"),
        ("weights/0", "int8", "must be floats"),
    ],
)
def test_labels_are_integers_as_large_as_their_image_and_weights_floats(
    part, dtype, words, tmp_path
):
    url = labelled(tmp_path)
    assert open_image(url).weights is not None
    with edited(f"{url}/{part}") as document:
        document |= {"data_type": dtype, "fill_value": 0}
    with pytest.raises(LabelError, match=words):
        open_image(url)
    with edited(f"{url}/labels/instances/0") as document:
        document |= {"data_type": "uint8", "shape": [5, 4]}
    with pytest.raises(InputError, match=r"as large as its image, got \(5, 4\) .*\(4, 4\)"):
        open_image(url)


@pytest.mark.parametrize(
    "names", [["../../x"], ["/etc"], ["a/../../b"], ["http://h"], ["..\\x"], ["x\0"], [7], 3, "ab"]
)
def test_hostile_label_names_are_refused(names, tmp_path):
    url = labelled(tmp_path)
    with edited(f"{url}/labels") as document:
        document["attributes"]["ome"]["labels"] = names
    with pytest.raises(InputError, match="must be"):
        open_image(url)


def test_a_list_of_a_million_labels_is_refused(tmp_path):
    url = labelled(tmp_path)
    with edited(f"{url}/labels") as document:
        document["attributes"]["ome"]["labels"] = [f"n{k}" for k in range(10**6)]
    with pytest.raises(InputError, match="at most 10,000 names, got 1,000,000"):
        open_image(url)


def test_labels_behind_a_link_out_of_the_store_are_refused(tmp_path):
    url = labelled(tmp_path)
    inside = tmp_path / "a.zarr" / "labels" / "instances"
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must be a path inside it"):
        open_image(url)


@pytest.mark.parametrize("place", ["0", "labels/instances/0", "weights/0"])
def test_a_pickle_filter_is_refused_wherever_it_lies(place, tmp_path):
    url = labelled(tmp_path)
    folder = tmp_path / "a.zarr" / place
    (folder / "zarr.json").unlink()
    hostile = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "<u2"}
    hostile |= {"compressor": None, "filters": [{"id": "pickle"}]}
    (folder / ".zarray").write_text(json.dumps(hostile))
    with pytest.raises(InputError, match="compressor and filters"):
        open_image(url)


def test_a_hostile_sibling_does_not_hide_the_image(tmp_path):
    url = labelled(tmp_path)
    (tmp_path / "a.zarr" / "sibling").mkdir()
    (tmp_path / "a.zarr" / "sibling" / ".zarray").write_text('{"filters": [{"id": "pickle"}]}')
    assert open_image(url).labels


def test_metadata_that_does_not_fit_its_array_is_refused(tmp_path):
    url = labelled(tmp_path)
    with edited(url) as document:
        multiscale = document["attributes"]["ome"]["multiscales"][0]
        multiscale["axes"].insert(0, {"name": "c", "type": "channel"})
        multiscale["datasets"][0]["coordinateTransformations"] = []
    with pytest.raises(InputError, match="must have the axes 'cyx' of its metadata"):
        open_image(url)
    with edited(url) as document:
        document["attributes"]["ome"]["multiscales"][0]["datasets"] = [{"path": "7"}]
    with pytest.raises(InputError, match="must be an array, got none"):
        open_image(url)
