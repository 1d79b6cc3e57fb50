"""Every pixel goes to the polygon that holds its centre, whatever the blocks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import draw

from unetkit.arrays.outlines import edges
from unetkit.arrays.outlines import polygons as outline
from unetkit.arrays.polygons import Painter, joined, self_crossings


def painted(shapes, size, *, on_centres=False, values=None, side=None, order=None):
    """Paint parts of rings a shape, in blocks of a side, and return the painter too."""
    values = np.arange(1, len(shapes) + 1) if values is None else np.array(values)
    painter = Painter(joined(shapes, [on_centres] * len(shapes)), values, order)
    whole = np.zeros(size, values.dtype)
    side = side or max(size)
    for y, x in itertools.product(range(0, size[0], side), range(0, size[1], side)):
        box = (y, min(y + side, size[0]), x, min(x + side, size[1]))
        block = painter.paint(*box)
        if block is not None:
            whole[box[0] : box[1], box[2] : box[3]] = block
    return whole, painter


def ring(*points):
    return np.array(points, float)


def box(x0, y0, x1, y1):
    return ring((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def by_whole_numbers(rings, size):
    """Count the edges left of each centre in quarter pixels; right and lower edges are in."""
    inside = np.zeros(size, bool)
    cy, cx = np.mgrid[: size[0], : size[1]] * 4 + 2
    for points in rings:
        quarters = (points * 4).astype(int)
        for (ax, ay), (bx, by) in zip(quarters, np.roll(quarters, -1, axis=0), strict=True):
            if ay > by:
                ax, ay, bx, by = bx, by, ax, ay
            inside ^= (ay < cy) & (cy <= by) & ((cy - ay) * (bx - ax) < (cx - ax) * (by - ay))
    return inside


# Quarters of pixels, so that centres often lie on edges and corners.
places = st.tuples(*[st.integers(-8, 56).map(lambda n: n / 4)] * 2)
rings = st.lists(places, min_size=3, max_size=9).map(np.array)


@settings(max_examples=60)
@given(st.lists(rings, min_size=1, max_size=3), st.integers(3, 14))
def test_pixels_are_those_of_exact_arithmetic(points, side):
    found, painter = painted([[points]], (12, 13), side=side)
    expected = by_whole_numbers(points, (12, 13))
    np.testing.assert_array_equal(found, expected)
    assert painter.drawn.tolist() == painter.kept.tolist() == [expected.sum()]


@given(st.lists(places, min_size=3, max_size=3, unique=True), places)
def test_no_pixel_goes_to_both_sides_of_a_shared_edge_or_to_none(corners, inner):
    """Three triangles around a point make up, each pixel once, the triangle around them."""
    pieces = [[[np.array([*pair, inner])]] for pair in itertools.combinations(corners, 2)]
    counts = sum(painted([piece], (12, 13))[0] for piece in pieces)
    whole, _ = painted([[[np.array(corners)]]], (12, 13))
    # Where the point lies outside a pixel may be covered twice more.
    np.testing.assert_array_equal(counts % 2, whole)


@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_a_grid_of_cells_covers_every_pixel_once(seed, count):
    """Neighbours share crooked edges, listed in either direction."""
    rng = np.random.default_rng(seed)
    ys, xs = np.meshgrid(np.linspace(0, 20, 5), np.linspace(0, 24, 5), indexing="ij")
    moved = np.stack([xs, ys], -1)
    moved[1:-1, 1:-1] += rng.integers(-4, 5, (3, 3, 2)) / 2
    cells = [
        [[np.array([moved[j, i], moved[j, i + 1], moved[j + 1, i + 1], moved[j + 1, i]])]]
        for j, i in np.ndindex(4, 4)
    ]
    found, painter = painted(cells, (20, 24), side=count)
    assert found.min() > 0
    assert painter.overlapping[0] == 0


@pytest.mark.parametrize("name", ["corners", "centres"])
def test_pixels_are_those_of_scikit_image(name):
    """Where no centre lies on an edge, both agree."""
    angles = np.sort(np.random.default_rng(7).uniform(0, 2 * np.pi, 40))
    points = np.column_stack([30.3 + 25 * np.cos(angles), 27.1 + 20 * np.sin(angles)])
    found, _ = painted([[[points]]], (60, 70), on_centres=name == "centres")
    at = points - (0.5 if name == "corners" else 0)
    np.testing.assert_array_equal(found, draw.polygon2mask((60, 70), at[:, ::-1]))
    rim = np.rint(points)
    found, _ = painted([[[rim]]], (60, 70), on_centres=True)
    np.testing.assert_array_equal(found, draw.polygon2mask((60, 70), rim[:, ::-1]))


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 12)), min_size=1, max_size=7))
def test_on_centres_the_outline_is_in(points):
    found, _ = painted([[[np.array(points, float)]]], (12, 14), on_centres=True, side=5)
    rim = np.zeros((12, 14), bool)
    y, x = np.mgrid[:12, :14]
    for (ax, ay), (bx, by) in itertools.pairwise([*points, points[0]]):
        on = (bx - ax) * (y - ay) == (by - ay) * (x - ax)
        on &= (min(ax, bx) <= x) & (x <= max(ax, bx)) & (min(ay, by) <= y) & (y <= max(ay, by))
        rim |= on
    expected = by_whole_numbers([np.array(points) + 0.5], (12, 14)) | rim
    np.testing.assert_array_equal(found > 0, expected)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99), st.integers(4, 30))
def test_outlines_of_a_mask_are_that_mask(height, width, seed, side):
    labels = np.random.default_rng(seed).integers(0, 4, (height, width))
    rimmed = np.pad(labels, 1)
    made = list(outline(*edges(rimmed, y0=0, x0=0, width=width), height=height, width=width))
    ids = [number for number, _ in made]
    found, painter = painted([parts for _, parts in made], (height, width), values=ids, side=side)
    np.testing.assert_array_equal(found, labels)
    assert painter.overlapping[0] == 0


@pytest.mark.parametrize(
    ("values", "order", "expected", "overlapping"),
    [
        ((5, 6), None, [5, 6, 6, 6], [2, 0, 1]),
        ((5, 6), [1, 0], [5, 5, 5, 6], [2, 1, 0]),
        ((5, 5), None, [5, 5, 5, 5], [0, -1, -1]),
    ],
)
def test_the_last_shape_stays_and_what_lies_below_is_counted(values, order, expected, overlapping):
    shapes = [[[box(0, 0, 3, 1)]], [[box(1, 0, 4, 1)]]]
    order = order and np.array(order)
    found, painter = painted(shapes, (1, 4), values=values, order=order, side=2)
    assert found.tolist() == [expected]
    assert painter.drawn.tolist() == [3, 3]
    assert painter.kept.sum() == 4
    assert painter.overlapping.tolist() == overlapping


def test_parts_are_added_and_rings_of_a_part_are_not():
    two, hole = box(0, 0, 4, 4), box(1, 1, 3, 3)
    assert painted([[[two, hole]]], (4, 4))[0].sum() == 12
    assert painted([[[two], [hole]]], (4, 4))[0].sum() == 16
    assert painted([[[two], [hole]]], (4, 4))[1].drawn.tolist() == [16]


def test_a_block_without_shapes_is_none():
    painter = Painter(joined([[[box(0, 0, 4, 4)]]], [False]), np.array([1]))
    assert painter.paint(4, 8, 0, 8) is None
    assert Painter(joined([], []), np.array([], int)).paint(0, 4, 0, 4) is None


@settings(max_examples=25)
@given(rings)
def test_rings_that_cross_themselves_are_found(points):
    found = self_crossings(joined([[[box(0, 0, 2, 2)]], [[points]]], [False, False]))

    def side(p, q, r):
        return np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    sides = list(zip(points, np.roll(points, -1, axis=0), strict=True))
    crossing = any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for (a, b), (c, d) in itertools.combinations(sides, 2)
    )
    assert found[:, 0].tolist() == [1] * crossing


def test_a_bow_is_found_where_it_crosses():
    bow = ring((0, 0), (10, 10), (10, 0), (0, 10))
    assert self_crossings(joined([[[bow]]], [False])).tolist() == [[0, 5, 5]]
