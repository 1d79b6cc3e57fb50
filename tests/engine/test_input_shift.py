from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unetkit.arrays.normalization import fit
from unetkit.engine.input_shift import (
    check_input_shift,
    describe_image,
    limited,
    pixel_deviation,
    typical_of,
)
from unetkit.errors import InputError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.model_header import ModelHeader
from unetkit.progress import Silent
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.ome import Placement, Steps

HEADER = ModelHeader(
    model="unet",
    options={},
    in_channels=1,
    class_names=("background", "foreground"),
    target="foreground",
    contract=SizeContract(step=4, minimum=44, margin=20),
    normalization="percentile",
)


class Notes(Silent):
    """A progress that keeps what it is told."""

    def __init__(self):
        self.notes: list[str] = []

    def note(self, text):
        self.notes.append(text)


def stored(path, images, **more):
    writer = DatasetWriter(str(path))
    for number, image in enumerate(images):
        writer.add(f"s{number}", image, axes="yx", **more)
    writer.finish()
    return list(open_dataset(str(path)).samples)


def fitted(samples, method="percentile"):
    return [fit(sample.data.blocks, method=method) for sample in samples]


def trained_on(samples, **more):
    pairs = zip([s.data for s in samples], fitted(samples), strict=True)
    known = typical_of(pairs, replace_nonfinite=False)
    return replace(HEADER, intensities=known.to_dict(), **more)


def check(header, samples, *, progress, strict=False):
    return check_input_shift(
        header, samples, fitted(samples), replace_nonfinite=False, strict=strict, progress=progress
    )


def real(folder, name):
    paths = sorted((folder / name / "images").iterdir())
    return [np.asarray(Image.open(path)) for path in paths]


def dots(seed, *, noise=10.0):
    """Draw bright discs on dark ground, or on none where noise alone is wanted."""
    rng = np.random.default_rng(seed)
    image = 150 + noise * rng.standard_normal((200, 200))
    y, x = np.mgrid[:200, :200]
    for centre in rng.uniform(0, 200, (12, 2)) if noise <= 10 else ():
        image[np.hypot(y - centre[0], x - centre[1]) < 12] += 800
    return image.astype(np.uint16)


def test_an_empty_field_is_not_stretched_until_its_noise_looks_like_objects(tmp_path):
    learned = stored(tmp_path / "train.zarr", [dots(seed) for seed in range(4)])
    known = trained_on(learned).intensities
    seen = [dots(9), dots(8, noise=10.1), 4000 - dots(7, noise=10.1)]
    full, empty, light = stored(tmp_path / "seen.zarr", seen)

    def limit(sample, *told, method="percentile"):
        (whole,) = fitted([sample], method)
        return whole, limited(whole, sample.data, told, replace_nonfinite=False)

    whole, found = limit(full, known)
    assert found == whole
    usual = max(
        describe_image(s.data, n, replace_nonfinite=False).roughness[0]
        for s, n in zip(learned, fitted(learned), strict=True)
    )
    for sample in (empty, light):
        whole, found = limit(sample, known)
        own = describe_image(sample.data, found, replace_nonfinite=False)
        assert own.roughness[0] == pytest.approx(2 * usual, rel=1e-3)
        # What is left lies where the ground of the others is, whichever way light goes.
        ground = np.median(fitted(learned[:1])[0].apply(learned[0].data.read(0, 0, 200, 0, 200)))
        middle = np.median(found.apply(sample.data.read(0, 0, 200, 0, 200)))
        plain = np.median(whole.apply(sample.data.read(0, 0, 200, 0, 200)))
        assert abs(middle - ground) < 0.3 * abs(plain - ground)
        # What one of several networks knows is left as it is, and older ones see what they saw.
        noisy = trained_on([sample]).intensities
        assert limit(sample, known, noisy)[1] == whole
        older = {name: value for name, value in known.items() if name != "roughest"}
        assert limit(sample, known, older)[1] == limit(sample, None)[1] == whole
        plain, found = limit(sample, known, method="none")
        assert found == plain


