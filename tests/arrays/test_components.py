"""What touches is one object, numbered and measured as by scikit-image and NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label

from unetkit.arrays.components import components, sizes_and_first_pixels

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14))


@given(mask=MASKS, turned=st.booleans())
def test_components_are_those_of_scikit_image_in_raster_order(mask, turned):
    mask = mask.T if turned else mask
    labels, count = components(mask)
    wanted, highest = label(mask, connectivity=1, return_num=True)
    np.testing.assert_array_equal(labels, wanted)
    assert (count, labels.dtype) == (highest, np.uint32)


def test_what_a_spiral_unites_at_its_end_is_one():
    spiral = np.ones((9, 9), bool)
    spiral[1, :8] = spiral[1:8, 7] = spiral[7, 1:8] = spiral[3:8, 1] = spiral[3, 1:6] = False
    assert components(spiral)[1] == 1
    spiral[0, 4] = False
    assert components(spiral)[1] == 2


@given(labels=arrays(np.uint32, (6, 7), elements=st.integers(0, 5)), turned=st.booleans())
def test_sizes_and_first_pixels_are_those_of_numpy(labels, turned):
    labels = labels.T if turned else labels
    sizes, first = sizes_and_first_pixels(labels, 5)
    np.testing.assert_array_equal(sizes, np.bincount(labels.ravel(), minlength=6)[1:])
    for number in range(1, 6):
        places = np.flatnonzero(labels.ravel() == number)
        assert first[number - 1] == (places[0] if len(places) else 0)
