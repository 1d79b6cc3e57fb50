"""Stores of other programs are read with their axes, pixel size, channels and labels.

Needs the extra `writers`; python -m pytest -n 0 -m writers -W ignore tests/storage
What can't be installed beside unetkit writes in an environment of its own, whose interpreters
UNETKIT_WRITERS names, as PATH does folders. Last seen to pass on 2026-11-29 with ngio 1.1.3,
ngff-zarr 0.50.0, ome-zarr 0.18.0 and bioio-ome-zarr 3.8.1, all on zarr 3.1.6, and in an environment
of Python 3.12, which iohub asks for, with iohub 0.3.11 and spatialdata 0.8.0, which with its older
dask contradicts unetkit, on zarr 3.4.2.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.storage import foreign_stores
from tests.storage.foreign_stores import CHANNELS, WELLS, X, Y, Z, cells, pixels
from unetkit.errors import InputError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import choose_labels, open_image

pytestmark = pytest.mark.writers
SIZE = {"y": Y, "x": X}
FIVE = {"axes": "tczyx", "pixel_size": {"z": Z, **SIZE}, "levels": 1}
# What a version has no place for, or its writer none.
UNSIZED = {"pixel_size": None}
NO_LABELS = {"labels": ()}


def written(folder, package, kind):
    """Let a package write, in the first environment that has it."""
    url = str(folder / "foreign.zarr")
    others = os.environ.get("UNETKIT_WRITERS", "").split(os.pathsep)
    module = package.replace("-", "_")
    for python in [sys.executable, *filter(None, others)]:
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0:
            words = [python, foreign_stores.__file__, package, kind, url]
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return url
    return pytest.skip(f"no environment of UNETKIT_WRITERS has {package}")


def check(image, **differs):
    """Hold an image against what was written."""
    expected = {
        **{"axes": "cyx", "channel_names": CHANNELS, "pixel_size": SIZE, "levels": 2},
        **{"labels": ("nuclei",), **differs},
    }
    data = image.data
    assert {
        **{"axes": data.axes, "channel_names": image.channel_names},
        **{"pixel_size": image.pixel_size, "levels": image.levels, "labels": image.other_labels},
    } == expected
    found = data.read(0, 0, data.height, 0, data.width)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels())
    for name in image.other_labels:
        labels = choose_labels(image, name).labels["instances"]
        np.testing.assert_array_equal(labels.read(0, 0, 70, 0, 90), cells())


@pytest.mark.parametrize(
    ("package", "kind", "differs"),
    [
        *(("ngio", kind, {}) for kind in ("0.4", "0.4 dots", "0.5", "0.5 shards")),
        *(("ngff-zarr", kind, NO_LABELS) for kind in ("0.4", "0.5", "0.5 shards", "0.6")),
        *(("ome-zarr", kind, {}) for kind in ("0.4", "0.5")),
        *(("bioio-ome-zarr", kind, NO_LABELS) for kind in ("0.4", "0.5", "0.5 shards")),
        *(("iohub", kind, {**FIVE, **NO_LABELS}) for kind in ("0.4", "0.5")),
    ],
)
def test_an_image_is_read_as_it_was_written(tmp_path, package, kind, differs):
    check(open_image(written(tmp_path, package, kind)), **differs)


@pytest.mark.parametrize("kind", ["0.4 plate", "0.5 plate"])
def test_every_field_of_a_plate_is_read(tmp_path, kind):
    url = written(tmp_path, "iohub", kind)
    samples = open_dataset(url).samples
    assert [sample.path for sample in samples] == [f"{well}/0" for well in WELLS]
    for sample in samples:
        check(sample.image, **FIVE, **NO_LABELS)


def test_images_and_labels_of_spatialdata_lie_beside_each_other(tmp_path):
    url = written(tmp_path, "spatialdata", "0.8")
    with pytest.raises(InputError, match="name what lies inside it"):
        open_image(url)
    # It knows no units, so that the size of a pixel is that of nothing.
    check(open_image(f"{url}/images/raw"), **UNSIZED, **NO_LABELS)
    labels = open_image(f"{url}/labels/nuclei").data
    np.testing.assert_array_equal(labels.read(0, 0, 70, 0, 90)[0], cells())
