"""Files of several scenes: a sample each, or the one that is asked for."""

import numpy as np
import pytest
from PIL import Image

import unetkit
from unetkit.cli.app import main
from unetkit.errors import InputError, UsageError
from unetkit.registry import Registry
from unetkit.storage import readers

# A reader of two scenes of noise, and one that was written before there were any.
CODE = """
from contextlib import contextmanager
import numpy as np
import unetkit
NAMES = {names}
def open_many(path, *, axes=None, labels=False, scene=None):
    number = unetkit.choose_scene(scene, NAMES, path=path)
    pixels = np.random.default_rng(number).integers(0, 256, (2, 40, 50 + number), dtype="u1")
    @contextmanager
    def regions():
        yield lambda plane, y0, y1, x0, x1: pixels[:, y0:y1, x0:x1]
    return unetkit.ImageFile.of_regions(
        path, regions, axes="cyx", shape=pixels.shape, dtype="u1", channel_names=("A", "B"),
        scenes=NAMES, scene=NAMES[number], pixel_size={{"y": 0.5, "x": 0.5}},
    )
def open_old(path, *, axes=None, labels=False):
    return open_many(path)
"""


def noise(number):
    return np.random.default_rng(number).integers(0, 256, (2, 40, 50 + number), dtype="u1")


@pytest.fixture
def many(lay, tmp_path, monkeypatch):
    """Install the readers, and return what makes a file that the scenes are called so in."""

    def made(*names):
        points = {"unetkit.readers": {"many": "open_many", "old": "open_old"}}
        lay("scenes", points, code=CODE.format(names=names))
        monkeypatch.setattr(readers, "READERS", Registry("unetkit.readers", noun="reader"))
        (tmp_path / "a.many").write_bytes(b"")
        (tmp_path / "a.old").write_bytes(b"")
        return str(tmp_path / "a.many")

    return made


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        (("Position 1", "Position 2"), ["a-Position-1", "a-Position-2"]),
        (("x/y", "x y"), ["a-0", "a-1"]),
        (("../..", "."), ["a-0", "a-1"]),
    ],
)
def test_each_scene_becomes_a_sample_called_after_both(many, tmp_path, names, samples):
    unetkit.import_images(many(*names), str(tmp_path / "out.zarr"))
    dataset = unetkit.open_dataset(str(tmp_path / "out.zarr"))
    assert list(dataset.names) == samples
    for number, sample in enumerate(dataset.samples):
        assert np.array_equal(sample.data.read(0, 0, 40, 0, 50 + number), noise(number))
        assert sample.image.pixel_size == {"y": 0.5, "x": 0.5}


@pytest.mark.parametrize("scene", ["right", "1"])
def test_the_scene_that_is_asked_for_becomes_an_image(many, tmp_path, scene):
    out = str(tmp_path / "out.zarr")
    unetkit.import_images(many("left", "right"), out, scene=scene, channels="B")
    image = unetkit.open_image(out)
    assert np.array_equal(image.data.read(0, 0, 40, 0, 51), noise(1)[1:])
    assert image.channel_names == ("B",)


def test_a_wrong_scene_lists_those_that_there_are(many, tmp_path, capsys):
    path, out = many("left", "right"), str(tmp_path / "out.zarr")
    assert main(["import", path, out, "--scene", "top"]) == 2
    assert "got 'top'; it has 0 (left), 1 (right)" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.zarr").exists()


def test_a_mask_belongs_to_one_scene(many, tmp_path):
    path, out = many("left", "top right"), str(tmp_path / "out.zarr")
    (tmp_path / "masks").mkdir()
    for name, width in (("a", 51), ("a-left", 50)):
        mask = np.zeros((40, width), np.uint8)
        mask[5:9, 5:9] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    mask = str(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match=r"must be one scene, got 2 .* --scene left$"):
        unetkit.import_images(path, out, labels=mask)
    unetkit.import_images(path, out, labels=mask, scene="top right")
    assert unetkit.open_dataset(out).samples[0].label_kind == "instances"


@pytest.mark.parametrize(
    ("told", "groups"),
    [
        ("^(.)", ["a", "a"]),
        ("^(a.*)", ["a", "a"]),
        ("-([lr])", ["l", "r"]),
        ("image,group\na.many,g\n", ["g", "g"]),
        ("image,group\na,g\na-right-2,h\n", ["g", "h"]),
    ],
)
def test_scenes_are_of_the_group_of_their_file_or_of_their_own(many, tmp_path, told, groups):
    path, out = many("left", "right 2"), str(tmp_path / "out.zarr")
    if "," in told:
        (tmp_path / "groups.csv").write_text(told)
        told = str(tmp_path / "groups.csv")
    assert unetkit.import_images(path, out, group=told).groups == tuple(dict.fromkeys(groups))
    assert [sample.group for sample in unetkit.open_dataset(out).samples] == groups


def test_a_scene_without_a_group_and_the_group_of_one_scene_are_refused(many, tmp_path):
    path, out = many("left", "right"), str(tmp_path / "out.zarr")
    with pytest.raises(InputError, match=r"for 'a.many', scene 'right'; match it too"):
        unetkit.import_images(path, out, group="-(l)")
    with pytest.raises(UsageError, match="several images"):
        unetkit.import_images(path, out, group="(a)", scene="left")
    assert not (tmp_path / "out.zarr").exists()


def test_a_reader_without_scenes_and_a_store_refuse_one(many, tmp_path):
    path = many("left", "right")
    with pytest.raises(UsageError, match=r"scene must be left out for .*a\.old"):
        unetkit.import_images(path.replace(".many", ".old"), str(tmp_path / "b"), scene="left")
    out = str(tmp_path / "out.zarr")
    unetkit.import_images(path, out, scene="left")
    with pytest.raises(UsageError, match="name the series in the path"):
        unetkit.import_images(out, str(tmp_path / "c.zarr"), scene="left")
