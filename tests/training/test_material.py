from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from types import SimpleNamespace


def test_a_material_knows_where_its_classes_are_annotated(kit: SimpleNamespace) -> None:
    image = np.zeros((1, 30, 40), np.float32)
    image[:, 10:12, 5:8] = 1
    weights = np.ones((30, 40), np.float32)
    assert kit.sample(image, weights=weights).class_counts.counts.sum(axis=0)[:2].tolist() == [
        1194,
        6,
    ]
    assert not kit.sample(image, weights=weights).class_counts.is_partial
    weights[:, :20] = 0
    partial = kit.sample(image, weights=weights)
    assert partial.class_counts.counts.sum(axis=0)[:2].tolist() == [600, 0]
    assert partial.class_counts.is_partial
