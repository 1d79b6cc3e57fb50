from __future__ import annotations

import numpy as np
import pytest

from unetkit.training.sampler import ClassCounts
from unetkit.training.split import Region

BOXES = np.array([(0, 0, 0, 10, 10), (0, 0, 10, 10, 14), (1, 0, 0, 10, 14)])


@pytest.mark.parametrize(("counted", "partial"), [(100, False), (99, True)])
def test_what_nobody_annotated_makes_it_partial(counted: int, *, partial: bool) -> None:
    class_counts = ClassCounts(BOXES, np.array([(90, 10), (40, 0), (40, counted)]))
    assert class_counts.is_partial == partial


def test_boxes_are_cut_to_a_region_and_those_outside_left_out() -> None:
    class_counts = ClassCounts(BOXES, np.array([(90, 10), (40, 0), (40, 100)]))
    cut = class_counts.within(Region("a", 3, 2, 8, 10))
    assert cut.boxes.tolist() == [[0, 3, 2, 8, 10], [1, 3, 2, 8, 10]]
    assert cut.counts.tolist() == [[90, 10], [40, 100]]
    assert class_counts.boxes.tolist() == BOXES.tolist()
