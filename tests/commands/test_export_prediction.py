"""Exports read again by other programs equal the labels; what can't be exported says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.measure import measure
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.weights.command import weights
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image


@pytest.fixture
def prediction(slide):
    return tile_predict(slide, tile=16, precision="exact").output


def test_labels_read_again_are_those_of_the_prediction(prediction, kit):
    labels = kit.read(open_image(prediction).labels["instances"])
    report = export_prediction(prediction)
    assert report.output == "slide.prediction.tif"
    assert (report.format, report.layer, report.files) == ("tiff", "instances", 1)
    assert report.bytes == Path(report.output).stat().st_size
    read = tifffile.imread(report.output)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, labels)
    png = export_prediction(prediction, to="png", output="cells.png")
    np.testing.assert_array_equal(np.asarray(Image.open(png.output)), labels)
    outlines = export_prediction(prediction, to="geojson")
    features = json.loads(Path(outlines.output).read_text())["features"]
    assert outlines.features == len(features) == labels.max()
    assert {f["properties"]["classification"]["name"] for f in features} == {"foreground"}
    assert sorted(path.name for path in Path().iterdir()) == [
        "cells.png",
        "model.safetensors",
        "slide.prediction.geojson",
        "slide.prediction.tif",
        "slide.prediction.zarr",
        "slide.zarr",
    ]


def test_classes_and_probabilities_are_exported_too(prediction, kit):
    image = open_image(prediction)
    classes = export_prediction(prediction, layer="classes", output="classes.tif")
    read = tifffile.imread(classes.output)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, kit.read(image.labels["classes"]))
    chances = export_prediction(prediction, layer="probabilities", output="p.tif")
    np.testing.assert_array_equal(tifffile.imread(chances.output), kit.read(image.data))
    with tifffile.TiffFile("p.tif") as file:
        assert 'Name="foreground"' in file.ome_metadata


def test_a_dataset_gives_a_folder_with_a_file_for_each_sample(tmp_path, kit):
    source = kit.cells(tmp_path / "data.zarr", count=2)
    for _ in range(2):
        report = export_prediction(source, to="png", output=str(tmp_path / "png"), overwrite=True)
    assert report.files == 2
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names == [".unetkit", "s0.png", "s1.png"]
    read = np.asarray(Image.open(tmp_path / "png" / "s1.png"))
    np.testing.assert_array_equal(read, kit.read(open_image(f"{source}/s1").labels["instances"]))


def test_what_is_done_is_counted_over_all_samples(tmp_path, kit):
    source = kit.cells(tmp_path / "data.zarr", count=3)
    for to in ("png", "tiff", "geojson", "coco"):
        watching = kit.watching()
        export_prediction(source, to=to, output=str(tmp_path / to), progress=watching)
        assert watching.stages == [["export", 6, 6]]


@pytest.mark.parametrize("to", ["tiff", "png", "geojson", "rois", "coco", "labelme"])
def test_only_an_earlier_export_is_replaced(prediction, to):
    if to == "rois":
        pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    first = export_prediction(prediction, to=to).output
    before = Path(first).read_bytes()
    with pytest.raises(OutputError, match="add --overwrite"):
        export_prediction(prediction, to=to)
    assert export_prediction(prediction, to=to, overwrite=True).output == first
    assert Path(first).read_bytes() == before
    Path(first).write_bytes(b"years of work")
    with pytest.raises(OutputError, match="must be an earlier output"):
        export_prediction(prediction, to=to, overwrite=True)
    assert Path(first).read_bytes() == b"years of work"


@pytest.mark.parametrize("to", ["tiff", "coco"])
def test_samples_without_labels_are_left_out_and_said(to, tmp_path, kit):
    source = kit.cells(tmp_path / "data.zarr", count=2)
    writer = DatasetWriter(source)
    for name in ("blank", "empty"):
        writer.add(name, np.zeros((64, 64), np.uint8), axes="yx")
    writer.finish()
    watching = kit.watching()
    report = export_prediction(source, to=to, output=str(tmp_path / "out"), progress=watching)
    assert report.skipped == ("blank", "empty")
    assert report.files == (1 if to == "coco" else 2)
    assert watching.notes == [*report.warnings]
    assert report.warnings == ("left out 2 samples without labels: 'blank', 'empty'",)
    with pytest.raises(InputError, match=r"'s0' must have classes .* got instances; use --layer"):
        export_prediction(source, to=to, layer="classes", output=str(tmp_path / "more"))


def labelled(folder, largest):
    url = str(folder / "many.zarr")
    create_image(url, shape=(9, 9), axes="yx", dtype="u1")
    labels = create_labels(url, "instances", shape=(9, 9), axes="yx", dtype="u8")
    content = np.zeros((9, 9), np.uint64)
    content[2:4, 2:4] = largest
    labels.write(0, 0, 0, content)
    return url


@pytest.mark.parametrize(
    ("largest", "to", "said"),
    [
        (65_535, "png", None),
        (65_536, "png", "at most 65535 in a PNG, got 65536; use --to tiff"),
        (2**24, "tiff", None),
        (2**32 - 1, "tiff", None),
        (2**32, "tiff", r"below 2\^32 in a TIFF, got 4294967296; use --to geojson"),
        (2**40, "geojson", None),
    ],
)
def test_ids_that_do_not_fit_are_refused(largest, to, said, tmp_path, kit):
    source, output = labelled(tmp_path, largest), tmp_path / "out"
    if said is None:
        watching = kit.watching()
        export_prediction(source, to=to, output=str(output), progress=watching)
        if to == "tiff":
            assert tifffile.imread(output).max() == largest
            assert ("look alike" in "".join(watching.notes)) == (largest > 2**24)
        if to == "geojson":
            assert f'"name":"{largest}"' in output.read_text()
        return
    with pytest.raises(UsageError, match=said):
        export_prediction(source, to=to, output=str(output))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.zarr"]


def test_a_name_of_another_format_is_refused(tmp_path):
    source = labelled(tmp_path, 7)
    named = [("png", "a.tif", "tiff"), ("tiff", "a.PNG", "png"), ("coco", "a.geojson", "geojson")]
    for to, name, use in [*named, ("tiff", "a.json", "geojson or coco or labelme")]:
        with pytest.raises(UsageError, match=f"output must end with .* or use --to {use}"):
            export_prediction(source, to=to, output=str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.zarr"]
    export_prediction(source, to="tiff", output=str(tmp_path / "a.tiff"))
    assert tifffile.imread(tmp_path / "a.tiff").max() == 7


def test_what_is_not_there_is_named(tmp_path, kit):
    source, _ = kit.image(tmp_path / "slide.zarr", (20, 20))
    with pytest.raises(InputError, match="must have labels to be exported, got no labels"):
        export_prediction(source)
    with pytest.raises(InputError, match="must have probabilities to be exported"):
        export_prediction(source, layer="probabilities")
    with pytest.raises(UsageError, match="to must be one of tiff, png, geojson"):
        export_prediction(source, to="bmp")
    DatasetWriter(str(tmp_path / "none.zarr"))
    with pytest.raises(InputError, match="must hold at least one sample"):
        export_prediction(str(tmp_path / "none.zarr"))
    with pytest.raises(UsageError, match="on this machine"):
        export_prediction(source, output="s3://bucket/a.tif")


def test_what_a_format_can_t_hold_is_refused(prediction, tmp_path):
    for to in ("png", "geojson"):
        with pytest.raises(UsageError, match="use --to tiff"):
            export_prediction(prediction, to=to, layer="probabilities")
    url = str(tmp_path / "stack.zarr")
    create_image(url, shape=(2, 9, 9), axes="zyx", dtype="u1")
    create_labels(url, "instances", shape=(2, 9, 9), axes="zyx", dtype="u2")
    for to, use in [("png", "tiff"), ("coco", "geojson or rois"), ("labelme", "geojson or rois")]:
        with pytest.raises(UsageError, match=f"must hold one plane an image, got 2 .*--to {use}$"):
            export_prediction(url, to=to)


def test_labels_of_other_writers_are_chosen_by_name(tmp_path, kit):
    """Every command that reads labels takes the name; without it the names are said."""
    source = str(tmp_path / "site.ome.zarr")
    shape = {"shape": (64, 64), "axes": "yx"}
    pixels = np.random.default_rng(0).integers(0, 99, (1, 64, 64))
    labels = np.zeros((64, 64), np.int64)
    labels[4:20, 4:20], labels[4:20, 22:40], labels[40:60, 30:50] = 1, 2, 70_000
    create_image(source, dtype="u1", **shape).write(0, 0, 0, (pixels + (labels > 0) * 99)[:, :, :])
    create_labels(source, "nuclei", dtype="i8", **shape).write(0, 0, 0, labels)
    create_labels(source, "tissue", dtype="u1", **shape).write(0, 0, 0, labels > 0)
    out = {name: str(tmp_path / name) for name in ("o.csv", "o.tif", "m.safetensors")}
    few = {"steps": 1, "options": ["width=4", "depth=1"], "recipe_set": ["tile=48"]}
    commands = {
        "measure": lambda **labels: measure(source, csv=out["o.csv"], **labels),
        "export": lambda **labels: export_prediction(source, output=out["o.tif"], **labels),
        "weights": lambda **labels: weights(source, **labels),
        "train": lambda **labels: train(source, output=out["m.safetensors"], **few, **labels),
        "eval": lambda **labels: evaluate(source, source, **labels),
    }
    for command in commands.values():
        with pytest.raises(InputError, match="got 'nuclei', 'tissue'; choose with --labels nuclei"):
            command()
    done = {name: command(labels="nuclei") for name, command in commands.items()}
    assert done["measure"].objects == 3
    np.testing.assert_array_equal(tifffile.imread(out["o.tif"]), labels)
    assert (done["weights"].samples, done["train"].trained_on) == (1, 1)
    assert done["eval"].overall.dice == 1
    assert open_dataset(source, labels="tissue=classes").samples[0].weights is None
    out["m.safetensors"] = str(tmp_path / "classes.safetensors")
    commands["train"](labels="tissue=classes")
    assert read_header(out["m.safetensors"]).target == "classes"
