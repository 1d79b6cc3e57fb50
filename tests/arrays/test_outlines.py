"""Outlines are exact: filled again they are the objects, whatever the blocks they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from unetkit.arrays.outlines import edges, polygons

SMALL = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
)


def found(labels, *, side=10_000):
    """Outline labels from blocks of a side, in an order that is not theirs."""
    height, width = labels.shape
    rimmed = np.pad(labels, 1)
    parts = [
        edges(rimmed[y : y + side + 2, x : x + side + 2], y0=y, x0=x, width=width)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ][::-1]
    ids, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return dict(polygons(ids, codes, height=height, width=width))


def filled(rings, shape):
    """Fill a polygon: a pixel is inside if left of its centre an odd number of edges is crossed."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0] += 1
    return crossings.cumsum(axis=1)[:, :-1] % 2 == 1


@given(SMALL)
def test_each_polygon_filled_again_is_one_connected_part(labels):
    outlined = found(labels)
    assert list(outlined) == [number for number in np.unique(labels) if number]
    for number, parts in outlined.items():
        components, count = ndimage.label(labels == number)
        assert len(parts) == count
        whole = np.zeros(labels.shape, int)
        for rings in parts:
            inside = filled(rings, labels.shape)
            (component,) = np.unique(components[inside])
            np.testing.assert_array_equal(inside, components == component)
            whole += inside
        np.testing.assert_array_equal(whole, labels == number)


@given(SMALL)
def test_rings_turn_at_each_corner_and_pass_none_twice(labels):
    for parts in found(labels).values():
        for rings in parts:
            for place, ring in enumerate(rings):
                assert len(np.unique(ring, axis=0)) == len(ring)
                steps = np.roll(ring, -1, axis=0) - ring
                assert (np.count_nonzero(steps, axis=1) == 1).all()
                assert (steps[:, 0] * np.roll(steps[:, 0], 1) == 0).all()
                x, y = ring.T
                area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()
                assert area > 0 if place == 0 else area < 0


@given(SMALL, st.integers(1, 4))
def test_blocks_of_any_side_give_the_same_polygons(labels, side):
    whole, joined = found(labels), found(labels, side=side)
    assert list(whole) == list(joined)
    for number, parts in whole.items():
        for one, other in zip(parts, joined[number], strict=True):
            for first, second in zip(one, other, strict=True):
                np.testing.assert_array_equal(first, second)


def test_holes_that_touch_are_two():
    labels = np.ones((4, 4), np.uint8)
    labels[1, 1] = labels[2, 2] = 0
    ((rings,),) = found(labels).values()
    assert [ring.tolist() for ring in rings] == [
        [[0, 0], [4, 0], [4, 4], [0, 4]],
        [[1, 1], [1, 2], [2, 2], [2, 1]],
        [[2, 2], [2, 3], [3, 3], [3, 2]],
    ]


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    labels = np.ones((7, 7), np.uint8)
    labels[1:6, 1:6] = 0
    labels[3, 3] = 1
    (parts,) = found(labels).values()
    assert [len(rings) for rings in parts] == [2, 1]
    assert found(np.zeros((3, 3), np.uint8)) == {}


@pytest.mark.parametrize("corner", [0, 2**30 - 3])
def test_images_may_be_huge(corner):
    width = height = 2**30
    rimmed = np.pad(np.array([[5, 7]]), 1)
    outlined = dict(
        polygons(*edges(rimmed, y0=corner, x0=corner, width=width), height=height, width=width)
    )
    for number, x in ((5, corner), (7, corner + 1)):
        ((ring,),) = outlined[number]
        square = [[x, corner], [x + 1, corner], [x + 1, corner + 1], [x, corner + 1]]
        assert ring.tolist() == square
