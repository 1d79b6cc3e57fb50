from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from unetkit.arrays.normalization import fit
from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.engine.input_shift import (
    check_input_shift,
    describe_image,
    pixel_deviation,
    typical_of,
)
from unetkit.errors import InputError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.model_file import load, to_bytes
from unetkit.models.model_header import ModelHeader
from unetkit.storage.datasets import DatasetWriter, open_dataset

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from unetkit.storage.datasets import Sample

HEADER = ModelHeader(
    model="unet",
    options={},
    in_channels=1,
    class_names=("background", "foreground"),
    target="foreground",
    contract=SizeContract(step=4, minimum=44, margin=20),
    normalization="percentile",
)


def stored(path: Path, images: list[np.ndarray], **more: Any) -> list[Sample]:
    writer = DatasetWriter(str(path))
    for number, image in enumerate(images):
        writer.add(f"s{number}", image, axes="yx", **more)
    writer.finish()
    return list(open_dataset(str(path)).samples)


def fitted(samples: list[Sample], method: str = "percentile") -> list[Any]:
    return [fit(sample.data.blocks, method=method) for sample in samples]


def trained_on(samples: list[Sample], **more: Any) -> ModelHeader:
    known = typical_of(
        zip([s.data for s in samples], fitted(samples), strict=True), replace_nonfinite=False
    )
    return replace(HEADER, intensities=known.to_dict(), **more)


def check(
    header: ModelHeader, samples: list[Sample], *, progress: Any, strict: bool = False
) -> list[str]:
    return check_input_shift(
        header, samples, fitted(samples), replace_nonfinite=False, strict=strict, progress=progress
    )


def real(folder: Path, name: str) -> list[np.ndarray]:
    paths = sorted((folder / name / "images").iterdir())
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.mark.parametrize("name", ["isbi2012_em", "phc_u373"])
def test_real_siblings_pass_and_their_inverse_or_a_magnified_one_does_not(
    kit: SimpleNamespace, test_data: Path, tmp_path: Path, name: str
) -> None:
    images = real(test_data, name)
    # Every second one is learned from, so that the rest are siblings and not a later day.
    header = trained_on(stored(tmp_path / "train.zarr", images[::2]))
    sibling = images[1]
    quarter = sibling[: sibling.shape[0] // 4, : sibling.shape[1] // 4]
    large = np.asarray(
        Image.fromarray(quarter).resize(sibling.shape[::-1], Image.Resampling.BICUBIC)
    )
    for number, (image, words) in enumerate(
        [(sibling, None), (255 - sibling, "spread otherwise"), (large, "details are coarser")]
    ):
        samples = stored(tmp_path / f"{number}.zarr", [image])
        watching = kit.watching()
        said = check(header, samples, progress=watching)
        if words is None:
            assert said == watching.notes == []
            check(header, samples, progress=watching, strict=True)
            continue
        assert words in said[0]
        assert watching.notes == [
            f"Unlike what the model was trained on, so look at the result: {said[0]}"
        ]
        with pytest.raises(InputError, match=words) as caught:
            check(header, samples, progress=watching, strict=True)
        assert caught.value.exit_code == 3


def test_pixels_of_another_size_are_named(kit: SimpleNamespace, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    samples = stored(tmp_path / "a.zarr", [image], pixel_size={"y": 0.25, "x": 0.25})
    header = trained_on(samples, pixel_size={"y": 1.0, "x": 1.0})
    with pytest.raises(InputError, match=r"'s0': pixels measure 0.25 micrometres along y instead"):
        check(header, samples, progress=kit.watching(), strict=True)
    same = replace(header, pixel_size={"y": 0.26, "x": 0.24})
    assert check(same, samples, progress=kit.watching(), strict=True) == []


def test_sizes_are_compared_where_both_are_known() -> None:
    assert pixel_deviation(None, {"x": 1.0}) is None
    assert pixel_deviation({"y": 1.0, "x": 1.0}, None) is None
    assert pixel_deviation({"y": 1.0, "x": 1.0}, {"y": 1.09, "x": 0.91}) is None
    found = pixel_deviation({"y": 1.0, "x": 1.0}, {"y": 1.0, "x": 1.11})
    assert found is not None
    assert "1.11 micrometres along x instead of 1," in found


def test_models_without_a_histogram_are_silent(kit: SimpleNamespace, tmp_path: Path) -> None:
    samples = stored(tmp_path / "a.zarr", [np.eye(40, dtype=np.uint8)])
    assert check(HEADER, samples, progress=kit.watching(), strict=True) == []


def test_many_are_counted_and_three_are_named(kit: SimpleNamespace, tmp_path: Path) -> None:
    noise = [np.random.default_rng(k).integers(0, 255, (64, 64)).astype(np.uint8) for k in range(5)]
    header = trained_on(stored(tmp_path / "a.zarr", noise))
    watching = kit.watching()
    flat = [np.eye(64, dtype=np.uint8) for _ in range(5)]
    assert len(check(header, stored(tmp_path / "b.zarr", flat), progress=watching)) == 5
    assert watching.notes[0].endswith("(and 2 more)")
    assert "'s3'" not in watching.notes[0]


def test_of_a_large_image_the_varied_parts_are_looked_at(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 255, (512, 512)).astype(np.uint8)
    slide = np.zeros((4 * 2048, 2048), np.uint8)
    slide[4096:4608, :512] = tissue
    (sample,) = stored(tmp_path / "a.zarr", [slide])
    (normalization,) = fitted([sample], "none")
    found = describe_image(sample.data, normalization, replace_nonfinite=False)
    assert found.quantiles[0][-1] > 0
    assert found.grain[0] > 0.5


def test_a_prediction_warns_or_refuses_and_its_sibling_passes(
    kit: SimpleNamespace, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = [image[:256, :256] for image in real(test_data, "isbi2012_em")]
    header = trained_on(stored(tmp_path / "train.zarr", images[::2]))
    loaded = load(kit.model(tmp_path / "plain.safetensors"))
    known = replace(loaded.header, intensities=header.intensities)
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


def cells(seed: int, strength: float = 1.0) -> np.ndarray:
    """Draw bright squares on noise, of at most 255."""
    rng = np.random.default_rng(seed)
    image = np.asarray(40 + 20 * rng.random((96, 96)))
    for y in range(4, 88, 14):
        for x in range(4, 88, 14):
            image[y : y + 9, x : x + 9] += 120 + 60 * rng.random()
    return (strength * image).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def test_numbers_of_another_unit_are_told(
    kit: SimpleNamespace, trained: Path, tmp_path: Path, method: str
) -> None:
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
