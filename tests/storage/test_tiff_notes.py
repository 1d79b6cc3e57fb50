"""Pixel sizes and channel names that OME and ImageJ wrote."""

import numpy as np
import pytest
import tifffile

from unetkit.storage.tiff import open_tiff

STACK = np.zeros((2, 3, 20, 30), np.uint8)


def notes(path, **options):
    tifffile.imwrite(path, STACK, photometric="minisblack", **options)
    file = open_tiff(str(path))
    return file.pixel_size, file.channel_names


def test_ome_sizes_and_names(tmp_path):
    metadata = {
        "axes": "ZCYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeY": 500,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 2,
        "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }
    size, names = notes(tmp_path / "a.ome.tif", ome=True, metadata=metadata)
    assert size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert names == ("DAPI", "GFP", "RFP")


def test_imagej_sizes(tmp_path):
    size, names = notes(
        tmp_path / "a.tif",
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 2.0},
    )
    assert size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert names == ()


@pytest.mark.parametrize("unit", ["inch", "pixel", "", "furlong"])
def test_units_that_measure_nothing(tmp_path, unit):
    options = {"resolution": (4, 2), "metadata": {"axes": "ZCYX", "unit": unit}}
    assert notes(tmp_path / "a.tif", imagej=True, **options)[0] is None


def test_a_printing_resolution_is_no_pixel_size(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0], resolution=(300, 300), resolutionunit="INCH")
    assert open_tiff(str(path)).pixel_size is None


def test_damaged_metadata_say_nothing(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0], description="<?xml version='1.0'?><OME>broken")
    assert open_tiff(str(path)).pixel_size is None
