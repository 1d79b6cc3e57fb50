"""Blocks of whole chunks: written, fitted, measured."""

import numpy as np
import pytest

from unetkit.engine.block_io import fit_image, write_tile
from unetkit.engine.measuring import measure_labels
from unetkit.errors import NonFiniteError
from unetkit.geometry.tiles import cover
from unetkit.progress import SILENT
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image, create_labels


def test_tiles_that_are_written_come_back_as_a_whole(tmp_path):
    place = str(tmp_path / "image.zarr")
    create_image(place, shape=(2, 10, 7), axes="zyx", dtype="u1")
    labels = create_labels(place, "classes", shape=(2, 10, 7), axes="zyx", dtype="u2", chunk=4)
    values = np.arange(140).reshape(2, 10, 7)
    for plane in range(2):
        for box in cover(10, 7, tile=4):
            write_tile(labels, plane, box, values[plane, box.y0 : box.y1, box.x0 : box.x1])
    np.testing.assert_array_equal(labels.read(0, 0, 10, 0, 7), values[0])
    np.testing.assert_array_equal(labels.read(1, 0, 10, 0, 7), values[1])


def test_an_image_is_fitted_as_a_whole(tmp_path):
    place = str(tmp_path / "image.zarr")
    data = create_image(place, shape=(2, 5, 5), axes="zyx", dtype="f4", chunk=2)
    data.write(0, 0, 0, np.full((1, 5, 5), 2.0))
    data.write(1, 0, 0, np.full((1, 5, 5), 6.0))
    fitted = fit_image(data, "range")
    assert (fitted.offset, fitted.scale) == ((2.0,), (0.25,))
    data.write(1, 0, 0, np.full((1, 5, 5), np.nan))
    with pytest.raises(NonFiniteError, match=r"image.zarr.* NaN or Inf"):
        fit_image(data, "range")
    assert fit_image(data, "range", "fill").scale == (0.5,)


def test_every_object_is_measured(tmp_path):
    array = np.arange(1, 61, dtype=np.uint8).reshape(6, 10)
    writer = DatasetWriter(str(tmp_path / "d.zarr"))
    writer.add("a", array, axes="yx", labels=array)
    writer.finish()
    labels = open_dataset(writer.url)["a"].labels("instances")
    planes = measure_labels(labels, scheduler="sync", workers=None, progress=SILENT)
    assert [len(plane.ids) for plane in planes] == [60]
