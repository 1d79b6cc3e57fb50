from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unetkit.commands.demo.comparison import (
    MethodScores,
    Segmented,
    draw_all,
    draw_held_out,
    draw_seams,
)

if TYPE_CHECKING:
    from pathlib import Path


def known() -> Segmented:
    labels = np.zeros((60, 80), dtype=np.uint32)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    return Segmented(
        image=(labels * 50).astype(np.uint8),
        truth=labels,
        predicted=(labels > 0).astype(np.uint32),
        weights=np.ones((60, 60), dtype=np.float32),
        border=60,
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_everything_is_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    draw_all(str(path), known())
    height, width, _ = pixels(path).shape
    assert height > 240
    assert width > 3 * 320 + 240


def test_the_scored_part_is_enlarged_for_every_method(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    labels = known().truth[:, 20:]
    scores = MethodScores("unetkit", None, None, 1, 0, 2)
    image = known().image[:, 20:]
    draw_held_out(str(one), image, truth=labels, methods={"unetkit": (labels, scores)})
    methods = {"unetkit": (labels, scores), "otsu": (np.zeros_like(labels), scores)}
    draw_held_out(str(two), image, truth=labels, methods=methods)
    assert pixels(two).shape[1] - pixels(one).shape[1] > 2 * 60


def test_the_borders_of_tiles_are_drawn(tmp_path: Path) -> None:
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    draw_seams(str(few), known(), tile=80)
    draw_seams(str(many), known(), tile=20)
    assert pixels(few).shape == pixels(many).shape
    assert (pixels(few) != pixels(many)).any()
