import pickle
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

from unetkit import testing
from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.registry import Registry
from unetkit.storage.readers import open_picture
from unetkit.storage.tiff import open_tiff
from unetkit.testing import check_model, check_reader

# Options that make each model of the package small enough to be checked in a second.
SMALL = {"unet": {"depth": 1, "width": 2}, "keras-unet": {"depth": 1, "width": 2}}


def test_every_installed_model_of_our_own_keeps_the_contract():
    registry = Registry("unetkit.models", noun="model")
    own = [n for n in registry.names() if registry.entry(n).distribution == "unetkit"]
    # Those of segmentation-models-pytorch have a test file of their own, which takes longer.
    ours = {name for name in own if not name.startswith("smp-")}
    assert ours <= set(SMALL), "give the new model small options here"
    for name in ours:
        check_model(registry.get(name), **SMALL[name])


def test_what_builds_a_model_travels_to_other_processes():
    registry = Registry("unetkit.models", noun="model")
    for name in registry.names():
        build = registry.get(name)
        assert pickle.loads(pickle.dumps(build)) is build


class Blur(nn.Module):
    """One zero-padded 3x3 convolution, which needs a halo of 1."""

    def __init__(self, in_channels, classes, *, halo):
        super().__init__()
        self.contract = SizeContract(step=1, minimum=4, halo=halo)
        self.layer = nn.Conv2d(in_channels, classes, 3, padding=1)

    def forward(self, image):
        return self.layer(image)


def build(*, in_channels: int, classes: int, halo: int = 1) -> Blur:
    return Blur(in_channels, classes, halo=halo)


def test_a_true_claim_passes_with_any_number_of_channels():
    check_model(build)
    check_model(build, in_channels=3, classes=4)


def test_the_first_broken_rule_is_raised():
    with pytest.raises(CheckError, match="no more context than the 0 pixels of its contract"):
        check_model(build, halo=0)


def test_everything_that_an_author_needs_is_public():
    for name in testing.__all__:
        assert getattr(testing, name).__doc__


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "stack.ome.tif"])
def test_the_readers_of_our_own_keep_the_contract(name, picture, tmp_path):
    path = str(tmp_path / name)
    if name == "stack.ome.tif":
        pixels = np.random.default_rng(0).random((2, 3, 2, 40, 50)).astype("f4")
        told = {"axes": "TZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
        tifffile.imwrite(path, pixels, tile=(16, 16), metadata=told)
    else:
        Image.open(picture).save(path)
    check_reader(open_tiff if name.endswith("tif") else open_picture, path)


KEPT = []  # what stays open


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: replace(file, shape=(3, 31, 46)), r"a strip is \(3, 31, 47\)"),
        (lambda file: replace(file, shape=(3, 62, 47)), "a strip is|strips are lacking"),
        (lambda file: replace(file, dtype=np.dtype("u2")), "of uint8 for .* of uint16"),
        (lambda file: replace(file, axes="yxc", shape=(31, 47, 3)), "axes are not in order"),
        (lambda file: replace(file, channel_names=("a", "b")), "3 channels are called"),
        (lambda file: replace(file, pixel_size={"y": 0.0, "x": 1.0}), "the pixel size is"),
        (lambda file: replace(file, scenes=("one", "two")), "scenes are listed and can't"),
        (lambda file: replace(file, strips=lambda height: iter(())), "strips are lacking"),
        (lambda file: KEPT.append(open(file.path, "rb")) or file, "stay open"),  # noqa: PTH123, SIM115
    ],
)
def test_a_reader_that_says_other_than_it_gives_is_found_out(change, message, picture):
    def reader(path, *, axes=None, labels=False):
        return change(open_picture(path, axes=axes, labels=labels))

    with pytest.raises(CheckError, match=message):
        check_reader(reader, picture)
    while KEPT:
        KEPT.pop().close()


def test_a_reader_with_an_error_of_its_own_or_a_wrong_region_is_found_out(picture):
    def careless(path, *, axes=None, labels=False):
        Image.open(path).close()
        return open_picture(path, axes=axes, labels=labels)

    with pytest.raises(CheckError, match=r"got FileNotFoundError.* unetkit\.reading"):
        check_reader(careless, picture)

    def moved(path, *, axes=None, labels=False):
        file = open_picture(path, axes=axes, labels=labels)
        whole = file.load()

        @contextmanager
        def regions():
            yield lambda plane, y0, y1, x0, x1: whole[:, y0:y1, x0:x1][:, ::-1]

        return replace(file, regions=regions)

    with pytest.raises(CheckError, match="differ from the whole"):
        check_reader(moved, picture)
