"""What lies at a path is told without creating anything."""

import json

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, MissingError
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import detect


def group(folder, attributes):
    folder.mkdir()
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / "zarr.json").write_text(json.dumps(document))
    return str(folder)


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_four_kinds(tmp_path):
    def at(name):
        return str(tmp_path / name)

    DatasetWriter(at("data.zarr"))
    create_image(at("image.zarr"), shape=(4, 4), axes="yx", dtype=np.uint8)
    zarr.create_array(at("array.zarr"), data=np.zeros((4, 4), np.uint8))
    zarr.create_group(at("stack.zarr"))
    zarr.create_array(at("stack.zarr/images"), data=np.zeros((2, 4, 4), np.uint8))
    before = listing(tmp_path)
    for kind in ("image", "array", "stack"):
        assert detect(at(f"{kind}.zarr")) == kind
        assert detect(at(f"{kind}.zarr/")) == kind
    assert detect(at("data.zarr")) == "dataset"
    assert listing(tmp_path) == before


def test_a_misspelt_path_creates_nothing(tmp_path):
    create_image(str(tmp_path / "slide.zarr"), shape=(4, 4), axes="yx", dtype=np.uint8)
    before = listing(tmp_path)
    for wrong in ("slid.zarr", "slide.zarr/nothing", "no/such/slide.zarr"):
        with pytest.raises(MissingError, match="must exist"):
            detect(str(tmp_path / wrong))
    with pytest.raises(MissingError, match=r"did you mean '.*slide\.zarr'"):
        detect(str(tmp_path / "slid.zarr"))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["cells.tif", "cells.PNG", "cells.jpeg"])
def test_an_image_file_names_the_import_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"pixels")
    with pytest.raises(InputError, match=rf"unetkit import .*{name} cells\.zarr"):
        detect(str(tmp_path / name))


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
        ("model.safetensors", "model file"),
        ("slide.zarr.zip", "zip file"),
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
    with pytest.raises(InputError, match="another Zarr group"):
        detect(group(tmp_path / "other.zarr", {}))
    for key in ("plate", "well", "bioformats2raw.layout"):
        url = group(tmp_path / key, {"ome": {"version": "0.5", key: 3}})
        with pytest.raises(InputError, match="collection of images; name one"):
            detect(url)
    assert [path.name for path in (tmp_path / "empty").iterdir()] == []
