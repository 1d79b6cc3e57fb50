"""The job of `augment`: a copy is what the arrays' own functions make of the sample."""

import inspect
import io
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unetkit.arrays.appearance import Appearance, apply_appearance
from unetkit.arrays.deformation import Deformation, deform, folds
from unetkit.arrays.normalization import fit
from unetkit.commands.augment.command import augment
from unetkit.commands.augment.copies import Copy, Strengths, make_copy
from unetkit.errors import InputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.images import open_image

MOVED = Deformation(
    grid=np.random.default_rng(0).normal(0, 5, (2, 3, 3)), angle=10.0, quarter_turns=1
)
GREY = Appearance(gain=1.2, bias=0.05, gamma=0.9, noise_sigma=0.02, noise_seed=3)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 60000, (2, 32, 48)).astype(np.uint16),
        "labels": rng.integers(0, 9, (32, 48)).astype(np.uint8),
        "ignore": rng.integers(0, 2, (32, 48)).astype(np.uint8),
        "weights": rng.random((32, 48), np.float32),
    }


@pytest.fixture
def copy(tmp_path, arrays):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    parts = dict(arrays)
    writer.add("a", parts.pop("image"), axes="cyx", **parts)
    writer.finish()
    sample = open_dataset(writer.url)["a"]
    return Copy(sample, "b", str(tmp_path / "b.zarr"), {"why": "test"}, MOVED, GREY)


def test_a_copy_is_deformed_then_changed_in_grey(copy, arrays):
    make_copy(copy)
    made = open_image(copy.url)
    moved = deform(
        arrays["image"],
        MOVED,
        labels=arrays["labels"],
        weights=arrays["weights"],
        ignore=arrays["ignore"],
    )
    normalization = fit(lambda: [arrays["image"]])
    image = apply_appearance(moved.image, GREY, normalization=normalization)
    box = (0, 0, 48, 0, 32)
    assert (made.data.read(*box) == image).all()
    assert (made.labels["instances"].read(*box) == moved.labels).all()
    assert (made.labels["ignore"].read(*box) == moved.ignore).all()
    assert (made.weights.read(*box) == moved.weights).all()
    assert made.attributes["why"] == "test"


def test_what_a_lost_worker_left_is_made_anew(copy):
    make_copy(copy)
    first = open_image(copy.url).data.read(0, 0, 48, 0, 32)
    make_copy(pickle.loads(pickle.dumps(copy)))
    assert (open_image(copy.url).data.read(0, 0, 48, 0, 32) == first).all()


def strengths(**changes):
    names = ("grid", "sigma", "shift", "rotation", "flips", "grey")
    parameters = inspect.signature(augment).parameters
    return Strengths(**{**{name: parameters[name].default for name in names}, **changes})


def sample(size=(200, 300), pixel_size=None):
    return SimpleNamespace(
        name="a",
        data=SimpleNamespace(height=size[0], width=size[1]),
        image=SimpleNamespace(pixel_size=pixel_size),
    )


def test_a_draw_depends_on_seed_sample_and_copy_alone():
    one = strengths().draw(0, (1, 2), sample())
    again = strengths().draw(0, (1, 2), sample())
    assert one[0].to_dict() == again[0].to_dict()
    assert one[1] == again[1]
    for other in (
        strengths().draw(1, (1, 2), sample()),
        strengths().draw(0, (2, 2), sample()),
        strengths().draw(0, (1, 3), sample()),
    ):
        assert other[0].to_dict() != one[0].to_dict()


def test_a_length_follows_the_pixels_of_the_sample():
    drawn, _ = strengths(sigma="5um").draw(0, (0, 1), sample(pixel_size={"y": 0.5, "x": 1.0}))
    plain, _ = strengths(sigma=1.0).draw(0, (0, 1), sample())
    np.testing.assert_allclose(drawn.grid, plain.grid * np.array([10, 5])[:, None, None])


def test_folds_are_drawn_again_unless_they_are_allowed():
    strong, small = {"sigma": 14.0}, sample((64, 64))
    allowed = [strengths(**strong, allow_folds=True).draw(0, (0, i), small)[0] for i in range(40)]
    drawn = [strengths(**strong).draw(0, (0, i), small)[0] for i in range(40)]
    assert any(folds(deformation, (64, 64)) for deformation in allowed)
    assert not any(folds(deformation, (64, 64)) for deformation in drawn)


@pytest.mark.parametrize("changes", [{"sigma": -1}, {"sigma": "wide"}, {"grid": 1}, {"grey": -1}])
def test_strengths_are_judged_before_there_is_a_sample(changes):
    strengths().check()
    with pytest.raises(UsageError):
        strengths(**changes).check()


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name in ("a", "b"):
        image = rng.integers(0, 200, (40, 56)).astype(np.uint8)
        writer.add(name, image, axes="yx", labels=(image // 60).astype(np.uint8))
    writer.finish()
    return writer.url


def contents(folder):
    root = Path(folder)
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_copy_is_made_again_to_the_byte(tmp_path, data):
    more = augment(data, str(tmp_path / "more.zarr"), copies=3, seed=7).output
    report = augment(data, str(tmp_path / "again.zarr"), replay=f"{more}/b-aug002")
    again = report.output
    assert (report.originals, report.copies) == (1, 1)
    assert open_dataset(again).names == ("b", "b-aug002")
    assert contents(f"{again}/b-aug002") == contents(f"{more}/b-aug002")
    assert contents(f"{again}/b-aug002") != contents(f"{more}/b-aug001")
    assert open_dataset(again)["b-aug002"].image.attributes["seed"] == 7


def test_what_has_no_record_can_not_be_replayed(tmp_path, data):
    output = tmp_path / "again.zarr"
    with pytest.raises(InputError, match="must be a sample that 'unetkit augment' made"):
        augment(data, str(output), replay=f"{data}/a")
    assert not output.exists()


def test_the_original_must_be_in_the_dataset(tmp_path, data):
    more = augment(data, str(tmp_path / "more.zarr"), copies=1).output
    writer = DatasetWriter(str(tmp_path / "other.zarr"))
    writer.add("c", np.zeros((9, 9), np.uint8), axes="yx")
    writer.finish()
    with pytest.raises(InputError, match="must hold the sample 'a' to make its copy again, got c"):
        augment(writer.url, str(tmp_path / "again.zarr"), replay=f"{more}/a-aug001")


def sheet(folder, *, samples, copies, shape=(48, 32)):
    writer = DatasetWriter(str(folder / "data.zarr"))
    for number in range(samples):
        image = np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)
        writer.add(f"s{number}", image, axes="yx", labels=(image > 200).astype(np.uint8))
    writer.finish()
    path = folder / "sheet.png"
    augment(writer.url, str(folder / "more.zarr"), copies=copies, preview=str(path))
    return Image.open(io.BytesIO(path.read_bytes()))


def test_there_are_as_many_rows_as_copies_up_to_eight(tmp_path):
    heights = []
    for number, copies in enumerate((1, 2, 8, 11)):
        folder = tmp_path / str(number)
        folder.mkdir()
        heights.append(sheet(folder, samples=1, copies=copies).height)
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_a_large_image_is_thinned(tmp_path):
    assert max(sheet(tmp_path, samples=1, copies=1, shape=(2100, 700)).size) < 2100
