"""Arrays that tensorstore writes, in every layout of Zarr that it knows, are read to the bit.

Needs the extra `writers`; python -m pytest -n 0 -m writers -W ignore tests/storage
"""

import json
from pathlib import Path

import numpy as np
import pytest

from unetkit.errors import InputError
from unetkit.storage.images import open_image

pytestmark = pytest.mark.writers
SHAPE = (2, 37, 45)  # no multiple of any chunk
WRITTEN = 20  # rows; the chunks below are absent
LITTLE, BIG = ({"name": "bytes", "configuration": {"endian": e}} for e in ("little", "big"))
BARE, CRC = {"name": "bytes"}, {"name": "crc32c"}
ZSTD, GZIP = ({"name": n, "configuration": {"level": 3}} for n in ("zstd", "gzip"))
COMPRESSORS = ("lz4", "lz4hc", "blosclz", "zstd", "zlib", "snappy")


def grid(*shape):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}}


def turned(*order):
    return {"name": "transpose", "configuration": {"order": order}}


def keys(name, separator):
    told = {"name": name, "configuration": {"separator": separator}}
    return {"codecs": [LITTLE], "chunk_key_encoding": told}


def blosc(name, shuffle):
    told = {"cname": name, "clevel": 5, "shuffle": shuffle}
    return {"codecs": [LITTLE, {"name": "blosc", "configuration": told}]}


def shards(*inner, codecs=(LITTLE, ZSTD), **told):
    told = {"chunk_shape": inner, "codecs": codecs, **told}
    return {"name": "sharding_indexed", "configuration": told}


def in_shards(**told):
    return {**grid(2, 32, 32), "codecs": [shards(1, 16, 8, **told)]}


NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
NUMBERS += ["float16", "float32", "float64"]
LAYOUTS = {
    "plain": {"codecs": [LITTLE]},
    "big endian": {"codecs": [BIG]},
    "gzip": {"codecs": [LITTLE, GZIP]},
    "zstd": {"codecs": [LITTLE, ZSTD]},
    "checksum": {"codecs": [LITTLE, ZSTD, CRC]},
    "gzip and zstd": {"codecs": [LITTLE, GZIP, ZSTD]},
    **{
        f"blosc {name} {shuffle}": blosc(name, shuffle)
        for name in COMPRESSORS
        for shuffle in ("noshuffle", "shuffle", "bitshuffle")
    },
    "columns first": {"codecs": [turned(2, 1, 0), LITTLE]},
    "channels last": {"codecs": [turned(1, 2, 0), BIG, GZIP]},
    "turned twice": {"codecs": [turned(1, 2, 0), turned(2, 0, 1), LITTLE]},
    **{f"keys {n} {s}": keys(n, s) for n in ("default", "v2") for s in "./"},
    "one chunk": {**grid(3, 100, 100), "codecs": [LITTLE]},
    "thin chunks": {**grid(1, 1, 45), "codecs": [LITTLE]},
    **{f"shards, index at the {e}": in_shards(index_location=e) for e in ("start", "end")},
    "shards, index without a checksum": in_shards(index_codecs=[LITTLE]),
    "shards, index big endian": in_shards(index_codecs=[BIG, CRC], codecs=[BIG]),
    "shards of columns first": in_shards(codecs=[turned(2, 1, 0), BIG, GZIP]),
    "shards in shards": in_shards(codecs=[shards(1, 8, 4)]),
    "shards in shards, index at the start": in_shards(
        codecs=[shards(1, 8, 4, index_location="start")], index_location="start"
    ),
    "one shard": {**grid(2, 64, 64), "codecs": [shards(1, 16, 16)]},
    **{f"number {n}": {"data_type": n, "codecs": [BIG if n[-1] != "8" else BARE]} for n in NUMBERS},
    "number bool": {"data_type": "bool", "codecs": [BARE], "fill_value": True},
    "fill 65535": {"fill_value": 65535, "codecs": [LITTLE]},
    **{
        f"fill {fill}": {"data_type": "float32", "fill_value": fill, "codecs": [LITTLE]}
        for fill in (1.5, "NaN", "-Infinity", "0x7fc00001")
    },
}
LAYOUTS_V2 = {
    **{f"{o} {s}": {"order": o, "dimension_separator": s} for o in "CF" for s in "./"},
    "columns first, big endian": {"order": "F", "dtype": ">u2"},
    **{f"{n}": {"compressor": {"id": n, "level": 3}} for n in ("zlib", "gzip", "bz2", "zstd")},
    **{
        f"blosc {name} {shuffle}": {
            "compressor": {"id": "blosc", "cname": name, "clevel": 5, "shuffle": shuffle}
        }
        for name in COMPRESSORS
        for shuffle in (-1, 0, 1, 2)
    },
    **{
        f"number {order}{kind}": {"dtype": f"{order}{kind}"}
        for kind in ("i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
        for order in "<>"
    },
    **{f"number {kind}": {"dtype": f"|{kind}"} for kind in ("b1", "i1", "u1")},
    "no fill": {"fill_value": None},
    "fill 65535": {"fill_value": 65535},
    **{f"fill {fill}": {"dtype": "<f4", "fill_value": fill} for fill in (1.5, "NaN", "-Infinity")},
}
EVERY = [("zarr3", name, told) for name, told in LAYOUTS.items()]
EVERY += [("zarr", name, told) for name, told in LAYOUTS_V2.items()]


def create(folder, driver, told):
    tensorstore = pytest.importorskip("tensorstore")
    usual = {"chunks": (1, 16, 16), "dtype": "<u2", "compressor": None}
    if driver == "zarr3":
        usual = {**grid(1, 16, 16), "data_type": "uint16"}
    place = {"driver": "file", "path": str(folder)}
    spec = {"driver": driver, "kvstore": place, "metadata": {"shape": SHAPE, **usual, **told}}
    return tensorstore.open(spec, create=True).result()


def written(folder, driver, told):
    """Let tensorstore write the upper part of an array; return what it reads of the whole."""
    store = create(folder, driver, told)
    kind = store.dtype.numpy_dtype
    values = np.random.default_rng(0).integers(0, 2 if kind.kind == "b" else 120, SHAPE)
    store[:, :WRITTEN].write(values[:, :WRITTEN].astype(kind)).result()
    found = store.read().result()
    np.testing.assert_array_equal(found[:, :WRITTEN], values[:, :WRITTEN].astype(kind))
    return found


def whole(url):
    data = open_image(str(url), axes="cyx").data
    return data, data.read(0, 0, data.height, 0, data.width)


@pytest.mark.parametrize(
    ("driver", "told"), [(d, t) for d, _, t in EVERY], ids=[f"{d}: {n}" for d, n, _ in EVERY]
)
def test_every_layout_is_read_to_the_bit(tmp_path, driver, told):
    values = written(tmp_path / "a.zarr", driver, told)
    data, found = whole(tmp_path / "a.zarr")
    expected = values.astype(np.uint8) if values.dtype == bool else values
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
    box = data.read(0, 3, 33, 7, 41)
    np.testing.assert_array_equal(box, expected[:, 3:33, 7:41])
    np.testing.assert_array_equal(data.pick([1]).read(0, 18, 37, 0, 45), expected[1:, 18:])


def test_another_layout_than_the_one_that_is_written_down_gives_something_else(tmp_path):
    # The negative control.
    values = written(tmp_path / "a.zarr", "zarr3", LAYOUTS["shards of columns first"])
    document = tmp_path / "a.zarr" / "zarr.json"
    told = json.loads(document.read_text())
    told["codecs"][0]["configuration"]["codecs"].pop(0)
    document.write_text(json.dumps(told))
    assert not np.array_equal(whole(tmp_path / "a.zarr")[1], values)


NOT_READ = {
    "bfloat16": ({"data_type": "bfloat16", "codecs": [LITTLE]}, "among bool, .*'bfloat16'"),
    "complex64": ({"data_type": "complex64", "codecs": [LITTLE]}, "among bool, .*'complex64'"),
    "int4": ({"data_type": "int4", "codecs": [BARE]}, "among bool, .*'int4'"),
    "no rows": ({"shape": (2, 0, 45), "codecs": [LITTLE]}, "have no axis of size 0"),
    # zarr compares the shards' chunks with the shape before it was turned.
    "shards that are turned": (
        {**grid(2, 32, 32), "codecs": [turned(1, 2, 0), shards(16, 8, 1)]},
        "divisible by the shard's inner",
    ),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read_ends_in_a_sentence(tmp_path, name):
    told, words = NOT_READ[name]
    create(tmp_path / "a.zarr", "zarr3", told)
    assert Path(tmp_path, "a.zarr", "zarr.json").exists()
    with pytest.raises(InputError, match=words):
        whole(tmp_path / "a.zarr")
