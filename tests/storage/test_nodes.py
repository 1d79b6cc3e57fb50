"""Metadata is judged before anything is decoded, and new arrays never replace what is there."""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc

from unetkit.errors import InputError, OutputError, UnetkitError
from unetkit.storage.nodes import (
    ArrayNode,
    GroupNode,
    create_array,
    create_group,
    opened,
    plain,
    read_node,
    replace_attributes,
)
from unetkit.storage.planes import plane_array

V2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [10, 10],
    "chunks": [5, 5],
    "dtype": "<u2",
    "compressor": {"id": "zstd", "level": 0},
    "fill_value": 0,
    "order": "C",
    "filters": None,
}


def v3(**changes):
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [10, 10],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 5]}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0,
        "attributes": {},
    }
    chunks = changes.pop("chunks", None)
    if chunks is not None:
        document["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    return {**document, **changes}


def store(folder, document, *, name="zarr.json"):
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return str(folder)


def test_both_formats_are_read(tmp_path):
    for folder in ("two", "three", "group"):
        (tmp_path / folder).mkdir()
    two = read_node(store(tmp_path / "two", V2, name=".zarray"))
    three = read_node(store(tmp_path / "three", v3(dimension_names=["y", "x"])))
    assert isinstance(two, ArrayNode)
    assert isinstance(three, ArrayNode)
    assert two.shape == three.shape == (10, 10)
    assert two.dtype == three.dtype == np.uint16
    assert (two.dimension_names, three.dimension_names) == (None, ("y", "x"))
    group = read_node(store(tmp_path / "group", {"zarr_format": 3, "node_type": "group"}))
    assert isinstance(group, GroupNode)
    assert read_node(str(tmp_path)) is None


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "numcodecs.pickle"}],
        [{"name": "from_somewhere"}],
        [{"name": "numcodecs.json2"}],
        [{"name": "numcodecs.zlib.pickle"}],
        [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}]}}],
        [],
        "bytes",
        [7],
    ],
)
def test_unknown_codecs_of_format_3_are_refused(codecs, tmp_path):
    with pytest.raises(InputError, match="codecs"):
        read_node(store(tmp_path, v3(codecs=codecs)))


@pytest.mark.parametrize("name", ["Zlib", "LZ4", "Zstd", "LZMA", "BZ2", "GZip", "Blosc"])
def test_what_zarr_2_compresses_with_is_read_in_zarr_3(name, tmp_path):
    url, array = str(tmp_path / "a"), np.arange(64, dtype=np.uint16).reshape(8, 8)
    with warnings.catch_warnings(action="ignore"):
        codecs = import_module("zarr.codecs.numcodecs")
        chosen = [codecs.Shuffle(elementsize=2), getattr(codecs, name)()]
        zarr.create_array(url, data=array, chunks=(4, 4), compressors=chosen)
    node = read_node(url)
    assert isinstance(node, ArrayNode)
    found = plane_array(node, axes="yx", has_channels=False).read(0, 0, 8, 0, 8)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("v3_store", [False, True])
