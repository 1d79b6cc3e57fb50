"""Planes of arrays of any axes: read, written by whole chunks, sent to other processes."""

import itertools
import pickle
import subprocess
import sys
import tracemalloc
from itertools import permutations
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError, UsageError
from unetkit.storage import chunk_files, codecs, planes
from unetkit.storage.nodes import ArrayNode, create_array, is_absent, read_node
from unetkit.storage.planes import PlaneArray, plane_array

SIZES = {"t": 2, "c": 3, "z": 2, "y": 7, "x": 5}


def stored(folder, array, **options):
    url = str(folder / f"a{len(list(folder.iterdir()))}")
    zarr.create_array(url, data=array, **options)
    node = read_node(url)
    assert isinstance(node, ArrayNode)
    return node


def fresh(folder, shape, axes, **options):
    has_channels = options.pop("has_channels", True)
    settings = {"dtype": np.dtype("u2"), "chunks": [4] * len(shape), **options}
    node = create_array(str(folder / "new"), shape=shape, axes=axes, **settings)
    return plane_array(node, axes=axes, has_channels=has_channels)


@pytest.mark.parametrize(
    "axes", ["yx", "xy", "cyx", "yxc", "zyx", "tczyx", *map("".join, permutations("tcyx", 4))]
)
def test_planes_come_in_t_z_order_with_channels_first(axes, tmp_path):
    shape = tuple(SIZES[axis] for axis in axes)
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    data = plane_array(
        stored(tmp_path, array, chunks=(2,) * len(axes)), axes=axes, has_channels=True
    )
    # The oracle: all axes there, in the order t, z, c, y, x.
    wanted = array
    names = axes
    for axis in "tzcyx":
        if axis not in names:
            wanted, names = wanted[np.newaxis], axis + names
    wanted = wanted.transpose([names.index(axis) for axis in "tzcyx"])
    wanted = wanted.reshape(-1, *wanted.shape[2:])
    assert data.planes == len(wanted)
    for plane in range(data.planes):
        np.testing.assert_array_equal(data.read(plane, 1, 6, 2, 5), wanted[plane, :, 1:6, 2:5])


@pytest.mark.parametrize("picked", [None, [2, 0]])
@pytest.mark.parametrize("axes", ["yx", "cyx", "yxc", "zyx", "tczyx", "xtyc"])
def test_a_stored_array_is_an_array_of_its_axes_at_once_and_lazily(axes, picked, tmp_path):
    shape = tuple(SIZES[axis] for axis in axes)
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    node = stored(tmp_path, array, chunks=(2,) * len(axes))
    data = plane_array(node, axes=axes, has_channels=True)
    if picked and "c" in axes:
        data, array = data.pick(picked), array.take(picked, axes.index("c"))
    np.testing.assert_array_equal(np.asarray(data), array)
    assert np.asarray(data, dtype="f4").dtype == np.float32
    assert (np.array(data, copy=True) == array).all()
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(data, copy=False)
    lazy = pickle.loads(pickle.dumps(data.to_dask()))
    assert (lazy.shape, lazy.dtype, lazy.chunksize) == (array.shape, array.dtype, (2,) * len(axes))
    np.testing.assert_array_equal(lazy.compute(), array)
    part = (slice(1, 2),) * len(axes)
    np.testing.assert_array_equal(lazy[part].compute(), array[part])
    assert data.to_dask(chunks=-1).numblocks == (1,) * len(axes)


PARTS = [1, -1, slice(None), slice(None, None, 2), slice(None, None, -2), slice(3, 0, -1)]


@pytest.mark.parametrize("axes", ["yx", "cyx", "xtyc"])
def test_places_and_steps_of_a_lazy_array_are_those_of_numpy(axes, tmp_path):
    array = np.arange(6**4, dtype="u2").reshape(6, 6, 6, 6)[(..., *[0] * (4 - len(axes)))]
    array = np.ascontiguousarray(array)
    node = stored(tmp_path, array, chunks=(4,) * len(axes))
    lazy = plane_array(node, axes=axes, has_channels=True).to_dask()
    for part in itertools.product(PARTS, repeat=2):
        for index in (part, (..., *part)):
            np.testing.assert_array_equal(lazy[index].compute(), array[index])


