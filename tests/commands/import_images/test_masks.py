"""Masks are read against their images, judged together, and become labels."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.commands.import_images.masks import make_labels, read_mask, survey
from unetkit.commands.import_images.rules import MaskRules
from unetkit.errors import InputError, LabelError
from unetkit.storage.readers import open_file

CELLS = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 255, 255]], np.uint16)


def image(folder, *shape):
    path = folder / "image.tif"
    tifffile.imwrite(path, np.zeros(shape, np.uint8), photometric="minisblack")
    return open_file(str(path), axes="zyx"[-len(shape) :])


def mask(folder, pixels, name="mask.png"):
    path = folder / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels).save(path)
    return str(path)


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_numbers_are_those_that_were_drawn(tmp_path, name):
    assert np.array_equal(read_mask(mask(tmp_path, CELLS, name), image(tmp_path, 3, 4)), CELLS)


def test_large_numbers_and_floats_that_are_whole(tmp_path):
    numbers = CELLS.astype(np.float64) * 1_000_000
    read = read_mask(mask(tmp_path, numbers, "a.tif"), image(tmp_path, 3, 4))
    assert read.dtype == np.uint32
    assert np.array_equal(read, numbers)


def test_colours_that_are_greys(tmp_path):
    grey = CELLS.astype(np.uint8)
    path = mask(tmp_path, np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    assert np.array_equal(read_mask(path, image(tmp_path, 3, 4)), grey)
    with pytest.raises(LabelError, match="different colours"):
        read_mask(mask(tmp_path, np.dstack([grey, grey, grey + 1])), image(tmp_path, 3, 4))


def test_another_size_is_refused(tmp_path):
    said = r"got 3 x 4 in .*mask\.png.* for 4 x 3 in .*image\.tif.*else scale it to that size"
    with pytest.raises(InputError, match=said):
        read_mask(mask(tmp_path, CELLS), image(tmp_path, 4, 3))
    with pytest.raises(InputError, match=r"got 1 along z in .* for 2"):
        read_mask(mask(tmp_path, CELLS), image(tmp_path, 2, 3, 4))


def test_pages_of_a_mask_are_those_of_its_image(tmp_path):
    stack = np.stack([CELLS, CELLS + 1])
    assert np.array_equal(
        read_mask(mask(tmp_path, stack, "a.tif"), image(tmp_path, 2, 3, 4)), stack
    )


def test_a_page_an_object(tmp_path):
    pages = np.stack([k == CELLS for k in (1, 2, 3, 7)]) * np.uint8(255)
    flat = image(tmp_path, 3, 4)
    path = mask(tmp_path, pages, "a.tif")
    assert np.array_equal(read_mask(path, flat), np.where(CELLS < 4, CELLS, 0))
    rules = survey([(path, flat)], MaskRules())
    assert "a page for each object" in rules.files[path].remarks[0]
    for bad in (pages | pages[:1], pages - (np.arange(4) == 1).astype(np.uint8) * (pages > 0)):
        with pytest.raises(LabelError, match="an object on each, apart from all others"):
            read_mask(mask(tmp_path, bad, "a.tif"), flat)
    with pytest.raises(InputError, match=r"got 4 along z in .* for 2"):
        read_mask(path, image(tmp_path, 2, 3, 4))


@pytest.mark.parametrize("alpha", [0, 255])
@pytest.mark.parametrize("channel", range(3))
def test_numbers_in_one_of_the_colours_alone(channel, alpha, tmp_path):
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[..., channel], pixels[..., 3] = CELLS, alpha
    path, flat = mask(tmp_path, pixels), image(tmp_path, 3, 4)
    assert np.array_equal(read_mask(path, flat), CELLS)
    rules = survey([(path, flat)], MaskRules())
    assert f"channel {('red', 'green', 'blue')[channel]} alone" in rules.files[path].remarks[0]


def test_a_channel_an_object(tmp_path):
    channels = np.stack([k == CELLS for k in (1, 2, 3)]) * np.uint8(255)
    path, flat = str(tmp_path / "a.tif"), image(tmp_path, 3, 4)
    tifffile.imwrite(path, channels, imagej=True, metadata={"axes": "CYX"})
    assert np.array_equal(read_mask(path, flat), np.where(CELLS < 4, CELLS, 0))
    rules = survey([(path, flat)], MaskRules())
    assert "a channel for each object" in rules.files[path].remarks[0]
    # Channels that share all pixels among them are classes, one of them the background.
    classes = np.stack([CELLS == 0, CELLS > 0]) * np.uint8(255)
    tifffile.imwrite(path, classes, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(LabelError, match="if the channels are classes, save one"):
        read_mask(path, flat)
    tifffile.imwrite(path, channels | channels[:1], imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(LabelError, match="an object on each, apart from all others"):
        read_mask(path, flat)


def test_jpeg_is_refused(tmp_path):
    with pytest.raises(LabelError, match="without loss, got a JPEG"):
        read_mask(mask(tmp_path, CELLS.astype(np.uint8), "a.jpg"), image(tmp_path, 3, 4))


def test_ignored_pixels(tmp_path):
    path = mask(tmp_path, CELLS)
    rules = survey([(path, image(tmp_path, 3, 4))], MaskRules(ignore=255))
    assert rules.ignored == 2
    numbers, ignore = make_labels(CELLS, rules)
    assert np.array_equal(numbers, np.where(CELLS == 255, 0, CELLS))
    assert ignore is not None
    assert np.array_equal(ignore, CELLS == 255)


def test_classes_and_their_names(tmp_path):
    pixels = np.array([[0, 127], [255, 0]], np.uint8)
    pair = [(mask(tmp_path, pixels), image(tmp_path, 2, 2))]
    plain = survey(pair, MaskRules("classes"))
    assert (plain.mapping, plain.class_names) == ({0: 0, 127: 1, 255: 2}, ("0", "127", "255"))
    named = survey(pair, MaskRules("classes", ("background", "myelin", "axon")))
    assert named.class_names == ("background", "myelin", "axon")
    assert np.array_equal(make_labels(pixels, named)[0], [[0, 1], [2, 0]])


@pytest.mark.parametrize("kind", ["instances", "classes"])
@pytest.mark.parametrize("value", [0, 1])
def test_masks_without_foreground_are_noticed(tmp_path, kind, value):
    drawn = np.full((3, 4), 255, np.uint8)
    drawn[0] = 0
    drawn[2, 2] = value
    path = mask(tmp_path, drawn)
    pair = [(path, image(tmp_path, 3, 4))]
    assert survey(pair, MaskRules(kind, ignore=255)).empty == (value == 0)


def test_ignored_pixels_of_a_class_map_count_as_the_first_class(tmp_path):
    pixels = np.array([[1, 2], [255, 2]], np.uint8)
    path = mask(tmp_path, pixels)
    rules = survey([(path, image(tmp_path, 2, 2))], MaskRules("classes", ignore=255))
    classes, ignore = make_labels(pixels, rules)
    assert rules.mapping == {1: 0, 2: 1}
    assert np.array_equal(classes, [[0, 1], [0, 1]])
    assert ignore is not None
    assert np.array_equal(ignore, [[0, 0], [1, 0]])


def test_known_classes_go_on(tmp_path):
    pair = [(mask(tmp_path, np.array([[0, 255]], np.uint8)), image(tmp_path, 1, 2))]
    known = {0: 0, 127: 1, 255: 2}
    assert survey(pair, MaskRules("classes"), known=known).mapping == known
    with pytest.raises(LabelError, match=r"classes for \(0, 1\), got 255 as well"):
        survey(pair, MaskRules("classes"), known={0: 0, 1: 1})


def test_connected_components_run_on_over_the_planes(tmp_path):
    binary = np.array([[[255, 0, 255]], [[0, 255, 255]]], np.uint8)
    pair = [(mask(tmp_path, binary, "a.tif"), image(tmp_path, 2, 1, 3))]
    numbers, ignore = make_labels(binary, survey(pair, MaskRules(split=True)))
    assert np.array_equal(numbers, [[[1, 0, 2]], [[0, 3, 3]]])
    assert ignore is None
    with pytest.raises(LabelError, match="--connected-components"):
        survey(pair, MaskRules())
