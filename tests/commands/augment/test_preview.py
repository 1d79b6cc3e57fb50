"""The contact sheet of `augment`: which rows it shows, and that large images stay cheap."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from unetkit.commands.augment.command import augment
from unetkit.storage.datasets import DatasetWriter


def sheet(folder, *, samples, copies, shape=(48, 32)):
    writer = DatasetWriter(str(folder / "data.zarr"))
    for number in range(samples):
        image = np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)
        writer.add(f"s{number}", image, axes="yx", labels=(image > 200).astype(np.uint8))
    writer.finish()
    path = folder / "sheet.png"
    augment(writer.url, str(folder / "more.zarr"), copies=copies, preview=str(path))
    return Image.open(io.BytesIO(path.read_bytes()))


def test_there_are_as_many_rows_as_copies_up_to_eight(tmp_path):
    heights = []
    for number, copies in enumerate((1, 2, 8, 11)):
        folder = tmp_path / str(number)
        folder.mkdir()
        heights.append(sheet(folder, samples=1, copies=copies).height)
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_a_large_image_is_thinned(tmp_path):
    assert max(sheet(tmp_path, samples=1, copies=1, shape=(2100, 700)).size) < 2100
