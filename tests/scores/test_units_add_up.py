"""Formulas by hand; sums by unit give the scores of the whole, for images and blocks of one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetkit.scores import contingency, isbi2012, sums
from unetkit.scores.isbi2012 import Topology
from unetkit.scores.sums import Sums
from unetkit.scores.table import (
    class_sums,
    instance_sums,
    score_classes,
    score_instances,
    score_sums,
    value_of,
)
from unetkit.scores.units import SpatialBlocks, spatial_blocks

LABELS = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))
QUARTERS = SpatialBlocks(4, 8, 8)
# A split of two pixels that begins in the first block and ends in the second, and two mergers.
TOPOLOGY = Topology(
    y=np.array([0, 0, 0, 7]),
    x=np.array([3, 4, 6, 7]),
    split=np.array([True, True, False, False]),
    first=np.array([True, False, True, True]),
)


def agree(found, overall):
    for name, part in found.items():
        wanted = value_of(name, overall)
        wanted = None if wanted is None else pytest.approx(wanted, abs=1e-9)
        assert part.overall() == wanted, name


@given(sides=st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_images_add_up_to_the_scores_of_all(sides):
    tables = contingency.apart(contingency.from_labels(*pair) for pair in sides)
    pooled = contingency.pool(contingency.from_labels(*pair) for pair in sides)
    agree(instance_sums(tables), score_instances(pooled).to_dict())
    agree(class_sums(tables), score_classes(pooled).to_dict())


@given(truth=LABELS, found=LABELS)
@settings(max_examples=40, deadline=None)
def test_blocks_add_up_to_the_scores_of_the_image(truth, found):
    table = QUARTERS.tables(truth, found)
    agree(instance_sums(table.parts(4)), score_instances(table.joined(4)).to_dict())


@given(sides=st.lists(st.tuples(LABELS, LABELS), min_size=2, max_size=3))
@settings(max_examples=25, deadline=None)
def test_blocks_of_planes_add_up_to_the_scores_of_the_planes(sides):
    table = contingency.pool(QUARTERS.tables(*pair) for pair in sides)
    planes = contingency.pool(contingency.from_labels(*pair) for pair in sides)
    agree(instance_sums(table.parts(4)), score_instances(planes).to_dict())


def test_an_object_counts_whole_where_most_of_it_is():
    truth = np.zeros((8, 8), np.uint8)
    truth[1, 1:7] = 5  # three pixels on either side: the first block
    truth[5, 2:8] = 6  # two on the left, four on the right
    units = QUARTERS.tables(truth, truth).parts(4)
    assert sums.unit_of_segment(units, "true").tolist()[1:] == [0, 3]
    pixels = instance_sums(units)["voi"].by_unit[:, 0]
    assert pixels.tolist() == [13 + 6, 13, 14, 12 + 6]


def test_background_of_one_image_is_one_segment():
    # Nothing but background: were it parted by blocks, pairs between blocks would differ.
    empty = np.zeros((8, 8), np.uint8)
    units = QUARTERS.tables(empty, empty).parts(4)
    for tables in (units, contingency.apart(units)):
        found = instance_sums(tables)
        assert (found["rand"].overall(), found["voi"].overall()) == (1, 0)


def test_errors_count_where_they_lie():
    truth = np.repeat([[1, 1, 2, 2]], 4, axis=0)
    found = np.repeat([[7, 7, 0, 0]], 4, axis=0)
    units = SpatialBlocks(2, 4, 4).tables(truth, found).parts(4)
    assert instance_sums(units)["misses"].by_unit[:, 0].tolist() == [0, 1, 0, 0]
    assert (TOPOLOGY.splits, TOPOLOGY.mergers) == (1, 2)
    pixels, lines = TOPOLOGY.by_block(QUARTERS)
    assert (pixels.tolist(), lines.tolist()) == ([1, 2, 0, 1], [1, 1, 0, 1])
    assert [part.tolist() for part in TOPOLOGY.by_block(None)] == [[4], [3]]


@given(sides=st.tuples(LABELS, LABELS, LABELS, LABELS))
@settings(max_examples=40, deadline=None)
def test_borders_of_blocks_add_up_to_those_of_the_plane(scored, sides):
    tables = [QUARTERS.tables(*sides[:2]), QUARTERS.tables(*sides[2:])]
    by_block = isbi2012.plane_sums(*(t.parts(4) for t in tables), TOPOLOGY.by_block(QUARTERS))
    found = score_sums({n: (np.arange(one.shape[1]), one) for n, one in by_block.items()})
    expected = scored.thin(*(table.joined(4) for table in tables))
    if expected["warping_error"] is not None:
        expected |= {"warping_error": 4 / 64, "warping_lines": 3}
    agree(found, expected)


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ((100, 100), None),
        ((512, 512), 128),
        ((4096, 4096), 1024),
        ((400, 520), 128),
        ((50_000, 50_000), 2048),
    ],
)
def test_blocks_are_large_where_the_image_is(size, side):
    found = spatial_blocks(*size)
    assert (None if found is None else found.side) == side


def test_pixels_and_tables_agree_on_the_number():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, size=(2, 70, 90)).astype(np.uint8)
    ignore = rng.integers(0, 2, size=(70, 90))
    blocks = SpatialBlocks(32, 70, 90)
    assert (blocks.across, blocks.count) == (3, 9)
    parts = [
        blocks.tables(truth[a], found[a], origin=(a.start, 0), ignore=ignore[a])
        for a in (slice(0, 40), slice(40, 70))
    ]
    table = contingency.merge(parts)
    y, x = np.nonzero(ignore == 0)
    by_pixel = np.bincount(blocks.at(y, x), minlength=9)
    assert np.bincount(table.image, table.counts, minlength=9).tolist() == by_pixel.tolist()


def ratio(*columns):
    return Sums(*sums.columns(*map(np.array, columns)), sums.mean_ratio)


def test_a_ratio_is_one_of_sums():
    made = ratio([1, 3], [2, 8], [0, 0], [0, 0])
    assert made.overall() == 0.4
    assert made.of(np.array([[1.0, 2.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]])).tolist()[0] == 0.375
    assert np.isnan(made.of(np.zeros(4)))
    assert ratio([-1], [2]).overall() == 0


def test_a_count_is_a_sum():
    assert Sums(*sums.columns(np.array([2, 0, 5])), sums.count).overall() == 7


def test_a_score_that_applies_nowhere_is_none():
    assert ratio([0, 0, 0], [0, 0, 0]).overall() is None


@pytest.mark.parametrize(("highest", "wanted"), [(True, [0.75, 0.5]), (False, [0.25, 0.5])])
def test_the_best_is_chosen_anew(highest, wanted):
    made = sums.best_of([ratio([1, 0], [4, 0]), ratio([3, 2], [4, 4])], highest=highest)
    assert made.of(made.by_unit).tolist() == wanted


def test_columns_are_put_in_line():
    def first_less_rest(keys, values):
        return np.where(keys == 3, values, -values).sum(axis=-1)

    first = Sums(np.array([1, 3]), np.array([[1.0, 10.0]]), first_less_rest)
    second = Sums(np.array([2, 3]), np.array([[2.0, 20.0]]), first_less_rest)
    a, b = sums.aligned(first, second)
    assert a.keys.tolist() == b.keys.tolist() == [1, 2, 3]
    assert a.by_unit.tolist() == [[1, 0, 10]]
    assert b.by_unit.tolist() == [[0, 2, 20]]
    assert (a.overall(), b.overall()) == (first.overall(), second.overall()) == (9, 18)
