"""Which pixels are objects, their ids, and how they grow, against scikit-image and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label
from skimage.segmentation import expand_labels

from unetkit.arrays.instances import (
    components,
    foreground_of,
    grow,
    growth_of,
    has_instances,
    instances,
)
from unetkit.errors import LabelError, UsageError

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))
SPARSE = arrays(np.uint16, (9, 11), elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 7]))


@given(mask=MASKS)
@settings(max_examples=100, deadline=None)
def test_components_are_numbered_in_raster_order(mask):
    labels, count = components(mask)
    # scikit-image numbers in raster order of the first pixel.
    np.testing.assert_array_equal(labels, label(mask, connectivity=1))
    assert count == labels.max()
    assert labels.dtype == np.uint32


def test_a_comb_is_one_object_named_by_its_first_tooth():
    comb = np.array([[0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 1, 1]], bool)
    labels, count = components(comb)
    assert count == 2
    np.testing.assert_array_equal(labels == 1, [[0, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4])


def test_diagonal_contact_does_not_join():
    assert components(np.eye(3, dtype=bool))[1] == 3


@pytest.mark.parametrize(
    ("target", "seed", "area"),
    [("foreground", 1, None), ("foreground+boundary", 1, 2), ("boundary", 0, 1)],
)
def test_each_target_says_where_objects_are_and_grow(target, seed, area):
    classes = np.arange(3).reshape(1, 3)
    assert has_instances(target)
    assert np.flatnonzero(foreground_of(classes, target)).tolist() == [seed]
    growth = growth_of(classes, target)
    assert growth is None if area is None else np.flatnonzero(growth).tolist() == [area]


def test_class_maps_have_no_instances():
    assert not has_instances("classes")
    with pytest.raises(UsageError, match="target must be one with instances, got 'classes'"):
        foreground_of(np.zeros((2, 2), int), "classes")


def test_instances_of_a_class_map():
    # Interior 1, boundary 2: the objects take their own boundary and no background.
    classes = np.array([[2, 2, 0, 2, 0], [2, 1, 2, 1, 2], [2, 2, 0, 2, 0]])
    found = instances(classes, "foreground+boundary")
    np.testing.assert_array_equal(found, [[0, 1, 0, 2, 0], [1, 1, 1, 2, 2], [0, 1, 0, 2, 0]])
    small = instances(np.array([[1, 0, 1, 1]]), "foreground", min_size=2, distance=0)
    np.testing.assert_array_equal(small, [[0, 0, 1, 1]])


def brute_grow(labels, distance, within):
    """Look for the nearest labelled pixel of every free one."""
    grown = labels.copy()
    filled = np.argwhere(labels)
    for y, x in np.argwhere((labels == 0) & within):
        near = [((y - v) ** 2 + (x - u) ** 2, labels[v, u]) for v, u in filled]
        squared, lowest = min(near, default=(distance**2 + 1, 0))
        if squared <= distance**2:
            grown[y, x] = lowest
    return grown


@given(labels=SPARSE, distance=st.integers(0, 5), within=arrays(bool, (9, 11)))
@settings(max_examples=60, deadline=None)
def test_the_nearest_instance_grows_first_and_ties_go_to_the_lower_id(labels, distance, within):
    everywhere = np.ones_like(within)
    np.testing.assert_array_equal(
        grow(labels, distance=distance, within=within), brute_grow(labels, distance, within)
    )
    grown = grow(labels, distance=distance)
    np.testing.assert_array_equal(grown, brute_grow(labels, distance, everywhere))
    # scikit-image leaves ties to chance, but takes the same pixels.
    np.testing.assert_array_equal(grown > 0, expand_labels(labels, distance) > 0)


@given(labels=SPARSE, distance=st.integers(1, 3), tile=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_growing_in_tiles_with_context_is_growing_the_whole(labels, distance, tile):
    whole = grow(labels, distance=distance)
    for y in range(0, 9, tile):
        for x in range(0, 11, tile):
            top, left = max(y - distance, 0), max(x - distance, 0)
            read = labels[top : y + tile + distance, left : x + tile + distance]
            part = grow(read, distance=distance)[y - top :, x - left :][:tile, :tile]
            np.testing.assert_array_equal(part, whole[y : y + tile, x : x + tile])


def test_without_context_tiles_would_differ():
    labels = np.array([[0, 0, 3, 0]])
    assert grow(labels, distance=1)[0, 1] == 3
    assert grow(labels[:, :2], distance=1)[0, 1] == 0


def test_growing_keeps_dtype_and_the_array_given():
    labels = np.array([[0, 2**40]], np.uint64)
    grown = grow(labels, distance=1)
    assert grown.dtype == np.uint64
    assert grown.tolist() == [[2**40, 2**40]]
    assert labels.tolist() == [[0, 2**40]]


def test_what_cannot_grow_is_refused():
    with pytest.raises(UsageError, match="grow must be at least 0 pixels, got -1"):
        grow(np.zeros((2, 2), int), distance=-1)
    with pytest.raises(LabelError, match="labels must be integers, got float64"):
        grow(np.zeros((2, 2)), distance=1)
