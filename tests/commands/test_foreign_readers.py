"""Programs that walk through what unetkit wrote find Zarr and nothing else."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import zarr

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.storage.outputs import partial_url

# A file that the OME-NGFF wants in a collection, and that zarr knows as little as we can help it.
COLLECTION = "Object at METADATA.ome.xml is not recognized"


def walked(url, *, version):
    """Walk through all of a store, in which no reader may remark on anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(url, mode="r", zarr_format=version)
        list(group.members())
        warnings.filterwarnings("ignore", COLLECTION)
        assert group.tree()
        for _, node in group.members(max_depth=None):
            if isinstance(node, zarr.Array):
                np.asarray(node[...])
    return group


@pytest.mark.parametrize(("ome", "version"), [("0.5", 3), ("0.4", 2)])
def test_nothing_in_a_finished_store_or_a_partial_is_remarked_on(kit, slide, ome, version):
    def fail():
        raise OSError("power cut")

    asked = {"tile": 16, "scheduler": "sync", "ome_version": ome}
    with pytest.raises(OSError, match="power cut"):
        tile_predict(slide, progress=kit.watching(at=6, act=fail), **asked)
    walked(partial_url("slide.prediction.zarr"), version=version)
    report = tile_predict(slide, resume=True, **asked)
    group = walked(report.output, version=version)
    assert main(["verify", report.output]) == 0
    assert {name for name, _ in group.groups()} == {"labels"}
    if find_spec("xarray"):
        import xarray

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            xarray.open_zarr(report.output, consolidated=False, chunks=None)


def test_nothing_in_a_finished_dataset_is_remarked_on(kit, slide):
    kit.cells("data.zarr")
    assert main(["weights", "data.zarr", "-q"]) == 0
    report = tile_predict("data.zarr", tile=16)
    for url in ("data.zarr", "data.zarr/s0", "data.zarr/s0/weights", report.output):
        walked(url, version=3)
