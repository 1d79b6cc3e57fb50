"""Order statistics from counts, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unetkit.arrays.normalization import count

floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 6), st.just(3)), elements=floats)
)
def test_every_rank_of_floats_is_exact(image):
    ranks = list(range(image[0].size))
    found = count(lambda: [image]).resolve(lambda: [image], [ranks, ranks])
    assert found == np.sort(image.reshape(2, -1), axis=1).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_rank_of_integers_is_exact(dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (1, 9, 9)).astype(dtype)
    blocks = [image[:, :4], image[:, 4:]]
    counts = count(lambda: blocks)
    assert counts.totals == [81]
    assert counts.resolve(lambda: blocks, [list(range(81))]) == [np.sort(image.ravel()).tolist()]


def test_no_block_has_no_channel():
    assert count(lambda: []).resolve(lambda: [], []) == []