def test_a_lazy_array_reads_only_what_is_asked_of_it(tmp_path):
    data = plane_array(
        stored(tmp_path, np.ones((8, 8), "u1"), chunks=(4, 4)), axes="yx", has_channels=True
    )
    lazy = data.to_dask()
    (Path(data.url) / "c" / "1" / "1").write_bytes(b"damaged")
    assert lazy[:4].compute().all()
    with pytest.raises(InputError, match=r"c/1/1"):
        lazy.compute()


def test_labels_read_without_a_channel_axis(tmp_path):
    array = np.arange(35, dtype=np.uint8).reshape(1, 7, 5)
    data = plane_array(stored(tmp_path, array), axes="cyx", has_channels=False)
    assert data.channels is None
    np.testing.assert_array_equal(data.read(0, 0, 7, 0, 5), array[0])
    np.testing.assert_array_equal(np.asarray(data), array)
    np.testing.assert_array_equal(data.to_dask(), array)


def test_picked_channels_come_in_the_asked_order(tmp_path):
    array = np.arange(4 * 6 * 5, dtype=np.uint16).reshape(4, 6, 5)
    data = plane_array(stored(tmp_path, array, chunks=(1, 4, 4)), axes="cyx", has_channels=True)
    picked = data.pick([3, 0])
    assert (picked.channels, picked.shape) == (2, array.shape)
    np.testing.assert_array_equal(picked.read(0, 1, 6, 0, 5), array[[3, 0], 1:6])
    np.testing.assert_array_equal(picked.pick([1]).read(0, 0, 6, 0, 5), array[[0]])
    assert data.pick([0, 1, 2, 3]) is data
    with pytest.raises(UsageError, match="channel must be below 4"):
        data.pick([4])
    with pytest.raises(ValueError, match="written whole"):
        picked.write(0, 0, 0, np.zeros((2, 6, 5), np.uint16))


@pytest.mark.parametrize("dtype", [">u2", "<i4", "|b1", ">f4", "<f8"])
def test_bytes_come_in_the_order_of_this_machine(dtype, tmp_path):
    array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    node = stored(tmp_path, array, zarr_format=2)
    data = plane_array(node, axes="yx", has_channels=True)
    block = data.read(0, 0, 3, 0, 4)
    assert block.dtype == data.dtype
    assert block.dtype.isnative
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block[0], array.astype(block.dtype))


def test_it_travels_by_name_and_opens_where_it_arrives(tmp_path):
    data = fresh(tmp_path, (1, 6, 6), "cyx")
    data.write(0, 0, 0, np.full((1, 6, 6), 9, np.uint16))
    cargo = pickle.dumps(data)
    assert len(cargo) < 600
    code = "import pickle, sys; d = pickle.loads(sys.stdin.buffer.read())"
    code += "; sys.exit(int(d.read(0, 0, 6, 0, 6).sum()) - 9 * 36)"
    done = subprocess.run([sys.executable, "-c", code], input=cargo, check=False)
    assert done.returncode == 0


@settings(deadline=None, max_examples=15)
@given(height=st.integers(1, 20), width=st.integers(1, 20), chunk=st.integers(1, 9))
def test_whole_chunks_written_one_by_one_make_the_array(height, width, chunk, tmp_path_factory):
    wanted = np.arange(2 * height * width, dtype=np.int32).reshape(2, height, width)
    folder = tmp_path_factory.mktemp("planes")
    data = fresh(folder, wanted.shape, "cyx", dtype=np.dtype("i4"), chunks=(2, chunk, chunk))
    for y in range(0, height, chunk):
        for x in range(0, width, chunk):
            data.write(0, y, x, wanted[:, y : y + chunk, x : x + chunk])
    np.testing.assert_array_equal(data.read(0, 0, height, 0, width), wanted)


@pytest.mark.parametrize(
    ("y0", "x0", "high", "wide"), [(1, 0, 4, 4), (0, 2, 4, 4), (0, 0, 3, 4), (0, 0, 4, 9)]
)
def test_a_block_that_shares_a_chunk_is_refused(y0, x0, high, wide, tmp_path):
    data = fresh(tmp_path, (10, 10), "yx", has_channels=False)
    with pytest.raises(ValueError, match="whole chunks"):
        data.write(0, y0, x0, np.zeros((high, wide), np.uint16))


