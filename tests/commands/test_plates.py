"""Plates and series of other programs are read wherever an image or a dataset is."""

import csv
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from unetkit.cli.app import main
from unetkit.commands.import_images.corrections import correct
from unetkit.commands.info import info
from unetkit.commands.measure import measure
from unetkit.commands.suggest import suggest
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import InputError
from unetkit.models.model_file import load, to_bytes
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

ASKED = {"tile": 48, "scheduler": "sync", "device": "cpu", "precision": "exact"}


@pytest.fixture
def screen(kit, slide):
    """Return a plate of 2 x 1 wells with 2 fields, beside a model."""
    return kit.plate("plate.zarr", columns="1", fields=2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_listed_without_a_look_at_its_images(kit, slide, version):
    url = kit.plate("plate.zarr", fields=2, version=version, labels="nuclei")
    shutil.rmtree("plate.zarr/B/2/1")
    found = info(url)
    assert (found["kind"], found["count"], found["wells"]) == ("plate", 8, 4)
    assert found["samples"][3] == {
        **{"name": "A-2-1", "row": "A", "column": "2", "field": "1", "path": "A/2/1"},
    }
    assert (found["first"]["shape"], found["first"]["other_labels"]) == ([40, 44], ["nuclei"])


def test_fields_of_one_well_are_of_one_source(screen):
    samples = open_dataset(screen).samples
    assert [(s.name, s.source) for s in samples][1:3] == [("A-1-1", "A-1"), ("B-1-0", "B-1")]


def test_a_field_is_corrected_and_judged_apart_from_others_of_its_name(screen):
    predicted = tile_predict(screen, tta="flips", uncertainty=True, **ASKED).output
    first, _, other, _ = open_dataset(predicted).samples
    labels = np.zeros((first.data.height, first.data.width), np.uint16)
    labels[3:9, 3:9] = 1
    tifffile.imwrite("edited.tif", labels)
    told = {"edited": "edited.tif", "judged": ["0:20,0:20"]}
    for sample, more in ((first, {}), (other, {"append": True})):
        correct(f"{predicted}/{sample.path}", **told, **more)
    kept = open_dataset("corrections.zarr").samples
    assert [(s.name, s.source) for s in kept] == [("A-1-0-y0-x0", "A-1"), ("B-1-0-y0-x0", "B-1")]
    for sample, one in zip((first, other), kept, strict=True):
        whole = np.asarray(open_image(f"{screen}/{sample.path}").data)
        height, width = one.data.height, one.data.width
        assert np.array_equal(np.asarray(one.data), whole[..., :height, :width])
    report = suggest(predicted, window=16, count=100, judged=["corrections.zarr"])
    near = {w.sample for w in report.windows if w.y0 < 20 and w.x0 < 20}
    assert report.judged
    assert near.isdisjoint({"A-1-0", "B-1-0"})
    # Fields of neither are looked at as a whole.
    assert any(w.sample in ("A-1-1", "B-1-1") and w.y0 < 20 and w.x0 < 20 for w in report.windows)


def series(kit, names, listed):
    """Write a file's series as bioformats2raw does."""
    zarr.create_group("file.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    if listed:
        zarr.create_group("file.zarr/OME", zarr_format=2, attributes={"series": names})
    kit.plate("plate.zarr")
    for name, place in zip(names, ("A/1", "A/2", "B/1"), strict=False):
        shutil.copytree(f"plate.zarr/{place}/0", f"file.zarr/{name}")


@pytest.mark.parametrize(
    ("names", "listed"), [(["0", "1", "2"], False), (["b", "a"], True), (["x/0", "x/1"], True)]
)
def test_series_are_samples(kit, slide, names, listed):
    series(kit, names, listed)
    found = [name.replace("/", "-") for name in names]
    assert list(open_dataset("file.zarr").names) == found
    report = tile_predict("file.zarr", **ASKED)
    assert list(open_dataset(report.output).names) == found
    assert info("file.zarr")["kind"] == "series"


def test_the_only_series_is_the_image(kit, slide):
    series(kit, ["0"], False)
    assert open_image("file.zarr").data.shape == (40, 44)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wells": 3}, "must follow OME-Zarr"),
        ({"wells": [{"path": "A/1"}, {"path": "A/1"}]}, "A-1-0 twice"),
        ({"wells": [{"path": "../A"}]}, "ROW/COLUMN belongs"),
        ({"wells": [{"path": "A"}]}, "ROW/COLUMN belongs"),
        ({"wells": [{"path": "A/1", "rowIndex": 1, "columnIndex": 0}]}, "with rowIndex 1"),
        ({"wells": [{"path": "A/9"}]}, "must be a well, got none"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_in_one_sentence(screen, change, words):
    plate = json.loads(Path("plate.zarr/.zattrs").read_text())["plate"]
    Path("plate.zarr/.zattrs").write_text(json.dumps({"plate": plate | change}))
    with pytest.raises(InputError, match=words):
        open_dataset(screen)


def test_the_prediction_of_a_plate_is_a_plate(kit, slide):
    for version in ("0.4", "0.5"):
        url = kit.plate(f"plate{version}.zarr", rows="B", fields=2, version=version)
        assert main(["tile-predict", url, "--tile", "48", "-q", "--ome-version", version]) == 0
        output = f"plate{version}.prediction.zarr"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yaozarrs.validate_zarr_store(output)
        made = open_dataset(output)
        assert made.kind == "plate"
        assert made.names == open_dataset(url).names
        field = open_dataset(output)["B-2-1"]
        alone = tile_predict(f"{url}/B/2/1", output=f"alone{version}.zarr", tile=48)
        (same,) = open_dataset(alone.output).samples
        np.testing.assert_array_equal(kit.read(field.labels()), kit.read(same.labels()))
        assert main(["verify", output]) == 0


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("version", "pixel"), [("0.4", 1.0), ("0.5", 0.3)])
def test_fields_of_other_pixels_than_the_models_are_rescaled(kit, slide, version, pixel, in_place):
    loaded = load("model.safetensors")
    known = replace(loaded.header, pixel_size={"y": pixel, "x": pixel})
    Path("model.safetensors").write_bytes(to_bytes(loaded.module, known))
    url = kit.plate("plate.zarr", columns="1", version=version, labels="nuclei")
    alone = tile_predict(f"{url}/B/1/0", output="alone.zarr", **ASKED)
    before = kit.contents(url)
    where = {"in_place": True} if in_place else {"output": "out.zarr", "ome_version": version}
    report = tile_predict(url, **where, **ASKED)
    (told,) = report.rescaled
    assert (told["samples"], told["factor"][0]) == (2, pytest.approx(0.5 / pixel, abs=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yaozarrs.validate_zarr_store(report.output)
    field = open_dataset(report.output)["B-1-0"].image
    (same,) = open_dataset(alone.output).samples
    for name in ("classes", "instances"):
        found = field.labels[name]
        assert (found.height, found.width) == (40, 44)
        np.testing.assert_array_equal(kit.read(found), kit.read(same.image.labels[name]))
    assert field.pixel_size == {"y": 0.5, "x": 0.5}
    after = kit.contents(url)
    assert in_place or after == before
    assert {
        name for name in before if "/labels/" not in name and after[name] != before[name]
    } == set()
    assert not list(Path(report.output).rglob("model-size")) or not in_place
    if not in_place:
        assert main(["verify", report.output, "-q"]) == 0


def test_one_table_has_row_column_and_field(kit, slide):
    url = kit.plate("plate.zarr", rows="AB", columns=["01", "02"], fields=2, labels="instances")
    report = measure(url, url)
    assert (report.samples, report.objects) == (8, 16)
    with Path(report.output).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = {name: rows[-1][name] for name in ("sample", "row", "column", "field", "id", "unit")}
    assert first == {
        **{"sample": "B-02-1", "row": "B", "column": "02", "field": "1"},
        **{"id": "2", "unit": "micrometre"},
    }
    assert {row["intensity_mean"] != "" for row in rows if "intensity_mean" in row} <= {True}
    measure(url, overwrite=True)


def test_labels_of_a_plate_are_learned_from_and_scored(kit, slide):
    url = kit.plate("plate.zarr", fields=2, labels="nuclei")
    assert len(open_dataset(url, labels="nuclei").samples) == 8
    assert main(["eval", url, url, "--labels", "nuclei", "-q"]) == 0
    asked = "--set depth=1 --set width=2 --recipe-set tile=60 --steps 1 --device cpu --workers 0"
    assert (
        main(["train", url, "--labels", "nuclei", "-o", "new.safetensors", "-q", *asked.split()])
        == 0
    )


BROKEN = {
    "absent": lambda field: shutil.rmtree(field),
    "metadata": lambda field: Path(field, "0/.zarray").write_text("{"),
    "chunk": lambda field: Path(field, "0/0.0").write_bytes(b"no chunk"),
    "well": lambda field: Path(field).parent.joinpath(".zattrs").write_text("{}"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_field_is_listed_and_the_rest_done(screen, how, capsys):
    BROKEN[how]("plate.zarr/B/1/1")
    assert main(["tile-predict", screen, "--tile", "48", "-q"]) == 3
    out, err = capsys.readouterr()
    place = "B/1" if how == "well" else "B/1/1"
    assert f"got 1 left out: {place}; the {4 - (2 if how == 'well' else 1)} others" in err
    made = open_dataset(out.strip())
    assert "B-1-1" not in made.names
    assert len(made.samples) == (2 if how == "well" else 3)
    (told,) = made.attributes["prediction"]["warnings"]
    assert told.startswith(f"{place} is left out: ")


def test_a_plate_of_broken_fields_is_refused(screen):
    for chunk in Path("plate.zarr").glob("*/*/*/0/0.0"):
        chunk.write_bytes(b"no chunk")
    with pytest.raises(InputError, match="must hold an image that can be read, got 4"):
        tile_predict(screen, **ASKED)
    assert not Path("plate.prediction.zarr").exists()
