"""Only what carries our mark is ours."""

import json

import numpy as np
import pytest
import zarr
from safetensors.numpy import save_file

from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_weights
from unetkit.storage.outputs import written_by_unetkit


def test_stores_of_ours(tmp_path):
    DatasetWriter(str(tmp_path / "data.zarr"))
    create_image(str(tmp_path / "a.zarr"), shape=(4, 4), axes="yx", dtype=np.uint8)
    create_weights(str(tmp_path / "a.zarr"), shape=(4, 4), axes="yx")
    (tmp_path / "demo" / ".unetkit").mkdir(parents=True)
    for name in ("data.zarr", "a.zarr", "a.zarr/weights", "demo"):
        assert written_by_unetkit(str(tmp_path / name))


def test_foreign_stores_and_folders(tmp_path):
    zarr.create_array(str(tmp_path / "array.zarr"), data=np.zeros((4, 4)))
    zarr.create_group(str(tmp_path / "group.zarr"), attributes={"unetkit": {}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "zarr.json").write_text("{")
    for name in ("array.zarr", "group.zarr", "empty", "damaged", "nothing"):
        assert not written_by_unetkit(str(tmp_path / name))


def test_a_link_to_ours_is_not_ours(tmp_path):
    DatasetWriter(str(tmp_path / "data.zarr"))
    (tmp_path / "link.zarr").symlink_to(tmp_path / "data.zarr")
    assert not written_by_unetkit(str(tmp_path / "link.zarr"))


def test_models_are_known_by_their_header(tmp_path):
    tensors = {"a": np.zeros(2, np.float32)}
    save_file(tensors, tmp_path / "ours.safetensors", metadata={"unetkit": "{}"})
    save_file(tensors, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    save_file(tensors, tmp_path / "bare.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "empty.safetensors").touch()
    assert written_by_unetkit(str(tmp_path / "ours.safetensors"))
    for name in ("foreign", "bare", "junk", "empty", "nothing"):
        assert not written_by_unetkit(str(tmp_path / f"{name}.safetensors"))


@pytest.mark.parametrize(
    ("name", "content", "ours"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n....tEXtSoftware\0unetkit 0.1", True),
        ("a.png", b"\x89PNG\r\n\x1a\n....tEXtSoftware\0Fiji", False),
        ("a.html", b'<!DOCTYPE html><meta name="generator" content="unetkit 0.1">', True),
        ("a.html", b"<!DOCTYPE html><p>unetkit</p>", False),
        ("a.json", json.dumps({"unetkit": "0.1"}).encode(), True),
        ("a.json", b'{"note": "made with unetkit"}', False),
        ("thesis.docx", b"PK unetkit", False),
        ("thesis.tex", b"unetkit", False),
    ],
)
def test_files_are_known_by_a_mark(name, content, ours, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert written_by_unetkit(str(tmp_path / name)) is ours


def test_an_onnx_model_is_known_by_its_last_properties(tmp_path):
    path = tmp_path / "model.onnx"
    # An entry of the properties: key, its length, its text; then the value.
    path.write_bytes(b"\x08\x0a" + bytes(2**17) + b"\x72\x0d\x0a\x07unetkit\x12\x02{}")
    assert written_by_unetkit(str(path))
    path.write_bytes(path.read_bytes().replace(b"unetkit", b"unitkit"))
    assert not written_by_unetkit(str(path))