def test_values_that_do_not_fit_are_refused_not_cut(tmp_path):
    data = fresh(tmp_path, (4, 4), "yx", has_channels=False)
    data.write(0, 0, 0, np.full((4, 4), 65535, np.int64))
    with pytest.raises(InputError, match="fit uint16, got 0 to 65536"):
        data.write(0, 0, 0, np.arange(16).reshape(4, 4) // 15 * 65536)
    with pytest.raises(InputError, match="fit uint16, got -1"):
        data.write(0, 0, 0, np.full((4, 4), -1))
    with pytest.raises(InputError, match="fit uint16, got float64"):
        data.write(0, 0, 0, np.full((4, 4), 1.5))
    assert (data.read(0, 0, 4, 0, 4) == 65535).all()


def test_a_block_with_the_wrong_channels_is_refused(tmp_path):
    data = fresh(tmp_path, (3, 4, 4), "cyx")
    with pytest.raises(ValueError, match="match the axes"):
        data.write(0, 0, 0, np.zeros((1, 4, 4), np.uint16))


@pytest.mark.parametrize(
    "box", [(1, 0, 1, 0, 1), (0, 0, 5, 0, 1), (0, 2, 2, 0, 1), (0, 0, 1, -1, 1)]
)
def test_a_box_outside_is_refused_and_an_absent_chunk_reads_as_the_fill_value(box, tmp_path):
    data = fresh(tmp_path, (4, 4), "yx", fill_value=3)
    with pytest.raises(IndexError):
        data.read(*box)
    assert (data.read(0, 0, 4, 0, 4) == 3).all()
    assert not (tmp_path / "new" / "c").exists()


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [flip, lambda b: b[:-5], lambda b: b"", lambda b: b"rubbish"], ids="fcer"
)
def test_a_damaged_chunk_is_named_with_its_pixels(damage, tmp_path):
    data = fresh(tmp_path, (2, 10, 10), "cyx", chunks=(2, 4, 4))
    content = np.random.default_rng(0).integers(0, 2**16, (2, 10, 10), dtype=np.uint16)
    data.write(0, 0, 0, content)
    chunk = tmp_path / "new" / "c" / "0" / "1" / "2"
    chunk.write_bytes(damage(chunk.read_bytes()))
    words = r"new chunk c/0/1/2 \(rows 4:8, columns 8:10\)"
    with pytest.raises(InputError, match=words) as caught:
        data.read(0, 0, 10, 0, 10)
    assert caught.value.exit_code == 3
    with pytest.raises(InputError, match="chunk c/0/1/2"):
        data.pick([1]).read(0, 4, 5, 8, 9)
    np.testing.assert_array_equal(data.read(0, 0, 4, 0, 10), content[:, :4])
    # Writing a whole chunk never reads what it replaces, at the far edge either.
    data.write(0, 4, 8, content[:, 4:8, 8:10])
    np.testing.assert_array_equal(data.read(0, 0, 10, 0, 10), content)


@pytest.mark.parametrize("linked", ["c/0/0", "c/0", "c"])
@pytest.mark.parametrize("dangling", [False, True])
def test_chunks_behind_a_link_out_of_the_array_are_refused(linked, dangling, tmp_path):
    data = fresh(tmp_path, (8, 8), "yx", dtype=np.dtype("u1"))
    data.write(0, 0, 0, np.ones((1, 8, 8), np.uint8))
    place = tmp_path / "new" / linked
    place.rename(tmp_path / "away")
    place.symlink_to(tmp_path / ("nothing" if dangling else "away"))
    with pytest.raises(InputError, match=r"must lie inside its array, got a link out of it"):
        data.read(0, 0, 8, 0, 8)
    with pytest.raises(InputError, match=r"must lie inside its array, got a link out of it"):
        list(data.blocks())


def test_a_chunk_that_is_a_link_inside_its_array_is_read(tmp_path):
    data = fresh(tmp_path, (8, 8), "yx", dtype=np.dtype("u1"))
    data.write(0, 0, 0, np.ones((1, 4, 8), np.uint8))
    (tmp_path / "new" / "c" / "1").symlink_to("0")
    assert data.read(0, 0, 8, 0, 8).min() == 1


