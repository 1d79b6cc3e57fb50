from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import SimpleNamespace


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (9, [1, 1, 1, 1, 1])])
def test_a_batch_is_cut_into_parts_of_tiles(
    kit: SimpleNamespace, count: int, sizes: list[int]
) -> None:
    whole = kit.batch(names=tuple("abcde"))
    parts = list(whole.parts(count))
    assert [len(part.images) for part in parts] == sizes
    for name in ("images", "targets", "weights"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))
    assert "".join(name for part in parts for name in part.samples) == "abcde"
