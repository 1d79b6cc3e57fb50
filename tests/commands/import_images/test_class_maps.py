"""Masks of ids and class maps of the same images become objects with classes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Watching
from unetkit.commands.import_images.command import import_images
from unetkit.errors import InputError, LabelError, UsageError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.object_classes import read_object_classes

SHAPE = 40, 48


def cells(seed):
    """Draw blocks of ids, and of each its class; some pixels of a third are of other classes."""
    rng = np.random.default_rng(seed)
    ids, classes = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint8)
    numbers = rng.permutation(np.arange(1, 400))[:12]
    for number, (y, x) in zip(numbers, np.ndindex(3, 4), strict=True):
        box = slice(12 * y + 1, 12 * y + 10), slice(12 * x + 1, 12 * x + 1 + rng.integers(4, 11))
        ids[box], classes[box] = number, rng.integers(1, 4)
        if rng.random() < 0.4:
            inner = rng.random(classes[box].shape) < 0.3
            classes[box] = np.where(inner, rng.integers(0, 4, inner.shape), classes[box])
    return ids, classes


def most(ids, classes):
    """Find the class with most pixels of each object but class 0, one by one."""
    found = {}
    for number in np.unique(ids[ids > 0]):
        inside = classes[ids == number]
        counts = [int((inside == value).sum()) for value in (1, 2, 3)]
        found[int(number)] = 1 + counts.index(max(counts))
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images", "ids", "kinds"):
        (tmp_path / name).mkdir()
    for k in range(3):
        rng, (ids, classes) = np.random.default_rng(k), cells(k)
        save(f"images/{k}.png", rng.integers(0, 255, SHAPE).astype(np.uint8))
        save(f"ids/{k}.png", ids)
        save(f"kinds/{k}.png", classes)
    return tmp_path


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def imported(output="o.zarr", **options):
    progress = Watching()
    given = {"labels": "ids", "kind": "instances+classes", "object_classes": "kinds", **options}
    import_images("images", output, progress=progress, **given)
    return progress


def told(url="o.zarr"):
    found = []
    for sample in open_dataset(url).samples:
        classes = read_object_classes(sample.image)
        found.append(dict(zip(classes.ids.tolist(), classes.numbers.tolist(), strict=True)))
    return found, classes.names


def test_each_object_is_of_the_class_of_most_of_its_pixels(folder):
    progress = imported(classes="tumour,stroma,other")
    found, names = told()
    drawn = [cells(k) for k in range(3)]
    assert found == [most(*one) for one in drawn]
    assert names == ("background", "tumour", "stroma", "other")
    for sample, (ids, _) in zip(open_dataset("o.zarr").samples, drawn, strict=True):
        np.testing.assert_array_equal(np.asarray(sample.labels("instances")), ids)
    mixed = sum(
        len(np.unique(classes[ids == number])) > 1
        for ids, classes in drawn
        for number in np.unique(ids[ids > 0])
    )
    assert 0 < mixed < 36
    said = f"{mixed} of 36 objects hold pixels of more than one class"
    assert any(said in text for text in progress.notes)


def test_classes_without_names_are_called_by_their_values(folder):
    ids, classes = cells(0)
    values = np.array([0, 4, 7, 9], np.uint8)
    for k in range(3):
        save(f"kinds/{k}.png", values[cells(k)[1]])
    imported()
    assert told() == ([most(*cells(k)) for k in range(3)], ("background", "4", "7", "9"))
    # Values may join to a class, and 0 may be one.
    imported("joined.zarr", classes="0-4=a,7-9=b")
    found, names = told("joined.zarr")
    assert names == ("background", "a", "b")
    ratio = {n: (classes[ids == n] > 1).mean() for n in found[0]}
    assert found[0] == {n: 2 if share > 0.5 else 1 for n, share in ratio.items()}


def test_a_class_that_no_object_has_keeps_its_name(folder):
    for k in range(3):
        save(f"kinds/{k}.png", np.where(cells(k)[1] > 0, 3, 0).astype(np.uint8))
    imported(classes="background,a,b,c")
    found, names = told()
    assert names == ("background", "a", "b", "c")
    assert {number for one in found for number in one.values()} == {3}


def test_files_beside_the_images_pair_by_their_names(folder):
    (folder / "one").mkdir()
    for k in range(3):
        for name, ending in (("images", ""), ("ids", "_inst"), ("kinds", "_type")):
            shutil.copy(f"{name}/{k}.png", f"one/{k}{ending}.png")
    progress = Watching()
    import_images(
        "one",
        "o.zarr",
        labels="one/{stem}_inst.png",
        object_classes="one/{stem}_type.png",
        kind="instances+classes",
        progress=progress,
    )
    assert [sample.name for sample in open_dataset("o.zarr").samples] == ["0", "1", "2"]
    assert told()[0] == [most(*cells(k)) for k in range(3)]


def test_more_images_are_added_and_the_same_are_skipped(folder):
    imported()
    shutil.copy("images/0.png", "images/3.png")
    for name, pixels in zip(("ids", "kinds"), cells(7), strict=True):
        save(f"{name}/3.png", pixels)
    imported(append=True)
    assert told()[0] == [most(*cells(k)) for k in (0, 1, 2, 7)]


def test_what_has_no_class_is_refused(folder):
    ids, classes = cells(0)
    first = ids[ids > 0].min()
    save("kinds/0.png", np.where(ids == first, 0, classes).astype(np.uint8))
    with pytest.raises(LabelError, match=rf"got 1 of class 0 alone .* such as object {first} of"):
        imported()
    (folder / "kinds/0.png").unlink()
    with pytest.raises(InputError, match="must have a class map, got none for 1 images, such as"):
        imported()
    save("kinds/0.png", classes[:-1])
    with pytest.raises(InputError, match="as high and wide"):
        imported()
    save("kinds/0.png", classes)
    with pytest.raises(UsageError, match="every value of the class maps, got background, a for"):
        imported(classes="a")
    with pytest.raises(UsageError, match="must come with --kind instances\\+classes, got instance"):
        imported(kind="instances")
    assert not list(folder.glob("*.zarr"))