@pytest.mark.parametrize("name", ["isbi2012_em", "phc_u373"])
def test_real_siblings_pass_and_their_inverse_or_a_magnified_one_does_not(
    test_data, tmp_path, name
):
    images = real(test_data, name)
    # Every second one is learned from, so that the rest are siblings and not a later day.
    header = trained_on(stored(tmp_path / "train.zarr", images[::2]))
    sibling = images[1]
    quarter = sibling[: sibling.shape[0] // 4, : sibling.shape[1] // 4]
    magnified = Image.fromarray(quarter).resize(sibling.shape[::-1], Image.Resampling.BICUBIC)
    large = np.asarray(magnified)
    samples, watching = stored(tmp_path / "sibling.zarr", [sibling]), Notes()
    assert check(header, samples, progress=watching, strict=True) == watching.notes == []
    for words, image in {"spread otherwise": 255 - sibling, "details are coarser": large}.items():
        samples, watching = stored(tmp_path / f"{words}.zarr", [image]), Notes()
        said = check(header, samples, progress=watching)
        assert words in said[0]
        assert watching.notes == [
            f"Unlike what the model was trained on, so look at the result: {said[0]}"
        ]
        with pytest.raises(InputError, match=words) as caught:
            check(header, samples, progress=watching, strict=True)
        assert caught.value.exit_code == 3


def test_pixels_of_another_size_are_named(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    samples = stored(tmp_path / "a.zarr", [image], pixel_size={"y": 0.25, "x": 0.25})
    header = trained_on(samples, pixel_size={"y": 1.0, "x": 1.0})
    with pytest.raises(InputError, match=r"'s0': pixels measure 0.25 micrometres along y instead"):
        check(header, samples, progress=Notes(), strict=True)
    same = replace(header, pixel_size={"y": 0.26, "x": 0.24})
    assert check(same, samples, progress=Notes(), strict=True) == []


def test_sizes_are_compared_where_that_of_the_training_is_known(tmp_path):
    samples = stored(tmp_path / "a.zarr", [np.zeros((64, 64), np.uint8)])

    def deviation(trained, found, placement=None):
        (sample,) = samples
        image = replace(sample.image, pixel_size=found, placement=placement)
        return pixel_deviation(trained, image)

    assert deviation(None, {"y": 1.0, "x": 1.0}) is None
    assert deviation({"y": 1.0, "x": 1.0}, {"y": 1.09, "x": 0.91}) is None
    unknown = deviation({"y": 0.25, "x": 0.25}, None)
    assert unknown is not None
    assert unknown.startswith("the size of its pixels is unknown, where 0.25 micrometres were")
    placed = Placement(Steps({"y": 0.5, "x": 0.5}))
    unitless = deviation({"y": 0.25, "x": 0.25}, None, placed)
    assert unitless is not None
    assert "0.5 without a unit" in unitless
    found = deviation({"y": 1.0, "x": 1.0}, {"y": 1.0, "x": 1.11})
    assert found is not None
    assert "1.11 micrometres along x instead of 1," in found


def test_models_without_a_histogram_are_silent(tmp_path):
    samples = stored(tmp_path / "a.zarr", [np.eye(40, dtype=np.uint8)])
    assert check(HEADER, samples, progress=Notes(), strict=True) == []


def test_many_are_counted_and_three_are_named(tmp_path):
    noise = [np.random.default_rng(k).integers(0, 255, (64, 64)).astype(np.uint8) for k in range(5)]
    header = trained_on(stored(tmp_path / "a.zarr", noise))
    watching = Notes()
    flat = [np.eye(64, dtype=np.uint8) for _ in range(5)]
    assert len(check(header, stored(tmp_path / "b.zarr", flat), progress=watching)) == 5
    assert watching.notes[0].endswith("(and 2 more)")
    assert "'s3'" not in watching.notes[0]


def test_of_a_large_image_the_varied_parts_are_looked_at(tmp_path):
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 255, (512, 512)).astype(np.uint8)
    slide = np.zeros((4 * 2048, 2048), np.uint8)
    slide[4096:4608, :512] = tissue
    (sample,) = stored(tmp_path / "a.zarr", [slide])
    (normalization,) = fitted([sample], "none")
    found = describe_image(sample.data, normalization, replace_nonfinite=False)
    assert found.quantiles[0][-1] > 0
    assert found.grain[0] > 0.5
