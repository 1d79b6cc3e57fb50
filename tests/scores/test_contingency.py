"""The table against scikit-image's, and its sums over blocks and images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import contingency_table

from unetkit.errors import LabelError
from unetkit.scores.contingency import ContingencySums, apart, from_labels, merge, pool, stack

LABELS = arrays(np.uint32, (7, 9), elements=st.integers(0, 5))


def rows(table):
    columns = (table.image, table.true, table.pred, table.counts)
    return list(zip(*(c.tolist() for c in columns), strict=True))


@given(truth=LABELS, prediction=LABELS)
@settings(max_examples=50, deadline=None)
def test_counts_are_scikit_images(truth, prediction):
    table = from_labels(truth, prediction)
    expected = contingency_table(truth, prediction, sparse_type="array").tocoo()
    triples = zip(*(a.tolist() for a in (expected.row, expected.col, expected.data)), strict=True)
    assert rows(table) == [(0, *t) for t in sorted(triples)]
    true, pred = table.segments("true"), table.segments("pred")
    np.testing.assert_array_equal(true.ids, np.unique(truth))
    np.testing.assert_array_equal(true.sizes, np.unique(truth, return_counts=True)[1])
    np.testing.assert_array_equal(pred.sizes, np.unique(prediction, return_counts=True)[1])
    np.testing.assert_array_equal(true.ids[true.row], table.true)


@given(
    truth=LABELS,
    prediction=LABELS,
    ignore=arrays(np.uint8, (7, 9), elements=st.integers(0, 1)),
    tile=st.integers(1, 9),
)
@settings(max_examples=50, deadline=None)
def test_blocks_add_up_to_the_whole(truth, prediction, ignore, tile):
    whole = from_labels(truth, prediction, ignore=ignore)
    boxes = [
        np.s_[y : y + tile, x : x + tile] for y in range(0, 7, tile) for x in range(0, 9, tile)
    ]
    blocks = [from_labels(truth[b], prediction[b], ignore=ignore[b]) for b in boxes]
    sums = ContingencySums()
    for block in reversed(blocks):
        sums.add(block)
    assert rows(merge(blocks)) == rows(sums.total()) == rows(whole)
    assert whole.pixels == (ignore == 0).sum()


def test_ignored_pixels_are_what_makes_the_difference():
    truth, prediction = np.array([[1, 2, 2]]), np.array([[1, 1, 3]])
    ignore = np.array([[0, 1, 0]])
    assert rows(from_labels(truth, prediction, ignore=ignore)) == [(0, 1, 1, 1), (0, 2, 3, 1)]
    assert rows(from_labels(truth, prediction)) == [(0, 1, 1, 1), (0, 2, 1, 1), (0, 2, 3, 1)]


def test_pooled_images_stand_side_by_side():
    a = from_labels(np.array([[1, 0]]), np.array([[1, 1]]))
    pooled = pool([a, pool([a, a]), from_labels(np.zeros((0, 2), int), np.zeros((0, 2), int))])
    assert pooled.images == 4
    assert rows(pooled) == [(i, t, 1, 1) for i in range(3) for t in (0, 1)]
    assert pooled.segments("true").objects == 3
    assert pooled.segments("true").ids.tolist() == [0, 1, 0, 1, 0, 1]
    assert pool([]).images == 0


def test_images_kept_apart_come_back_as_parts():
    a = from_labels(np.array([[1, 0]]), np.array([[1, 1]]))
    b = from_labels(*np.ones((2, 1, 3), int))
    assert [(t.image.tolist(), t.images) for t in apart([a, b])] == [([0, 0], 2), ([1], 2)]
    origin, entries = stack(apart([a, b]))
    assert origin.tolist() == entries.image.tolist() == [0, 0, 1]


def test_foreground_is_any_label_but_zero():
    table = from_labels(np.array([[0, 4, 5, 6]]), np.array([[1, 1, 2, 0]]))
    assert rows(table.foreground()) == [(0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 2)]


def test_ids_above_32_and_63_bits_are_kept():
    big = np.array([[2**64 - 1, 2**63, 2**32]], np.uint64)
    assert from_labels(big, big).true.tolist() == [2**32, 2**63, 2**64 - 1]


def test_sums_of_many_blocks_add_up():
    sums = ContingencySums()
    ids = np.arange(40_000)
    for _ in range(4):  # passes the size at which what is pending is added up
        sums.add(from_labels(ids, ids))
    assert len(sums.total()) == 40_000
    assert set(sums.total().counts.tolist()) == {4}


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"one shape, got \(2, 3\) and \(2, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "must be integers, got float64"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "must be 0 or above, got -1"),
    ],
)
def test_what_is_no_label_is_refused(truth, prediction, words):
    with pytest.raises(LabelError, match=words):
        from_labels(truth, prediction)
    from_labels(np.zeros((2, 2), bool), np.zeros((2, 2), np.int64))  # these are labels
