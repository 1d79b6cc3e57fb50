"""What `unetkit view` shows of predictions, datasets and tables, and how it ends."""

import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import main
from unetkit.commands import view as command
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.view import view
from unetkit.errors import InputError, OutputError, ResourceError, UsageError
from unetkit.storage.image_writer import update_attributes
from unetkit.views import browser, napari

pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
CHROMIUM = next(filter(None, map(shutil.which, browser.NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to draw with")


@pytest.fixture
def opened():
    """Open views that are closed at the end of a test."""
    found = []

    def show(*stores, **options):
        found.append(view(*map(str, stores), **options))
        return found[-1]

    yield show
    for one in found:
        one.close()


@pytest.fixture
def predicted(slide):
    tile_predict("slide.zarr", model="model.safetensors", tile=64)
    return "slide.prediction.zarr"


def shown(report):
    layers = report.to_dict()["layers"]
    return {layer["name"]: layer["shown"] for layer in layers if layer["kind"] != "marks"}


def test_a_prediction_is_shown_over_the_image_it_was_made_of(predicted, opened):
    report = opened(predicted)
    assert shown(report) == {
        "slide": True,
        "probability of background": False,
        "probability of foreground": False,
        "instances": True,
        "classes": False,
    }
    assert report.scene.layers[0].source == "slide.zarr"
    assert report.scene.sizes == {"y": 64, "x": 60}
    state = report.shown.viewer.state.to_json()
    assert [layer["name"] for layer in state["layers"]] == list(shown(report))
    assert urlsplit(report.url).hostname == "127.0.0.1"


def test_the_contrast_is_that_of_the_pixels(slide, kit, opened):
    _, planes = kit.image("deep.zarr", (2, 3, 70, 80), axes="czyx", dtype="u2")
    report = opened("deep.zarr")
    for layer in report.scene.layers:
        middle = planes[1, layer.channel]
        assert layer.contrast == tuple(np.percentile(middle, (1, 99.5), method="lower"))


def test_an_image_that_is_gone_is_warned_of_or_told(predicted, opened):
    Path("slide.zarr").rename("away.zarr")
    report = opened(predicted)
    assert "say where it is with --image" in report.warnings[0]
    assert "slide" not in shown(report)
    assert opened(predicted, image="away.zarr").scene.layers[0].source == "away.zarr"
    with pytest.raises(InputError, match="say where it is with --image"):
        view(predicted, channels="0")


def test_of_a_dataset_one_sample_is_shown(slide, kit, opened):
    kit.cells("cells.zarr", count=2)
    with pytest.raises(InputError, match=r"got 2 \('s0', 's1'\); choose with --sample s0"):
        view("cells.zarr")
    with pytest.raises(InputError, match="must be one of s0, s1, got 's2'"):
        view("cells.zarr", sample="s2")
    assert shown(opened("cells.zarr", sample="s1")) == {"s1": True, "instances": True}


def test_the_sample_of_a_predicted_dataset_finds_its_image(slide, kit, opened):
    kit.cells("cells.zarr", count=2)
    tile_predict("cells.zarr", model="model.safetensors", tile=48)
    report = opened("cells.prediction.zarr", "cells.zarr", sample="s1")
    assert report.scene.layers[0].source == "cells.zarr/s1"
    # The truth's image is the same and is shown once.
    assert list(shown(report))[-3:] == ["instances", "classes", "s1: instances"]


def test_plates_and_labels_of_other_programs_are_shown(slide, kit, opened):
    kit.plate("plate.zarr", labels="nuclei")
    assert list(shown(opened("plate.zarr", sample="A-1-0")))[1:] == ["nuclei"]


def test_what_is_of_another_size_is_refused(predicted, kit):
    kit.image("other.zarr", (64, 90))
    with pytest.raises(InputError, match="must be that of its objects"):
        view(predicted, "other.zarr")
    with pytest.raises(InputError, match="name the image that was predicted with --image"):
        view(predicted, image="other.zarr")


def test_uncertainty_is_a_layer_where_there_is_one(slide, opened):
    tile_predict("slide.zarr", model="model.safetensors", tile=64, tta="flips", uncertainty=True)
    assert shown(opened("slide.prediction.zarr"))["uncertainty"] is False


def test_places_of_a_table_become_marks_and_matches_are_left_out(predicted, opened):
    rows = ["sample,side,plane,id,unit,centroid_y,centroid_x,kind,iou"]
    rows += ["s,truth,0,1,pixel,5,9,miss,0", "s,truth,0,2,pixel,1,1,match,1"]
    rows += ["s,prediction,0,3,pixel,7,8,false,0", "s,truth,0,4,pixel,40,50,miss,0.2"]
    Path("objects.csv").write_text("\n".join(rows))
    report = opened(predicted, points="objects.csv")
    assert {name: [(m.y, m.x) for m in marks] for name, marks in report.scene.marks.items()} == {
        "miss": [(5, 9), (40, 50)],
        "false": [(7, 8)],
    }
    assert report.warnings == ("1 match of objects.csv is left out; errors are shown: 3",)
    layers = report.shown.viewer.state.to_json()["layers"]
    assert [layer.get("type") for layer in layers[-2:]] == ["annotation"] * 2
    Path("far.csv").write_text("y,x,plane\n1,1,1\n")
    with pytest.raises(InputError, match="planes below 1, got plane 1"):
        view(predicted, points="far.csv")


def test_of_a_table_of_many_samples_its_own_rows_are_taken(slide, kit, opened):
    kit.cells("cells.zarr", count=2)
    Path("o.csv").write_text("sample,y,x\ns0,1,1\ns1,2,3\n")
    report = opened("cells.zarr", sample="s1", points="o.csv")
    assert [(m.y, m.x) for m in report.scene.marks["o.csv"]] == [(2, 3)]
    Path("o.csv").write_text("sample,y,x\nb,1,1\na,2,3\n")
    with pytest.raises(InputError, match="rows of sample 's1', got those of 'a', 'b'"):
        view("cells.zarr", sample="s1", points="o.csv")


def test_options_that_exclude_each_other_are_refused(predicted):
    for given in ({"napari": True, "png": "a.png"}, {"open_page": True, "napari": True}):
        with pytest.raises(UsageError, match="one at a time"):
            view(predicted, **given)
    with pytest.raises(UsageError, match=r"add --png FILE\.png"):
        view(predicted, overwrite=True)


@needs_chromium
def test_a_picture_is_written_once(predicted, capsys):
    assert main(["view", predicted, "--png", "a.png", "-q"]) == 0
    assert capsys.readouterr().out == "a.png\n"
    pixels = np.asarray(Image.open("a.png"))
    assert pixels.shape == (800, 1280, 3)
    # The image fills the height, with black at its sides and colours of instances on it.
    assert not pixels[:700, :200].any()
    middle = pixels[100:700, 340:940].astype(int)
    assert middle.mean() > 20
    assert np.ptp(middle, axis=-1).max() > 40
    with pytest.raises(OutputError):
        view(predicted, png="a.png")
    assert main(["view", predicted, "--png", "a.png", "--overwrite", "-q"]) == 0


def test_without_a_browser_or_a_viewer_the_end_is_5(predicted, monkeypatch, capsys):
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    assert main(["view", predicted, "--png", "a.png"]) == 5
    assert "got no Chromium, Chrome or Edge" in capsys.readouterr().err
    assert not Path("a.png").exists()
    for name, extra in (("napari", "napari[all]"), ("neuroglancer", "unetkit[view]")):
        monkeypatch.setitem(sys.modules, name, None)
        assert main(["view", predicted, *(["--napari"] if name == "napari" else [])]) == 5
        assert f"pip install '{extra}'" in capsys.readouterr().err


def test_a_browser_that_draws_nothing_ends_with_5(predicted, monkeypatch):
    monkeypatch.setattr(browser, "NAMES", ("true",))
    monkeypatch.setattr(command, "PATIENCE", 0.5)
    with pytest.raises(ResourceError, match="the browser must draw the page within"):
        view(predicted, png="a.png")
    assert not Path("a.png").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are sent as POSIX has them")
def test_it_serves_until_ctrl_c_which_is_a_good_end(predicted):
    words = [sys.executable, "-m", "unetkit", "view", predicted, "--json"]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **told) as process:
        document = ""
        while not document.endswith("\n}\n"):
            document += process.stdout.readline().decode()
        found = json.loads(document)
        parts = urlsplit(found["url"])
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.request("GET", parts.path)
        assert connection.getresponse().status == 200
        connection.close()
        assert found["layers"][0]["name"] == "slide"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_ctrl_c_as_soon_as_the_link_is_there_is_a_good_end(predicted, monkeypatch, capsys):
    """Whoever waits for the link alone may stop the view before it has begun to wait."""

    class Reader(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            read.append(bytes(data))
            signal.raise_signal(signal.SIGINT)
            return len(data)

    read = []
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Reader()), "utf-8"))
    assert main(["view", predicted]) == 0
    assert read[0].startswith(b"http://")
    monkeypatch.undo()
    assert "error" not in capsys.readouterr().err


