"""New arrays carry checksums and names, and never replace what is there."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, OutputError
from unetkit.storage.nodes import create_array, create_group, plain, replace_attributes


def test_what_is_written_down(tmp_path):
    url = str(tmp_path / "a")
    create_array(url, shape=(3, 600, 9), axes="cyx", dtype=np.dtype("u2"), chunks=(8, 512, 512))
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    assert document["zarr_format"] == 3
    assert document["dimension_names"] == ["c", "y", "x"]
    assert document["fill_value"] == 0
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [3, 512, 9]
    codec = document["codecs"][-1]
    assert (codec["name"], codec["configuration"]["checksum"]) == ("zstd", True)


def test_nothing_is_replaced(tmp_path):
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(OutputError, match="must not exist yet"):
        create_array(str(tmp_path), shape=(4, 4), axes="yx", dtype=np.dtype("u1"), chunks=(4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_an_empty_axis_is_refused(shape, tmp_path):
    with pytest.raises(InputError, match="at least one pixel"):
        create_array(
            str(tmp_path / "a"), shape=shape, axes="yx", dtype=np.dtype("u1"), chunks=(4, 4)
        )
    assert list(tmp_path.iterdir()) == []


def test_attributes_are_replaced_by_name_and_hold_numpy_numbers(tmp_path):
    url = str(tmp_path / "g")
    create_group(url, {"a": np.float32(1.5), "b": {"c": (1, 2)}})
    replace_attributes(url, {"b": {"d": np.int64(7), "e": float("nan")}})
    attributes = dict(zarr.open_group(url, mode="r").attrs)
    assert attributes == {"a": 1.5, "b": {"d": 7, "e": None}}


def test_plain_values_are_strict_json():
    value = {1: {2, 3}, "a": np.arange(2), "b": np.inf, "c": Path("x"), "d": True, "e": None}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": [2, 3],
        "a": [0, 1],
        "b": None,
        "c": "x",
        "d": True,
        "e": None,
    }