def test_without_the_checksum_a_flipped_bit_is_a_wrong_pixel(tmp_path):
    content = np.random.default_rng(0).integers(0, 2**16, (10, 10), dtype=np.uint16)
    data = plane_array(stored(tmp_path, content, chunks=(10, 10)), axes="yx", has_channels=False)
    chunk = tmp_path / "a0" / "c" / "0" / "0"
    chunk.write_bytes(flip(chunk.read_bytes()))
    assert (data.read(0, 0, 10, 0, 10) != content).sum() == 1


@pytest.mark.parametrize("axes", ["yx", "cyx", "tczyx"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [0, 7])
def test_blocks_that_are_not_stored_come_without_a_read(
    tmp_path, monkeypatch, axes, zarr_format, fill
):
    monkeypatch.setattr(planes, "BLOCK_SIDE", 1)
    sizes = {"t": 2, "c": 3, "z": 2, "y": 30, "x": 20}
    chunks = {"t": 1, "c": 2, "z": 1, "y": 8, "x": 8}
    url = str(tmp_path / "sparse.zarr")
    array = zarr.create_array(
        url,
        shape=[sizes[axis] for axis in axes],
        chunks=[chunks[axis] for axis in axes],
        dtype="u2",
        fill_value=fill,
        zarr_format=zarr_format,
    )
    array[..., 9:11, 17:19] = 500
    data = plane_array(read_node(url), axes=axes, has_channels=True)  # type: ignore[arg-type]
    wanted = [data.read(*box) for box in data.boxes]
    reads = []
    real = PlaneArray.read
    monkeypatch.setattr(PlaneArray, "read", lambda *a: reads.append(a[1:]) or real(*a))
    for got, want in zip(data.blocks(), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype
    # One place of twelve in each plane.
    assert len(reads) == data.planes == len(data.boxes) // 12


def test_a_chunk_that_may_not_be_looked_at_is_not_taken_for_absent(tmp_path):
    url = str(tmp_path / "odd.zarr")
    array = zarr.create_array(url, shape=(8, 8), chunks=(8, 8), dtype="u1", fill_value=0)
    assert is_absent(array, (slice(0, 8), slice(0, 8)), url=url)
    # A file where a folder should be.
    (tmp_path / "odd.zarr" / "c").write_text("")
    assert not is_absent(array, (slice(0, 8), slice(0, 8)), url=url)


def test_blocks_cover_every_pixel_once(tmp_path, monkeypatch):
    monkeypatch.setattr(planes, "BLOCK_SIDE", 4)
    content = np.arange(2 * 10 * 7, dtype=np.uint16).reshape(2, 10, 7)
    data = plane_array(stored(tmp_path, content, chunks=(1, 3, 4)), axes="zyx", has_channels=True)
    seen = np.concatenate([block.ravel() for block in data.blocks()])
    np.testing.assert_array_equal(np.sort(seen), content.ravel())


def test_many_pixels_are_sampled_evenly_and_the_same_way_each_time(tmp_path):
    side = 40_000
    data = fresh(tmp_path, (3, side, side), "zyx", dtype=np.dtype("u1"), chunks=(1, 512, 512))
    boxes = data.boxes
    assert boxes == data.boxes
    pixels = sum((y1 - y0) * (x1 - x0) for _, y0, y1, x0, x1 in boxes)
    assert 0.9 * 2**28 < pixels <= 2**28
    assert len(set(boxes)) == len(boxes)
    assert {plane for plane, *_ in boxes} == {0, 1, 2}
    assert all(y0 % 512 == 0 and x0 % 512 == 0 for _, y0, _, x0, _ in boxes)


@pytest.mark.parametrize("shards", [None, (4, 64, 64)])
@pytest.mark.parametrize("picked", [[1], [3, 0], [2, 2, 1]])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_picked_channels_of_shards_and_of_chunks_with_several(tmp_path, picked, channels, shards):
    array = np.arange(4 * 64 * 50, dtype=np.uint16).reshape(4, 64, 50)
    node = stored(tmp_path, array, chunks=(channels, 16, 16), shards=shards)
    data = plane_array(node, axes="cyx", has_channels=True).pick(picked)
    np.testing.assert_array_equal(data.read(0, 3, 61, 5, 50), array[picked, 3:61, 5:50])


def test_a_large_chunk_is_decoded_once_for_the_parts_that_lie_in_it(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 9, (2, 3000, 2500), np.uint8)
    node = stored(tmp_path, array, chunks=(1, 2100, 2100))
    data = plane_array(node, axes="zyx", has_channels=False)
    decoded = []
    decode = codecs.decode_within
    monkeypatch.setattr(
        codecs, "decode_within", lambda *args: decoded.append(args[2]) or decode(*args)
    )
    for y in range(0, 3000, 500):
        for x in range(0, 2500, 500):
            y0, x0 = max(0, y - 50), max(0, x - 50)
            part = data.read(1, y0, y + 500, x0, x + 500)
            np.testing.assert_array_equal(part, array[1, y0 : y + 500, x0 : x + 500])
    # A box that is most of a chunk at the edge of the image may be read at once.
    assert len(decoded) <= 8
    assert data.reading_bytes() > 2100 * 2100
    # What is written anew at the same place is not mistaken for what was there.
    zarr.open_array(node.url, mode="r+")[1, :100, :100] = 77
    assert (data.read(1, 0, 100, 0, 100) == 77).all()


KINDS = {
    "zstd": (3, {"compressors": zarr.codecs.ZstdCodec(checksum=True)}),
    "gzip": (3, {"compressors": zarr.codecs.GzipCodec()}),
    "blosc": (3, {"compressors": zarr.codecs.BloscCodec()}),
    "big-endian": (3, {"serializer": zarr.codecs.BytesCodec(endian="big")}),
    "nothing": (3, {"compressors": None}),
    "turned": (3, {"filters": zarr.codecs.TransposeCodec(order=(1, 0))}),
    "sharded": (3, {"shards": (32, 32)}),
    "zlib 2": (2, {"compressors": numcodecs.Zlib()}),
    "blosc 2": (2, {"compressors": numcodecs.Blosc()}),
    "by columns 2": (2, {"compressors": numcodecs.Zlib(), "order": "F"}),
    "filtered 2": (2, {"compressors": numcodecs.Zlib(), "filters": [numcodecs.Delta]}),
}


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4"])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_chunks_are_read_whatever_they_are_stored_as(tmp_path, kind, dtype):
    version, how = KINDS[kind]
    if kind == "filtered 2":
        how = how | {"filters": [one(dtype) for one in how["filters"]]}
    array = np.random.default_rng(0).integers(1, 99, (50, 37)).astype(dtype)
    node = stored(tmp_path, array, chunks=(16, 16), zarr_format=version, fill_value=7, **how)
    # A chunk that is not there reads as the fill value.
    zarr.open_array(node.url, mode="r+")[16:32, 16:32] = 7
    array[16:32, 16:32] = 7
    data = plane_array(node, axes="yx", has_channels=True)
    for y0, y1, x0, x1 in ((0, 50, 0, 37), (3, 48, 5, 33), (15, 33, 15, 17), (49, 50, 0, 37)):
        found = data.read(0, y0, y1, x0, x1)[0]
        np.testing.assert_array_equal(found, array[y0:y1, x0:x1])
        assert found.flags.writeable
        assert found.flags.c_contiguous


def test_a_small_chunk_is_decoded_once_for_tiles_beside_each_other(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 9, (256, 256), np.uint16)
    node = stored(tmp_path, array, chunks=(64, 64))
    data = plane_array(node, axes="yx", has_channels=True)
    decoded, decode = [], chunk_files.decode_within
    monkeypatch.setattr(
        chunk_files, "decode_within", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )
    for y in range(0, 256, 64):
        for x in range(0, 256, 64):
            box = (max(0, y - 20), min(256, y + 84), max(0, x - 20), min(256, x + 84))
            np.testing.assert_array_equal(
                data.read(0, *box)[0], array[box[0] : box[1], box[2] : box[3]]
            )
    assert len(decoded) == 16
    # What is written anew at the same place is not mistaken for what was there.
    zarr.open_array(node.url, mode="r+")[:64, :64] = 77
    assert (data.read(0, 0, 60, 0, 60) == 77).all()
    assert data.reading_bytes() == array.nbytes
    # No more is kept than was promised, but for the last one.
    monkeypatch.setattr(planes, "_DECODED_SMALL", planes._DecodedChunks(3 * 2**13))
    for x in range(1, 200, 40):
        data.read(0, 1, 200, x, x + 40)
        assert sum(block.nbytes for block in planes._DECODED_SMALL._kept.values()) <= 3 * 2**13


def test_memory_that_runs_out_is_no_fault_of_a_chunk(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError("no room for a chunk")

    node = stored(tmp_path, np.ones((8, 8), np.uint8), chunks=(8, 8))
    data = plane_array(node, axes="yx", has_channels=True)
    monkeypatch.setattr(chunk_files, "decode_within", full)
    with pytest.raises(MemoryError, match="no room"):
        data.read(0, 0, 7, 0, 7)


def zstd_of_unknown_length(data):
    """Make a frame of one raw block whose header says no length (RFC 8878)."""
    return b"\x28\xb5\x2f\xfd\x00\x58" + (1 | len(data) << 3).to_bytes(3, "little") + data


HUGE = 2**26
BOMBS = {
    ("zstd", 3): lambda: numcodecs.Zstd().encode(bytes(HUGE)),
    ("gzip", 3): lambda: numcodecs.GZip(9).encode(bytes(HUGE)),
    ("blosc", 3): lambda: numcodecs.Blosc().encode(bytes(HUGE)),
    ("lz4", 2): lambda: numcodecs.LZ4().encode(bytes(HUGE)),
    ("zlib", 3): lambda: numcodecs.Zlib(9).encode(bytes(HUGE)),
    ("zlib", 2): lambda: numcodecs.Zlib(9).encode(bytes(HUGE)),
    ("bz2", 2): lambda: numcodecs.BZ2(9).encode(bytes(HUGE)),
    ("blosc", 2): lambda: numcodecs.Blosc().encode(bytes(HUGE)),
    ("zstd of unknown length", 3): lambda: zstd_of_unknown_length(bytes(2**17)),
}
COMPRESSORS = {
    ("zstd", 3): zarr.codecs.ZstdCodec(),
    ("gzip", 3): zarr.codecs.GzipCodec(),
    ("blosc", 3): zarr.codecs.BloscCodec(),
    ("lz4", 2): numcodecs.LZ4(),
    ("zlib", 3): {"name": "numcodecs.zlib", "configuration": {}},
    ("zlib", 2): numcodecs.Zlib(),
    ("bz2", 2): numcodecs.BZ2(),
    ("blosc", 2): numcodecs.Blosc(),
    ("zstd of unknown length", 3): zarr.codecs.ZstdCodec(),
}


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("kind", BOMBS, ids=str)
def test_a_chunk_that_claims_more_than_declared_is_refused_before_it_is_decoded(tmp_path, kind):
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    node = stored(
        tmp_path, array, chunks=(8, 8), zarr_format=kind[1], compressors=COMPRESSORS[kind]
    )
    data = plane_array(node, axes="yx", has_channels=False)
    np.testing.assert_array_equal(data.read(0, 0, 8, 0, 8), array)
    chunk = Path(node.url, "c/0/0" if kind[1] == 3 else "0.0")
    chunk.write_bytes(BOMBS[kind]())
    tracemalloc.start()
    for end in (8, 7):
        with pytest.raises(InputError, match="restore it from the original"):
            data.read(0, 0, end, 0, 8)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("kind", COMPRESSORS, ids=str)
def test_a_chunk_that_lacks_bytes_is_refused_wherever_it_ends(tmp_path, kind):
    """What lies behind it in memory must not be taken for its pixels."""
    array = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    node = stored(
        tmp_path, array, chunks=(8, 8), zarr_format=kind[1], compressors=COMPRESSORS[kind]
    )
    chunk = Path(node.url, "c/0/0" if kind[1] == 3 else "0.0")
    content = chunk.read_bytes()
    for has_channels in (False, True):
        data = plane_array(node, axes="yx", has_channels=has_channels)
        for end in (*range(0, len(content), 7), len(content) - 1):
            chunk.write_bytes(content[:end])
            with pytest.raises(InputError, match=r"0[./]0 \(.*restore it from the original"):
                data.read(0, 0, 8, 0, 8)
        chunk.write_bytes(content)
        np.testing.assert_array_equal(data.read(0, 0, 8, 0, 8).squeeze(), array)


def test_a_chunk_whose_frame_says_no_length_is_read(tmp_path):
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    node = stored(tmp_path, array, chunks=(8, 8), compressors=zarr.codecs.ZstdCodec())
    Path(node.url, "c/0/0").write_bytes(zstd_of_unknown_length(array.tobytes()))
    data = plane_array(node, axes="yx", has_channels=False)
    np.testing.assert_array_equal(data.read(0, 0, 8, 0, 8), array)
