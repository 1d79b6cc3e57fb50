"""TIFFs and PNGs read again by other programs equal what was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetkit.errors import InputError, ResourceError
from unetkit.storage import file_writers
from unetkit.storage.file_writers import bands, tile_rows, write_png, write_tiff
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.outputs import written_by_unetkit

SIZES = {"t": 2, "c": 3, "z": 2, "y": 600, "x": 530}


def stored(folder, axes, dtype="u2"):
    """Store noise, and return it with every axis, in the order of a TIFF."""
    shape = tuple(SIZES[axis] for axis in axes)
    data = create_image(str(folder / "a.zarr"), shape=shape, axes=axes, dtype=dtype, chunk=256)
    sizes = [SIZES[axis] if axis in axes else 1 for axis in "tzcyx"]
    noise = np.random.default_rng(0).integers(0, 9, sizes).astype(dtype)
    for number, plane in enumerate(noise.reshape(-1, *sizes[2:])):
        data.write(number, 0, 0, plane)
    return data, noise


def write(path, data, dtype, **options):
    rows = 0

    def advance():
        nonlocal rows
        rows += 1

    common: dict[str, Any] = {"software": "unetkit 0", "name": "cells", "advance": advance}
    write_tiff(str(path), data, dtype=np.dtype(dtype), **common, **options)
    return rows


@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tczyx"])
def test_a_tiff_read_again_is_what_was_stored(axes, tmp_path):
    data, noise = stored(tmp_path, axes)
    path = tmp_path / "a.tif"
    assert write(path, data, "u4", channel_names=("r", "g", "b")) == tile_rows(data)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert not file.is_bigtiff
        page = file.pages[0]
        assert (page.is_tiled, page.dtype, page.tile) == (True, np.dtype("u4"), (512, 512))
        read = file.asarray(squeeze=False)
        wanted = "".join(axis for axis in "tzcyx" if axis in axes).upper()
        assert file.series[0].axes == wanted
    np.testing.assert_array_equal(read.reshape(noise.shape), noise)
    assert written_by_unetkit(str(path))


def test_the_pixel_size_is_there_for_every_reader(tmp_path):
    data, _ = stored(tmp_path, "zyx")
    write(tmp_path / "a.tif", data, "u2", pixel_size={"z": 2.0, "y": 0.5, "x": 0.25})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert tags["ResolutionUnit"].value.name == "CENTIMETER"
        assert [tags[f"{axis}Resolution"].value[0] for axis in "XY"] == [40_000, 20_000]
        text = file.ome_metadata
    for said in ('PhysicalSizeX="0.25"', 'PhysicalSizeY="0.5"', 'PhysicalSizeZ="2.0"', "µm"):
        assert said in text


def test_a_file_that_may_grow_too_large_is_a_bigtiff(tmp_path, monkeypatch):
    data, noise = stored(tmp_path, "yx")
    monkeypatch.setattr(file_writers, "LARGEST_CLASSIC", noise.nbytes - 1)
    write(tmp_path / "a.tif", data, "u2")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), noise[0, 0, 0])
    assert written_by_unetkit(str(tmp_path / "a.tif"))


def test_a_place_that_can_t_be_written_is_named(tmp_path):
    data, _ = stored(tmp_path, "yx")
    with pytest.raises(ResourceError, match="must be writable"):
        write(tmp_path / "none" / "a.tif", data, "u2")


def labels(folder, content, axes="yx"):
    url = str(folder / "a.zarr")
    create_image(url, shape=content.shape, axes=axes, dtype="u1")
    data = create_labels(url, "instances", shape=content.shape, axes=axes, dtype="u4", chunk=16)
    for number, plane in enumerate(content.reshape(-1, *content.shape[-2:])):
        data.write(number, 0, 0, plane.astype(np.uint32))
    return data


@settings(max_examples=25)
@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from(["u1", "u2"]), st.integers(1, 9))
def test_a_png_read_again_is_what_was_stored(tmp_path_factory, height, width, dtype, rows):
    folder = tmp_path_factory.mktemp("png")
    high = np.iinfo(dtype).max
    content = np.random.default_rng(height * width).integers(0, high + 1, (height, width))
    data = labels(folder, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_writers, "BAND_BYTES", rows * width * 4)
        done: list[None] = []
        write_png(
            str(folder / "a.png"),
            data,
            dtype=np.dtype(dtype),
            software="unetkit 0",
            advance=lambda: done.append(None),
        )
        assert len(done) == bands(data)
    with Image.open(folder / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), content)
    assert written_by_unetkit(str(folder / "a.png"))


def test_the_pixel_size_is_told(tmp_path):
    options: dict[str, Any] = {"software": "unetkit 0", "advance": lambda: None}
    data = labels(tmp_path, np.eye(9, dtype=np.uint32))
    size = {"y": 0.5, "x": 0.25}
    path = str(tmp_path / "a.png")
    write_png(path, data, dtype=np.dtype("u2"), pixel_size=size, **options)
    with Image.open(path) as picture:
        across, down = picture.info["dpi"]
    assert across / 0.0254 == pytest.approx(4e6, rel=1e-4)
    assert down / 0.0254 == pytest.approx(2e6, rel=1e-4)


def test_a_png_holds_one_plane(tmp_path):
    data = labels(tmp_path, np.ones((2, 9, 9), np.uint32), "zyx")
    with pytest.raises(InputError, match="use --to tiff"):
        write_png(
            str(tmp_path / "a.png"),
            data,
            dtype=np.dtype("u2"),
            software="unetkit",
            advance=lambda: None,
        )
    assert not (tmp_path / "a.png").exists()
