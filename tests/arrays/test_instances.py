"""Which pixels are objects, their ids, and how they grow, against scikit-image and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label
from skimage.segmentation import expand_labels

from unetkit.arrays.components import components
from unetkit.arrays.instances import (
    foreground_of,
    grow,
    growth_of,
    has_instances,
    id_dtype,
    instances,
    merge,
    merge_across_blocks,
    summarize,
    touching,
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


@pytest.mark.parametrize(
    ("target", "seed", "area"),
    [
        ("foreground", [1], None),
        ("foreground+boundary", [1], 2),
        ("foreground+distance", [1, 2], None),
        ("boundary", [0], 1),
    ],
)
def test_each_target_says_where_objects_are_and_grow(target, seed, area):
    classes = np.arange(3).reshape(1, 3)
    assert has_instances(target)
    assert np.flatnonzero(foreground_of(classes, target)).tolist() == seed
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


VOLUMES = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=13))


def tiled(volume, tile, min_size=0):
    """Label a stack of planes block by block, as a tiled prediction does."""
    planes, height, width = volume.shape
    tops, lefts = range(0, height, tile[0]), range(0, width, tile[1])
    boxes, labelled, summaries = [], [], []
    for plane, y, x in itertools.product(range(planes), tops, lefts):
        boxes.append(np.s_[plane, y : y + tile[0], x : x + tile[1]])
        labelled.append(components(volume[boxes[-1]]))
        place = {"y0": y, "x0": x, "width": width, "start": plane * height * width}
        summaries.append(summarize(*labelled[-1], **place))
    joined = merge_across_blocks(summaries, grid=(planes, len(tops), len(lefts)), min_size=min_size)
    whole = np.zeros(volume.shape, joined.ids.dtype)
    for number, ((found, _), box) in enumerate(zip(labelled, boxes, strict=True)):
        whole[box] = joined.lookup(number)[found]
    return whole, joined


def at_once(volume):
    """Label each plane as a whole, with ids that run on from plane to plane."""
    whole = np.zeros(volume.shape, np.uint32)
    for plane, mask in enumerate(volume):
        found = label(mask, connectivity=1)
        whole[plane] = np.where(found > 0, found + whole.max(), 0)
    return whole


@given(volume=VOLUMES, tile=st.tuples(st.integers(1, 14), st.integers(1, 14)))
@settings(max_examples=150, deadline=None)
def test_any_tiling_gives_the_ids_of_the_whole_image(volume, tile):
    whole, joined = tiled(volume, tile)
    expected = at_once(volume)
    np.testing.assert_array_equal(whole, expected)
    assert joined.count == expected.max()
    np.testing.assert_array_equal(joined.sizes, np.bincount(expected.ravel())[1:])


@given(volume=VOLUMES, tile=st.tuples(st.integers(1, 14), st.integers(1, 14)))
@settings(max_examples=50, deadline=None)
def test_small_objects_go_by_their_whole_size_and_leave_no_gap_in_the_ids(volume, tile):
    whole, joined = tiled(volume, tile, min_size=3)
    expected = at_once(volume)
    sizes = np.bincount(expected.ravel())
    kept = np.flatnonzero((sizes >= 3) & (np.arange(len(sizes)) > 0))
    ids = np.zeros(len(sizes), int)
    ids[kept] = np.arange(1, len(kept) + 1)
    np.testing.assert_array_equal(whole, ids[expected])
    np.testing.assert_array_equal(joined.sizes, sizes[kept])


def test_a_spiral_through_many_blocks_is_one_object():
    rows = "111111", "000001", "111101", "100101", "100001", "111111"
    spiral = np.array([list(row) for row in rows]) == "1"
    whole, joined = tiled(spiral[None], (2, 2))
    assert joined.count == 1
    np.testing.assert_array_equal(whole[0], spiral)
    # Without what meets across faces it falls apart.
    blocks = [components(spiral[:, :3]), components(spiral[:, 3:])]
    apart = merge([summarize(*b, y0=0, x0=3 * i, width=6) for i, b in enumerate(blocks)], [])
    assert apart.count > 1


def test_corner_contact_does_not_join_nor_does_it_across_four_blocks():
    assert components(np.eye(3, dtype=bool))[1] == 3
    assert tiled(np.eye(2, dtype=bool)[None], (1, 1))[1].count == 2


def test_touching_lists_each_pair_once_and_no_background():
    face, other = np.array([0, 1, 1, 2, 3, 0]), np.array([5, 4, 4, 0, 4, 0])
    assert touching(face, other).tolist() == [[1, 4], [3, 4]]


def test_an_image_without_objects():
    whole, joined = tiled(np.zeros((2, 3, 4), bool), (2, 2))
    assert joined.count == 0
    assert not whole.any()
    assert merge([], []).count == 0


def test_ids_are_32_bits_wide_until_they_do_not_fit():
    assert id_dtype(2**32 - 1) == np.uint32
    assert id_dtype(2**32) == np.uint64


def test_a_grid_of_another_number_of_blocks_is_refused():
    summary = summarize(*components(np.ones((2, 2), bool)), y0=0, x0=0, width=2)
    with pytest.raises(ValueError, match="grid must hold 1 blocks"):
        merge_across_blocks([summary], grid=(1, 2, 1))


def test_what_a_block_tells_is_as_large_as_its_faces_and_objects():
    mask = np.zeros((300, 200), bool)
    mask[::3, ::4] = True
    labels, count = components(mask)
    where = labels > 0
    parts = vars(summarize(labels, count, y0=0, x0=0, width=200, where=where)).values()
    faces = 2 * (300 + 200) * labels.itemsize
    assert sum(part.nbytes for part in parts if part is not None) == faces + count * (8 + 8 + 8)
    # A view of a face would hold on to all pixels of its block.
    assert not any(np.shares_memory(part, labels) for part in parts)
    assert np.shares_memory(labels[0], labels)


@pytest.mark.parametrize("distance", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", ["u1", "u4", "u8", "i4", ">i8"])
def test_objects_grow_to_the_nearest_of_the_lowest_id(distance, dtype):
    rng = np.random.default_rng(distance)
    labels = (rng.integers(1, 90, (40, 33)) * (rng.random((40, 33)) < 0.03)).astype(dtype)
    within = rng.random(labels.shape) < 0.8
    expected = labels.copy()
    places = np.argwhere(labels)
    for y, x in np.argwhere((labels == 0) & within):
        squared = ((places - (y, x)) ** 2).sum(axis=1)
        if squared.min() <= distance**2:
            nearest = places[squared == squared.min()]
            expected[y, x] = labels[tuple(nearest.T)].min()
    grown = grow(labels, distance=distance, within=within)
    np.testing.assert_array_equal(grown, expected)
    assert grown.dtype == labels.dtype
    signed = -labels.astype("i8")
    np.testing.assert_array_equal(
        grow(signed, distance=distance) != 0, grow(labels, distance=distance) != 0
    )
