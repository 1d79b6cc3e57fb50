"""A prediction of an image unlike those of the training is warned of, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unetkit.arrays.normalization import fit
from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.engine.input_shift import typical_of
from unetkit.models.model_file import load, to_bytes
from unetkit.storage.datasets import DatasetWriter, open_dataset


def stored(path, images, **more):
    writer = DatasetWriter(str(path))
    for number, image in enumerate(images):
        writer.add(f"s{number}", image, axes="yx", **more)
    writer.finish()
    return list(open_dataset(str(path)).samples)


def real(folder, name):
    paths = sorted((folder / name / "images").iterdir())
    return [np.asarray(Image.open(path)) for path in paths]


def test_a_prediction_warns_or_refuses_and_its_sibling_passes(
    kit, test_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images = [image[:256, :256] for image in real(test_data, "isbi2012_em")]
    samples = stored(tmp_path / "train.zarr", images[::2])
    fitted = [(sample.data, fit(sample.data.blocks)) for sample in samples]
    typical = typical_of(fitted, replace_nonfinite=False)
    loaded = load(kit.model(tmp_path / "plain.safetensors"))
    known = replace(loaded.header, intensities=typical.to_dict())
    (tmp_path / "model.safetensors").write_bytes(to_bytes(loaded.module, known))
    stored(tmp_path / "sibling.zarr", [images[1]])
    stored(tmp_path / "turned.zarr", [255 - images[1]])
    watching = kit.watching()
    tile_predict("sibling.zarr", strict=True, progress=watching)
    assert not any("Unlike" in note for note in watching.notes)
    tile_predict("turned.zarr", output="loose.zarr", progress=watching)
    assert any("Unlike what the model was trained on" in note for note in watching.notes)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["tile-predict", "turned.zarr", "--strict"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_warning_is_in_the_json_and_in_the_prediction(slide, capsys):
    loaded = load("model.safetensors")
    known = replace(loaded.header, pixel_size={"y": 0.5, "x": 0.5})
    Path("model.safetensors").write_bytes(to_bytes(loaded.module, known))
    assert main(["tile-predict", slide, "--json", "-q"]) == 0
    told = capsys.readouterr()
    (warning,) = json.loads(told.out)["warnings"]
    assert told.err == ""
    assert "'slide': the size of its pixels is unknown, where 0.5 micrometres" in warning
    attributes = json.loads(Path("slide.prediction.zarr/zarr.json").read_text())["attributes"]
    assert attributes["unetkit"]["prediction"]["warnings"] == [warning]
    assert main(["tile-predict", slide, "--json", "-o", "b.zarr", "--pixel-size", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def cells(seed, strength=1.0):
    """Draw bright squares on noise, of at most 255."""
    rng = np.random.default_rng(seed)
    image = np.asarray(40 + 20 * rng.random((96, 96)))
    for y in range(4, 88, 14):
        for x in range(4, 88, 14):
            image[y : y + 9, x : x + 9] += 120 + 60 * rng.random()
    return (strength * image).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train on images of weak and of strong light, with each normalization."""
    folder = tmp_path_factory.mktemp("trained")
    writer = DatasetWriter(str(folder / "data.zarr"))
    for seed, strength in enumerate((0.2, 1.0, 0.25, 0.9, 0.22, 1.0)):
        image = cells(seed, strength)
        labels = (image > 100 * strength).astype(np.uint8)
        writer.add(f"s{seed}", image, axes="yx", labels=labels, kind="classes")
    writer.finish()
    for method in ("none", "range", "percentile"):
        train(
            str(folder / "data.zarr"),
            output=str(folder / f"{method}.safetensors"),
            options=("width=2", "depth=2"),
            recipe_set=("tile=32",),
            normalization=method,
            steps=1,
            device="cpu",
            precision="float32",
        )
    return folder


U8 = cells(10)
UNITS = {
    "the same": U8,
    "the same in 16 bits": U8.astype(np.uint16),
    "weaker light": cells(10, 0.3),
    "a little brighter, in 16 bits": U8.astype(np.uint16) * 6 // 5,
    "16 bits": U8.astype(np.uint16) * 257,
    "12 bits in 16": U8.astype(np.uint16) * 16,
    "0 to 1": U8.astype(np.float32) / 255,
    "constant": np.full_like(U8, 50),
    "a hot pixel": U8.astype(np.uint16),
}
UNITS["a hot pixel"][0, 70] = 65535
OTHERS = ("16 bits", "12 bits in 16", "0 to 1")
# What stands for 0 and 1 is fitted on each image, so that units make no difference; but one hot
# pixel makes all others nearly black where it stands for 1.
WARNED = {
    "none": {*OTHERS, "constant"},
    "range": {"constant", "a hot pixel"},
    "percentile": {"constant"},
}


@pytest.mark.parametrize("method", list(WARNED))
def test_numbers_of_another_unit_are_told(kit, trained, tmp_path, method):
    found, warned = {}, set()
    for name, image in UNITS.items():
        stored(tmp_path / f"{name}.zarr", [image])
        watching = kit.watching()
        report = tile_predict(
            str(tmp_path / f"{name}.zarr"),
            model=str(trained / f"{method}.safetensors"),
            probabilities="float32",
            precision="exact",
            progress=watching,
        )
        made = open_dataset(report.output).samples[0].data
        found[name] = kit.read(made)
        assert np.isfinite(found[name]).all()
        if any("intensities" in note for note in watching.notes):
            warned.add(name)
    assert warned == WARNED[method]
    alike = [np.allclose(found[name], found["the same"], atol=1e-4) for name in OTHERS]
    assert alike == [method != "none"] * 3
    np.testing.assert_array_equal(found["the same in 16 bits"], found["the same"])


def test_pixels_of_unknown_size_are_said_refused_and_told(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(kit.model(tmp_path / "plain.safetensors"))
    known = replace(loaded.header, pixel_size={"y": 0.25, "x": 0.25})
    (tmp_path / "model.safetensors").write_bytes(to_bytes(loaded.module, known))
    stored(tmp_path / "slide.zarr", [cells(1).astype(np.uint8)])
    watching = kit.watching()
    tile_predict("slide.zarr", output="a.zarr", progress=watching)
    assert any("the size of its pixels is unknown" in note for note in watching.notes)
    assert main(["tile-predict", "slide.zarr", "--strict"]) == 3
    assert (
        main(["tile-predict", "slide.zarr", "--strict", "--pixel-size", "500nm", "--no-rescale"])
        == 3
    )
    assert main(["tile-predict", "slide.zarr", "--strict", "--pixel-size", "250nm"]) == 0
    (sample,) = open_dataset("slide.prediction.zarr").samples
    assert sample.image.pixel_size == {"y": 0.25, "x": 0.25}
    assert sample.image.placement.pixel_size is None
    assert "--pixel-size 250nm" in sample.image.attributes["prediction"]["command"]
