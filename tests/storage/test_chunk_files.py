"""Chunks that are written past zarr are the files that zarr writes, byte for byte."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, ZstdCodec

from unetkit.storage import chunk_files, planes
from unetkit.storage.chunk_files import PackedArray, encoder_of
from unetkit.storage.nodes import create_array, create_group
from unetkit.storage.planes import plane_array

CODECS = {
    2: {"compressors": Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE)},
    3: {"compressors": ZstdCodec(level=3, checksum=True)},
}


def files(folder):
    """Return what every file below a folder holds."""
    found = {p.relative_to(folder): p for p in Path(folder).rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def values(dtype, shape):
    """Draw numbers of a type, the first chunk empty, the last but for its last pixel."""
    drawn = np.random.default_rng(0).normal(100, 60, shape).clip(0).astype(dtype)
    drawn[..., :16, :16] = 0
    drawn[..., 32:, 32:] = 0
    drawn[..., -1, -1] = 1
    return drawn


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize("fill", [0, 7])
def test_documents_and_chunks_are_those_of_zarr(tmp_path, zarr_format, dtype, fill):
    content = values(dtype, (2, 3, 40, 50))
    content[0, :, :16, 16:32] = fill
    node = create_array(
        str(tmp_path / "ours"),
        shape=content.shape,
        axes="zcyx",
        dtype=np.dtype(dtype),
        chunks=(1, 3, 16, 16),
        fill_value=fill,
        zarr_format=zarr_format,
    )
    ours = plane_array(node, axes="zcyx", has_channels=True)
    for z, plane in enumerate(content):
        ours.write(z, 0, 0, plane)
    own = {"attributes": {"_ARRAY_DIMENSIONS": ["z", "c", "y", "x"]}}
    own |= {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    theirs = zarr.create_array(
        store=tmp_path / "theirs",
        shape=content.shape,
        chunks=(1, 3, 16, 16),
        dtype=dtype,
        fill_value=fill,
        zarr_format=zarr_format,
        **CODECS[zarr_format],
        **(own if zarr_format == 2 else {"dimension_names": "zcyx"}),
    )
    theirs[:] = content
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")
    # What a chunk held goes where it is to hold the fill value.
    blank = np.full(content.shape[1:], fill, dtype)
    ours.write(0, 0, 0, blank)
    theirs[0] = blank
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")


@pytest.mark.parametrize("odd", [-0.0, np.nan])
def test_minus_zero_and_nan_are_not_nothing(tmp_path, odd):
    node = create_array(
        str(tmp_path / "a"), shape=(4, 4), axes="yx", dtype=np.dtype("float32"), chunks=(4, 4)
    )
    plane_array(node, axes="yx", has_channels=False).write(0, 0, 0, np.full((4, 4), odd, "f4"))
    read = zarr.open_array(tmp_path / "a", mode="r")[:]
    assert np.array_equal(read.view("u4"), np.full((4, 4), odd, "f4").view("u4"))
    assert (tmp_path / "a" / "c" / "0" / "0").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("attributes", [{}, {"a": {"b": [1, None, "µ"]}}])
def test_groups_are_those_of_zarr(tmp_path, zarr_format, attributes):
    create_group(str(tmp_path / "ours"), attributes, zarr_format=zarr_format)
    zarr.create_group(tmp_path / "theirs", attributes=attributes, zarr_format=zarr_format)
    ours, theirs = (zarr.open_group(tmp_path / name, mode="r") for name in ("ours", "theirs"))
    assert ours.metadata == theirs.metadata


@pytest.mark.parametrize(
    "more",
    [
        {"compressors": BloscCodec(cname="zstd")},
        {"compressors": None},
        {"shards": (32, 32), "chunks": (16, 16)},
    ],
)
def test_what_others_pack_differently_is_left_to_zarr(tmp_path, more):
    array = zarr.create_array(
        tmp_path / "a", shape=(40, 40), dtype="uint8", **({"chunks": (16, 16)} | more)
    )
    assert encoder_of(array) is None


def test_a_chunk_of_several_planes_is_left_to_zarr(tmp_path):
    content = values("uint8", (3, 40, 50))
    node = create_array(
        str(tmp_path / "a"),
        shape=content.shape,
        axes="zyx",
        dtype=content.dtype,
        chunks=(2, 16, 16),
    )
    array = plane_array(node, axes="zyx", has_channels=False)
    for z, plane in enumerate(content):
        array.write(z, 0, 0, plane)
    assert np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], content)


def test_a_chunk_that_can_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    node = create_array(
        str(tmp_path / "a"), shape=(40, 50), axes="yx", dtype=np.dtype("uint8"), chunks=(16, 16)
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chunk_files.Path, "replace", full)
    with pytest.raises(planes.urls.ResourceError, match="No space left"):
        plane_array(node, axes="yx", has_channels=False).write(0, 0, 0, values("uint8", (40, 50)))
    assert set(files(tmp_path / "a")) == {Path("zarr.json")}


def test_a_packed_array_is_what_was_packed():
    content = values("uint16", (40, 50))[::2, ::3]
    packed = PackedArray(content)
    assert np.array_equal(packed.values(), content)
    assert packed.values().dtype == content.dtype
    assert len(packed.content) < content.nbytes
