"""Measurements against scikit-image, whole and in blocks."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

from unetkit.arrays import objects


def blobs(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((70, 90)), 2)
    labels = ndimage.label(noise > 0.51)[0]
    # Touching halves: outlines run between objects too.
    return np.where((labels > 0) & (np.arange(90) > 45), labels + 1000, labels)


def whole(labels, **options):
    inside = tuple(slice(objects.REACH, objects.REACH + n) for n in labels.shape)
    padded = np.pad(labels, objects.REACH)
    return objects.measure(padded, origin=(0, 0), inside=inside, **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pixel", [None, (0.5, 0.5), (0.5, 0.25)])
def test_measurements_are_those_of_scikit_image(seed, pixel):
    labels = blobs(seed)
    image = np.random.default_rng(seed).integers(0, 4000, size=(2, 70, 90)).astype(np.uint16)
    found = objects.table(whole(labels, intensities=image), pixel=pixel)
    round_pixels = pixel is None or pixel[0] == pixel[1]
    names = {"id": "label", "area": "area", "centroid_y": "centroid-0", "centroid_x": "centroid-1"}
    names |= {"axis_major": "axis_major_length", "axis_minor": "axis_minor_length"}
    names |= {"mean_1": "intensity_mean-1", "min_0": "intensity_min-0", "max_1": "intensity_max-1"}
    names |= {"perimeter": "perimeter"} if round_pixels else {}
    properties = sorted({name.split("-")[0] for name in names.values()})
    image = np.moveaxis(image, 0, -1)
    expected = regionprops_table(labels, image, properties=properties, spacing=pixel)
    close = {"atol": 1e-9, "rtol": 1e-9}
    for ours, theirs in names.items():
        np.testing.assert_allclose(found[ours].astype(float), expected[theirs], **close)
    if not round_pixels:
        assert np.isnan(found["perimeter"]).all()


@pytest.mark.parametrize("side", [7, 33])
def test_blocks_give_the_same_bits(side):
    labels, reach = blobs(5), objects.REACH
    image = np.random.default_rng(0).integers(0, 255, size=(1, 70, 90)).astype(np.uint8)
    padded, parts = np.pad(labels, reach), []
    for y in range(0, 70, side):
        for x in range(0, 90, side):
            height, width = min(side, 70 - y), min(side, 90 - x)
            box = padded[y : y + height + 2 * reach, x : x + width + 2 * reach]
            inside = slice(reach, reach + height), slice(reach, reach + width)
            part = image[:, y : y + height, x : x + width]
            parts.append(objects.measure(box, origin=(y, x), inside=inside, intensities=part))
    tiled, expected = objects.merge(parts), whole(labels, intensities=image)
    for name in ("ids", "sums", "box", "total", "low", "high"):
        np.testing.assert_array_equal(getattr(tiled, name), getattr(expected, name))


def test_shape_is_exact_far_from_the_origin():
    labels = np.pad(np.ones((3, 5), int), 2)
    inside = (slice(2, 5), slice(2, 7))
    near, far = (
        objects.table(objects.measure(labels, origin=at, inside=inside))
        for at in ((0, 0), (10**6, 10**6))
    )
    assert near["axis_major"] == far["axis_major"] == pytest.approx(4 * 2**0.5)
    assert far["centroid_y"] == 10**6 + 1


def test_nothing_is_an_empty_table_and_one_pixel_has_no_outline_to_walk():
    assert len(objects.table(whole(np.zeros((4, 4), int)))["id"]) == 0
    found = objects.table(whole(np.pad([[1]], 2)))
    assert found["perimeter"] == 0
    assert np.isinf(found["circularity"]).all()
