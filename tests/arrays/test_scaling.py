"""Arrays at another pixel size: parts have the bits of the whole, and means are means."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays.scaling import scale, scaled_length, taps, vote

RATIOS = [
    Fraction(*each) for each in ((1, 2), (13, 20), (1, 5), (999, 1000), (1, 1), (7, 5), (3, 1))
]


def whole(array, ratios, kernel, *, by=scale):
    lengths = array.shape[-2:]
    found = [
        taps(0, scaled_length(length, ratio), length=length, ratio=ratio, kernel=kernel)
        for length, ratio in zip(lengths, ratios, strict=True)
    ]
    return by(array, *found)


@settings(max_examples=50)
@given(
    ratios=st.tuples(st.sampled_from(RATIOS), st.sampled_from(RATIOS)),
    shape=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    kind=st.sampled_from([("cubic", "u2"), ("linear", "f4"), ("vote", "u1"), ("nearest", "u4")]),
    draw=st.data(),
)
def test_a_part_has_the_bits_of_the_whole(ratios, shape, kind, draw):
    kernel, dtype = kind
    by = vote if kernel in ("vote", "nearest") else scale
    array = (np.random.default_rng(1).random(shape) * 5).astype(dtype)
    expected = whole(array, ratios, kernel, by=by)
    parts, boxes = [], []
    for length, ratio in zip(shape, ratios, strict=True):
        start = draw.draw(st.integers(0, scaled_length(length, ratio) - 1))
        stop = draw.draw(st.integers(start + 1, scaled_length(length, ratio)))
        parts.append(taps(start, stop, length=length, ratio=ratio, kernel=kernel))
        boxes.append(slice(start, stop))
    (y0, y1), (x0, x1) = (part.reach for part in parts)
    found = by(array[y0:y1, x0:x1], parts[0].moved(y0), parts[1].moved(x0))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected[tuple(boxes)])


@settings(max_examples=40)
@given(p=st.integers(1, 6), q=st.integers(1, 9), length=st.integers(1, 20))
def test_made_smaller_it_is_the_mean_of_what_it_covers(p, q, length):
    ratio = Fraction(min(p, q), max(p, q))
    line = np.random.default_rng(length).random(length)
    # Each pixel is cut into as many as the numerator, of which whole ones are covered.
    fine = line.repeat(ratio.numerator)
    q = ratio.denominator
    expected = [fine[k : k + q].mean() for k in range(0, len(fine), q)]
    found = whole(np.tile(line, (4, 1)), (Fraction(1), ratio), "cubic")
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), rtol=1e-12)


@pytest.mark.parametrize("kernel", ["cubic", "linear"])
def test_made_larger_a_slope_stays_a_slope_and_ends_are_repeated(kernel):
    slope = np.arange(9.0)[np.newaxis]
    found = whole(slope, (Fraction(1), Fraction(5, 2)), kernel)[0]
    # The centre of a pixel lies half a pixel from its corner, at either size.
    inside = (np.arange(len(found)) + 0.5) / 2.5 - 0.5
    np.testing.assert_allclose(found[4:-4], inside[4:-4], atol=1e-6)
    assert 0 <= found[0] < 0.1 or kernel == "cubic"


@settings(max_examples=20)
@given(ratio=st.sampled_from(RATIOS), seed=st.integers(0, 9))
def test_a_label_has_the_largest_share(ratio, seed):
    labels = np.random.default_rng(seed).integers(0, 3, (7, 8))
    rows, columns = (
        taps(0, scaled_length(n, ratio), length=n, ratio=ratio, kernel="vote") for n in (7, 8)
    )
    found = vote(labels, rows, columns)
    for y, x in np.ndindex(found.shape):
        shares: Counter[int] = Counter()
        for row, weight in zip(rows.index[y], rows.weights[y], strict=True):
            for column, other in zip(columns.index[x], columns.weights[x], strict=True):
                shares[labels[row, column]] += int(weight) * int(other)
        assert shares[found[y, x]] == max(shares.values())
    if ratio == 1:
        np.testing.assert_array_equal(found, labels)


def test_a_rim_is_smooth_and_an_object_keeps_its_place():
    y, x = np.mgrid[:40, :40] - 19.5
    disk = (y**2 + x**2 < 12**2).astype(np.uint8)
    fine = whole(disk, (Fraction(4), Fraction(4)), "vote", by=vote)
    y, x = (np.mgrid[:160, :160] - 79.5) / 4
    off = np.abs(np.hypot(y, x) - 12)[fine != (y**2 + x**2 < 12**2)]
    blocks = np.abs(np.hypot(y, x) - 12)[disk.repeat(4, 0).repeat(4, 1) != (y**2 + x**2 < 12**2)]
    # In pixels of the coarse one.
    assert off.max() < 0.6
    assert len(off) < 0.8 * len(blocks)
    assert fine.sum() == pytest.approx(16 * disk.sum(), rel=0.01)
