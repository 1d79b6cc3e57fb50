"""Plates that ngio writes, with what other programs make of labels in them.

Needs the extra `writers`; python -m pytest -n 0 -m writers tests/commands/test_writers.py
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs

from unetkit.cli.app import main
from unetkit.commands.measure import measure
from unetkit.storage.datasets import open_dataset

pytestmark = [pytest.mark.writers, pytest.mark.filterwarnings("ignore")]
ROWS, COLUMNS, FIELDS = "ABC", (1, 2, 3, 4), 2
SIDE = 128
TILES = 4  # a field
PREDICT = [
    "tile-predict",
    "plate.zarr",
    "--tile",
    "64",
    "--device",
    "cpu",
    "--precision",
    "exact",
    "--in-place",
]


def write_plate(folder, data, version):
    """Let ngio write 3 x 4 wells with 2 fields of nuclei."""
    ngio = pytest.importorskip("ngio")
    files = sorted((data / "bbbc039_nuclei" / "images").glob("*.tif"))
    images = [
        ngio.ImageInWellPath(row=row, column=column, path=str(field))
        for row in ROWS
        for column in COLUMNS
        for field in range(FIELDS)
    ]
    url = str(folder / "plate.zarr")
    plate = ngio.create_empty_plate(url, name="screen", images=images, ngff_version=version)
    for number, image in enumerate(images):
        whole = tifffile.imread(files[number % len(files)])
        y, x = 32 * (number % 5), 48 * (number % 7)
        store = plate.get_image_store(row=image.row, column=image.column, image_path=image.path)
        ngio.create_ome_zarr_from_array(
            store=store,
            array=whole[None, y : y + SIDE, x : x + SIDE],
            pixelsize=0.65,
            axes_names=["c", "y", "x"],
            levels=3,
            ngff_version=version,
            overwrite=True,
        )
    return url


def stopped(words, number, *, after):
    """Begin a run in a process of its own, and end it once so many tiles are done."""
    journal = Path(".plate.zarr.unetkit-partial", ".unetkit", "journal.txt")
    with subprocess.Popen([sys.executable, "-m", "unetkit", *words, "-q"], env=ENVIRONMENT) as run:
        while run.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= after:
                run.send_signal(number)
                break
            time.sleep(0.002)
    return run.returncode


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_in_every_field_are_read_by_others_and_no_end_changes_a_byte(
    kit, slide, test_data, tmp_path, monkeypatch, version
):
    ngio = pytest.importorskip("ngio")
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr")
    url = write_plate(tmp_path, test_data, version)
    (tmp_path / "whole").mkdir()
    shutil.copytree(url, "whole/plate.zarr")
    pixels = kit.contents(url)
    model = ["--model", str(tmp_path / "model.safetensors")]
    # In well 7 of 12, and once more in the next.
    assert stopped([*PREDICT, *model], signal.SIGKILL, after=6 * FIELDS * TILES + 3) == -9
    again = [*PREDICT, *model, "--resume"]
    assert stopped(again, signal.SIGINT, after=7 * FIELDS * TILES + 3) == 130
    assert kit.contents(url) == pixels
    assert main([*again, "-q"]) == 0
    monkeypatch.chdir("whole")
    assert main([*PREDICT, *model, "-q"]) == 0
    monkeypatch.chdir("..")
    assert kit.differing(url, "whole/plate.zarr") == []
    after = kit.contents(url)
    assert all(after[name] == data for name, data in pixels.items())

    yaozarrs.validate_zarr_store(url)
    samples = open_dataset(url).samples
    assert len(samples) == len(ROWS) * len(COLUMNS) * FIELDS
    plate = ngio.open_ome_zarr_plate(url)
    assert len(plate.images_paths()) == len(samples)
    for path, image in plate.get_images().items():
        assert image.list_labels() == ["classes", "instances"]
        found = np.asarray(image.get_label("instances", path="0").get_as_numpy()).squeeze()
        sample = next(s for s in samples if path.strip("/") == s.path)
        np.testing.assert_array_equal(found, kit.read(sample.labels()))
    layers = napari_ome_zarr.napari_get_reader(f"{url}/B/03/1")(f"{url}/B/03/1")
    assert {"image", "labels"} == {layer[2] for layer in layers}
    report = measure(url)
    assert report.samples == len(samples)
    assert Path(report.output).read_text().startswith("sample,plane,id,unit,row,column,field,")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_predicted_plate_is_a_plate_to_others(kit, slide, test_data, tmp_path, version):
    ngio = pytest.importorskip("ngio")
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr")
    url = write_plate(tmp_path, test_data, version)
    words = ["tile-predict", url, "--tile", "64", "-q", "-o", "out.zarr", "--ome-version", version]
    assert main(words) == 0
    yaozarrs.validate_zarr_store("out.zarr")
    plate = ngio.open_ome_zarr_plate("out.zarr")
    assert plate.images_paths() == ngio.open_ome_zarr_plate(url).images_paths()
    for image in plate.get_images().values():
        assert image.get_image(path="0").shape[-2:] == (SIDE, SIDE)
        assert set(image.list_labels()) == {"classes", "instances"}
    layers = napari_ome_zarr.napari_get_reader("out.zarr")("out.zarr")
    assert {layer[2] for layer in layers} >= {"image"}


def test_a_dataset_of_ours_opens_in_viewers(kit, slide):
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr")
    kit.cells("data.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = napari_ome_zarr.napari_get_reader("data.zarr")("data.zarr")
    kinds = [layer[2] for layer in layers]
    assert (kinds.count("image"), kinds.count("labels")) == (2, 2)