def test_blosc_with_snappy_is_read_which_numcodecs_lacks(v3_store, tmp_path):
    array = np.arange(2500, dtype="<u2").reshape(50, 50)
    chunk = imagecodecs.blosc_encode(array, typesize=2, compressor="snappy")
    with pytest.raises(RuntimeError, match="blosc decompression"):
        Blosc().decode(chunk)  # the control
    told = {"cname": "snappy", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
    codecs = [*v3()["codecs"], {"name": "blosc", "configuration": told}]
    sizes = {"shape": [50, 50], "chunks": [50, 50]}
    if v3_store:
        url = store(tmp_path, v3(**sizes, codecs=codecs))
        (tmp_path / "c" / "0").mkdir(parents=True)
        (tmp_path / "c" / "0" / "0").write_bytes(chunk)
    else:
        url = store(tmp_path, {**V2, **sizes, "compressor": {"id": "blosc"}}, name=".zarray")
        (tmp_path / "0.0").write_bytes(chunk)
    node = read_node(url)
    assert isinstance(node, ArrayNode)
    found = plane_array(node, axes="yx", has_channels=False).read(0, 0, 50, 0, 50)
    np.testing.assert_array_equal(found, array)


def sharded(shard, inner, *, before=()):
    part = {
        "chunk_shape": inner,
        "codecs": [{"name": "bytes"}],
        "index_codecs": [{"name": "crc32c"}],
    }
    codecs = [*before, {"name": "sharding_indexed", "configuration": part}]
    grid = {"name": "regular", "configuration": {"chunk_shape": shard}}
    return v3(shape=[2**15, 2**15], chunk_grid=grid, codecs=codecs)


def test_the_chunks_in_a_shard_are_what_must_fit_into_memory(tmp_path):
    node = read_node(store(tmp_path, sharded([2**15, 2**15], [2**7, 2**8])))
    assert isinstance(node, ArrayNode)
    assert (node.chunks, node.read_chunks) == ((2**15, 2**15), (2**7, 2**8))
    # Blocks for statistics do not take in whole shards either.
    boxes = plane_array(node, axes="yx", has_channels=False).boxes
    assert max((y1 - y0) * (x1 - x0) for _, y0, y1, x0, x1 in boxes) == 512 * 512


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (sharded([2**15, 2**15], [2**15, 2**15]), "1 GiB"),
        (sharded([2**15, 2**15], [2**7, 2**7], before=[{"name": "transpose"}]), "1 GiB"),
        (sharded([2**15, 2**15], [1, 1]), "at most 2.22 chunks"),
        (sharded([2**15, 2**15], [100, 2**7]), "divide the shards"),
        (sharded([2**15, 2**15], [2**7]), "one whole number above 0 for each axis"),
        (sharded([2**15, 2**15], None), "one whole number above 0 for each axis|1 GiB"),
    ],
)
def test_shards_that_can_not_be_read_in_parts_are_refused(document, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_node(store(tmp_path, document))


@pytest.mark.parametrize("deep", ["[", '{"a":'])
def test_a_document_that_is_nested_deep_is_refused(deep, tmp_path):
    shut = {"[": "]", '{"a":': "}"}[deep]
    text = '{"zarr_format": 3, "node_type": "group", "attributes": {"a": %s}}'
    (tmp_path / "zarr.json").write_text(text % f"{deep * 500}1{shut * 500}")
    with pytest.raises(InputError, match="more than 100 levels"):
        read_node(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "json2"}]},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "<M8[s]"},
        {"dtype": "<c8"},
        {"dtype": "|S4"},
        {"filters": 7},
        {"filters": "pickle"},
    ],
)
def test_a_pickle_filter_is_refused_before_anything_is_decoded(changes, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE", "1")
    url = store(tmp_path, {**V2, **changes}, name=".zarray")
    canary = tmp_path / "canary"
    # What unpickling would do: create the canary.
    payload = f"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'{canary}'\ntRtR.".encode()
    (tmp_path / "0.0").write_bytes(payload)
    with pytest.raises(InputError):
        read_node(url)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [2**62, 2**62]}, "hold at most 2"),
        ({"shape": [2**40, 10]}, "2.26 in number"),
        ({"shape": [2**28, 1], "chunks": [1, 1]}, "2.26 in number"),
        ({"shape": [2**40, 1], "chunks": [2**40, 1]}, "1 GiB"),
        ({"chunks": [0, 5]}, "above 0"),
        ({"chunks": [5]}, "one whole number above 0 for each axis"),
        ({"shape": [0, 10]}, "axis of size 0"),
        ({"shape": [-1, 10]}, "whole numbers"),
        ({"shape": [10.0, 10]}, "whole numbers"),
        ({"shape": ["10", 10]}, "whole numbers"),
        ({"shape": [True, 10]}, "whole numbers"),
        ({"shape": [1] * 1000, "chunks": [1] * 1000}, "at most 8"),
        ({"shape": None}, "whole numbers"),
        ({"data_type": "complex64"}, "number type"),
        ({"data_type": {"name": "numpy.datetime64"}}, "number type"),
        ({"chunk_grid": {"name": "rectilinear"}}, "regular"),
        ({"chunk_grid": 3}, "JSON object"),
        ({"attributes": []}, "JSON object"),
        ({"zarr_format": 4}, "be 3"),
    ],
)
def test_metadata_bombs_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_node(store(tmp_path, v3(**changes)))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[]", '{"shape": ' + "9" * 5000 + "}", "\x00", '"text"']
)
def test_damaged_documents_are_refused(text, tmp_path):
    with pytest.raises(InputError, match="JSON"):
        read_node(store(tmp_path, text))


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(key=st.sampled_from(sorted(v3())), value=documents)
def test_no_document_raises_anything_but_ours(key, value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        node = read_node(store(folder, v3(**{key: value})))
        if isinstance(node, ArrayNode):
            opened(node.url, zarr_format=node.zarr_format, version=node.version)
    except UnetkitError:
        pass


def test_an_array_made_anew_at_the_same_place_is_opened_anew(tmp_path):
    url = str(tmp_path / "a")

    def make(size):
        node = create_array(url, shape=(size, 4), axes="yx", dtype=np.dtype("u1"), chunks=(4, 4))
        return opened(node.url, zarr_format=3, version=node.version)

    first = make(8)
    assert opened(url, zarr_format=3, version=read_node(url).version) is first  # type: ignore[union-attr]
    (tmp_path / "a").rename(tmp_path / "old")
    assert make(12).shape == (12, 4)


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


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_an_empty_axis_is_refused_and_nothing_is_replaced(shape, tmp_path):
    options = {"axes": "yx", "dtype": np.dtype("u1"), "chunks": (4, 4)}
    with pytest.raises(InputError, match="at least one pixel"):
        create_array(str(tmp_path / "a"), shape=shape, **options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(OutputError, match="must not exist yet"):
        create_array(str(tmp_path), shape=(4, 4), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


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
