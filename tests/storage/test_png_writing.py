"""PNGs read again by another program equal what was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetkit.errors import InputError
from unetkit.storage import file_writers
from unetkit.storage.file_writers import bands, write_png
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.outputs import written_by_unetkit


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
