from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from unetkit.commands.demo.comparison import SMALLEST, held_out, otsu_objects, score
from unetkit.commands.import_images.command import import_images
from unetkit.views.pictures import png_bytes

if TYPE_CHECKING:
    from pathlib import Path


def two_squares() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((30, 40), dtype=np.uint16)
    labels[4:14, 4:14] = 3
    labels[16:26, 20:32] = 7
    image = np.where(labels > 0, 200, 10).astype(np.uint8)
    return image, labels


def test_otsu_finds_bright_objects() -> None:
    image, labels = two_squares()
    found = otsu_objects(image)
    assert found.max() == 2
    assert ((found > 0) == (labels > 0)).mean() > 0.95


@given(
    hnp.arrays(np.uint16, (12, 14), elements=st.integers(0, 4)),
    st.integers(0, 13),
)
def test_a_cut_keeps_objects_and_drops_specks(labels: np.ndarray, border: int) -> None:
    cut = held_out(labels, border=border)
    part = labels[:, border:]
    assert cut.shape == part.shape
    for old in range(1, 5):
        new = np.unique(cut[part == old])
        size = int((part == old).sum())
        if size:
            assert len(new) == 1
            assert (new[0] > 0) == (size >= SMALLEST)
    assert not cut[part == 0].any()
    kept = np.unique(cut[cut > 0])
    np.testing.assert_array_equal(kept, np.arange(1, len(kept) + 1))


def test_a_method_is_scored_as_eval_scores_it(tmp_path: Path) -> None:
    image, labels = two_squares()
    (tmp_path / "image.png").write_bytes(png_bytes(image))
    (tmp_path / "labels.png").write_bytes(png_bytes(labels))
    truth = str(tmp_path / "truth.zarr")
    import_images(str(tmp_path / "image.png"), truth, labels=str(tmp_path / "labels.png"))

    def scored(name: str, found: np.ndarray) -> tuple[float | None, int, int, int]:
        store = str(tmp_path / f"{name}.zarr")
        row = score(store, truth, method=name, image=image, labels=found)
        assert row.method == name
        return row.average_precision_50, row.objects, row.matched, row.objects_true

    assert scored("same", label(labels > 0)) == (1.0, 2, 2, 2)
    assert scored("merged", (labels > 0).astype(int)) == (pytest.approx(1 / 2), 1, 1, 2)
    assert scored("none", np.zeros_like(labels)) == (0.0, 0, 0, 2)
