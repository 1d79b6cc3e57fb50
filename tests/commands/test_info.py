"""What `info` says of each kind of store and of a model file, without reading pixels."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr
from safetensors.numpy import save_file

from unetkit.commands.info import info
from unetkit.errors import InputError, MissingError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.model_header import ModelHeader
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_labels, create_weights
from unetkit.storage.journal import Journal
from unetkit.storage.outputs import partial_url

PLANE = np.arange(20, dtype=np.uint8).reshape(5, 4)


def told(source):
    """Return what `info` says, after a round through strict JSON."""
    found = info(source)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_dataset(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"), attributes={"command": "import"})
    writer.add(
        "a", PLANE, axes="yx", labels=PLANE, weights=PLANE / 2, source="s",
        label_attributes={"objects": np.int64(19)}, pixel_size={"y": 0.5, "x": 0.5},
    )  # fmt: skip
    writer.add("b", np.stack([PLANE] * 3), axes="cyx", source="s")
    names = ("bg", "cell")
    writer.add("c", PLANE, axes="yx", labels=PLANE % 2, kind="classes", class_names=names)
    writer.finish()
    found = told(writer.url)
    assert (found["kind"], found["count"], found["labelled"], found["sources"]) == (
        "dataset", 3, 2, 2
    )  # fmt: skip
    assert found["provenance"] == {"command": "import"}
    a, b, c = found["samples"]
    assert a == {
        "name": "a",
        "source": "s",
        "axes": "yx",
        "shape": [5, 4],
        "dtype": "uint8",
        "chunks": [5, 4],
        "channels": [],
        "pixel_size": {"y": 0.5, "x": 0.5},
        "levels": 1,
        "labels": "instances",
        "classes": [],
        "objects": 19,
        "other_labels": [],
        "ignore": False,
        "weights": True,
    }
    assert (b["labels"], b["weights"], b["shape"]) == (None, False, [3, 5, 4])
    assert (c["labels"], c["classes"], "objects" in c) == ("classes", ["bg", "cell"], False)
    stored = [path for path in (tmp_path / "data.zarr").rglob("*") if path.is_file()]
    assert found["bytes"] == sum(path.stat().st_size for path in stored)


def test_an_image_with_labels(tmp_path):
    url = str(tmp_path / "slide.zarr")
    create_image(
        url, shape=(2, 40, 30), axes="cyx", dtype=np.uint8, chunk=16,
        channel_names=("background", "cell"), attributes={"model": {"sha256": "ab"}},
    )  # fmt: skip
    create_labels(url, "classes", shape=(40, 30), axes="yx", dtype=np.uint8, attributes={"a": 1})
    create_labels(url, "others", shape=(40, 30), axes="yx", dtype=np.uint8)
    create_weights(url, shape=(40, 30), axes="yx", attributes={"preset": "paper2015"})
    found = told(url)
    assert (found["kind"], found["axes"], found["shape"]) == ("image", "cyx", [2, 40, 30])
    assert (found["dtype"], found["chunks"], found["levels"]) == ("uint8", [2, 16, 16], 1)
    assert found["channels"] == ["background", "cell"]
    assert found["labels"]["classes"]["dtype"] == "uint8"
    assert found["labels"]["classes"]["a"] == 1
    assert found["other_labels"] == ["others"]
    assert found["weights"]["preset"] == "paper2015"
    assert found["provenance"] == {"model": {"sha256": "ab"}}


def test_arrays_and_stacks_with_and_without_axes(tmp_path):
    plain, nameless = str(tmp_path / "plain.zarr"), str(tmp_path / "nameless.zarr")
    zarr.create_array(plain, data=PLANE)
    zarr.create_array(nameless, data=np.stack([PLANE] * 3))
    assert (told(plain)["kind"], told(plain)["axes"]) == ("array", "yx")
    assert (told(nameless)["axes"], told(nameless)["shape"]) == (None, [3, 5, 4])
    stack, deep = str(tmp_path / "stack.zarr"), str(tmp_path / "deep.zarr")
    for url, shape in ((stack, (3, 5, 4)), (deep, (3, 5, 4, 2))):
        zarr.create_group(url)
        zarr.create_array(f"{url}/images", data=np.zeros(shape, np.uint8))
    assert [sample["name"] for sample in told(stack)["samples"]] == ["0000", "0001", "0002"]
    assert (told(deep)["kind"], told(deep)["axes"], told(deep)["shape"]) == (
        "stack", None, [3, 5, 4, 2]
    )  # fmt: skip


def model(folder):
    path = str(folder / "model.safetensors")
    header = ModelHeader(
        model="unet",
        options={"width": 8},
        in_channels=1,
        class_names=("background", "foreground"),
        target="foreground",
        contract=SizeContract(step=16, minimum=188, margin=92),
        normalization="percentile",
        scores={"ap50": 0.75},
        provenance={"data": "data.zarr"},
        intensities={"quantiles": [list(range(33))], "spread": [0.1]},
        parameters=4,
    )
    save_file({"w": np.zeros(4, np.float32)}, path, metadata={"unetkit": header.to_json()})
    return path


def test_a_model_file(tmp_path):
    found = told(model(tmp_path))
    wanted = {
        "kind": "model",
        "model": "unet",
        "options": {"width": 8},
        "parameters": 4,
        "normalization": "percentile",
        "class_names": ["background", "foreground"],
        "target": "foreground",
        "scores": {"ap50": 0.75},
        "provenance": {"data": "data.zarr"},
        # Not all the quantiles, which nobody reads.
        "intensities": {"lowest": [0], "median": [16], "highest": [32], "spread": [0.1]},
    }
    assert {key: found[key] for key in wanted} == wanted
    assert found["contract"]["margin"] == 92
    assert found["bytes"] > 16


def test_a_model_file_is_described_without_torch(tmp_path):
    code = "import sys; from unetkit.commands.info import info; info(sys.argv[1])"
    code += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, model(tmp_path)], check=True)


def test_nothing_and_other_things_get_one_sentence_and_create_nothing(tmp_path):
    (tmp_path / "cells.tif").touch()
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04junkjunk")
    (tmp_path / "empty").mkdir()
    create_image(partial_url(str(tmp_path / "a.zarr")), shape=(4, 4), axes="yx", dtype=np.uint8)
    Journal(str(tmp_path / "b.zarr")).record("tile", checksum=1)
    before = sorted(tmp_path.rglob("*"))
    for name, kind, words in (
        ("no.zarr", MissingError, "must exist"),
        ("no.safetensors", MissingError, "must exist"),
        ("bad.safetensors", InputError, "pickle"),
        ("cells.tif", InputError, r"unetkit import .*cells\.tif cells\.zarr"),
        ("empty", InputError, "a folder without one"),
        (".a.zarr.unetkit-partial", InputError, "must be a finished output"),
        ("b.zarr/.unetkit", InputError, "name the folder around it"),
        ("b.zarr", InputError, "a folder without one"),
    ):
        with pytest.raises(kind, match=words) as caught:
            info(str(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3
    assert sorted(tmp_path.rglob("*")) == before
