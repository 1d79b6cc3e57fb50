"""Imports come into their place whole: strips of an image, samples of a dataset, all or nothing."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from unetkit.commands.import_images.dataset import CHUNK, DatasetOutput
from unetkit.commands.import_images.pairing import Pair
from unetkit.commands.import_images.rules import MaskRules
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.progress import SILENT
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image
from unetkit.storage.readers import open_file

PIXELS = np.random.default_rng(3).integers(0, 256, (2, CHUNK + 90, 70), dtype=np.uint8)


def image(folder, name, pixels=PIXELS[0]):
    path = str(folder / f"{name}.tif")
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return Pair(name, path), open_file(path, axes="zyx"[-pixels.ndim :])


def listing(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write(target, *images):
    pairs, files = [pair for pair, _ in images], [file for _, file in images]
    target.write_dataset(pairs, files, MaskRules(), progress=SILENT, warned=tuple)


def broken(file):
    """Return a file whose second strip can't be read."""

    def strips(height):
        yield 0, 0, np.zeros((1, min(height, CHUNK), 70), np.uint8)
        raise InputError("cut short")

    return replace(file, strips=strips)


@pytest.mark.parametrize("planes", [1, 2])
def test_an_image_strip_by_strip(tmp_path, planes):
    pixels = PIXELS if planes == 2 else PIXELS[0]
    pair, file = image(tmp_path, "a", pixels)
    out = str(tmp_path / "a.zarr")
    DatasetOutput(out, append=False, overwrite=False).write_image(
        replace(file, pixel_size={"y": 0.5, "x": 0.5}), pair, SILENT, warned=tuple
    )
    opened = open_image(out)
    assert opened.pixel_size == {"y": 0.5, "x": 0.5}
    assert opened.attributes["source_file"] == "a.tif"
    stored = [opened.data.read(p, 0, CHUNK + 90, 0, 70)[0] for p in range(planes)]
    assert np.array_equal(np.stack(stored), PIXELS[:planes])


def test_an_image_that_breaks_off_leaves_nothing(tmp_path):
    pair, file = image(tmp_path, "a")
    before = listing(tmp_path)
    target = DatasetOutput(str(tmp_path / "a.zarr"), append=False, overwrite=False)
    with pytest.raises(InputError, match="cut short"):
        target.write_image(broken(file), pair, SILENT, warned=tuple)
    assert listing(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dataset_that_breaks_off_leaves_what_was_there(tmp_path):
    out = tmp_path / "a.zarr"
    write(DatasetOutput(str(out), append=False, overwrite=False), image(tmp_path, "a"))
    pair, file = image(tmp_path, "b")
    before = listing(tmp_path)
    with pytest.raises(InputError, match="cut short"):
        write(DatasetOutput(str(out), append=False, overwrite=True), (pair, broken(file)))
    assert listing(tmp_path) == before


def test_samples_are_added_all_or_none(tmp_path):
    out = tmp_path / "a.zarr"
    write(DatasetOutput(str(out), append=False, overwrite=False), image(tmp_path, "a"))
    b, (pair, file) = image(tmp_path, "b"), image(tmp_path, "c")
    before = listing(out)
    with pytest.raises(InputError, match="cut short"):
        write(DatasetOutput(str(out), append=True, overwrite=False), b, (pair, broken(file)))
    assert listing(out) == before
    write(DatasetOutput(str(out), append=True, overwrite=False), b, (pair, file))
    assert open_dataset(str(out)).names == ("a", "b", "c")
    after = listing(out)
    lists = [str(out / name) for name in ("zarr.json", "OME/zarr.json", "OME/METADATA.ome.xml")]
    kept = {path: data for path, data in before.items() if path not in lists}
    assert all(after[path] == data for path, data in kept.items())


def test_what_may_not_be_added(tmp_path):
    out = str(tmp_path / "a.zarr")
    pair, file = image(tmp_path, "a")
    write(DatasetOutput(out, append=False, overwrite=False), (pair, file))
    target = DatasetOutput(out, append=True, overwrite=False)
    target.check_appended([file], MaskRules(), labelled=False)
    assert target.missing([pair, Pair("b", "b.tif")], [file, file], MaskRules()) == [1]
    _, other = image(tmp_path, "a", PIXELS[1])
    with pytest.raises(OutputError, match=r"new names, got 'a', .* 'unetkit remove .* a'"):
        target.missing([pair], [other], MaskRules())
    rgb = replace(file, axes="cyx", shape=(3, 5, 5))
    with pytest.raises(InputError, match=r"as many channels as .*, 1, got 3"):
        target.check_appended([rgb], MaskRules(), labelled=False)
    slide = str(tmp_path / "slide.zarr")
    DatasetOutput(slide, append=False, overwrite=False).write_image(
        file, pair, SILENT, warned=tuple
    )
    with pytest.raises(InputError, match="must be a dataset to add samples, got the image"):
        DatasetOutput(slide, append=True, overwrite=False).check_appended(
            [file], MaskRules(), labelled=False
        )


def test_classes_of_a_dataset_go_on(tmp_path):
    out = str(tmp_path / "a.zarr")
    pair, file = image(tmp_path, "a")
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros_like(PIXELS[0]))
    rules = MaskRules("classes", mapping={0: 0, 255: 1}, class_names=("cell", "wall"))
    DatasetOutput(out, append=False, overwrite=False).write_dataset(
        [replace(pair, mask=str(tmp_path / "mask.tif"))],
        [file],
        rules,
        progress=SILENT,
        warned=tuple,
    )
    target = DatasetOutput(out, append=True, overwrite=False)
    again = target.check_appended([file], MaskRules("classes"), labelled=True)
    assert target.known == {0: 0, 255: 1}
    assert again.names == ("cell", "wall")
    with pytest.raises(UsageError, match=r"must be those of .*, cell, wall, got x, y"):
        target.check_appended([file], MaskRules("classes", ("x", "y")), labelled=True)
    with pytest.raises(InputError, match=r"kind that .* has, classes, got instances"):
        target.check_appended([file], MaskRules(), labelled=True)


def test_the_same_pixels_as_image_and_mask_are_refused(tmp_path):
    pair, file = image(tmp_path, "a")
    tifffile.imwrite(tmp_path / "mask.tif", PIXELS[0], compression="zlib")
    target = DatasetOutput(str(tmp_path / "a.zarr"), append=False, overwrite=False)
    twin = replace(pair, mask=str(tmp_path / "mask.tif"))
    with pytest.raises(InputError, match="got the same pixels"):
        target.write_dataset([twin], [file], MaskRules(), progress=SILENT, warned=tuple)
    assert not (tmp_path / "a.zarr").exists()