def test_the_same_layers_are_handed_to_napari(slide, kit):
    """What napari holds is read as it is looked at, at the same places in micrometres."""
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    _, planes = kit.image("deep.zarr", (2, 3, 70, 80), axes="czyx", dtype="u2")
    Path("w.csv").write_text("plane,y0,x0,y1,x1\n2,10,20,30,40\n")
    Path("p.csv").write_text("plane,y,x\n0,10,20\n")
    for table, placed in (("w.csv", [[2, 9.5, 19.5]]), ("p.csv", [[0, 10, 20]])):
        report = view("deep.zarr", points=table)
        report.close()
        scene = replace(report.scene, pixel={"y": 0.5, "x": 0.25})
        viewer = components.ViewerModel()
        napari.add_layers(viewer, scene)
        assert [layer.name for layer in viewer.layers] == [*shown(report), table]
        for number, layer in enumerate(scene.layers):
            own = viewer.layers[number]
            np.testing.assert_array_equal(np.asarray(own.data), planes[:, layer.channel])
            assert tuple(own.contrast_limits) == layer.contrast
            assert own.scale.tolist() == [1, 0.5, 0.25]
        assert viewer.dims.current_step[0] == 1
        corner = np.asarray(viewer.layers[-1].data).reshape(-1, 3)[:1]
        np.testing.assert_allclose(corner, placed)
        assert viewer.layers[-1].scale.tolist() == [1, 0.5, 0.25]


def test_an_uncommon_attribute_is_no_prediction(slide, opened):
    update_attributes("slide.zarr", prediction={"source": 7})
    assert "say where it is with --image" in opened("slide.zarr").warnings[0]
