"""Grid lines: what stands at a crossing stands there in the deformed image too."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.arrays.deformation import Deformation, deform, draw_deformation, grid_lines, identity


def test_without_movement_the_lines_stay():
    lines = grid_lines(identity(), (21, 41), lines=5)
    assert lines[0, :, 2] == pytest.approx([0, 5, 10, 15, 20])
    assert lines[1, 2] == pytest.approx([0, 10, 20, 30, 40])


@pytest.mark.parametrize("seed", range(6))
def test_a_crossing_shows_in_the_result_what_it_showed_in_the_input(seed):
    shape = (160, 240)
    moved = draw_deformation(np.random.default_rng(seed), rotation=30, scale=1.2)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    # An image of its own coordinates tells where each pixel came from.
    out = deform(np.stack([y, x]), moved).image
    lines = grid_lines(moved, shape, lines=9)
    crossings = np.stack(np.meshgrid(np.linspace(0, 159, 9), np.linspace(0, 239, 9), indexing="ij"))
    seen = 0
    for at, wanted in zip(lines.reshape(2, -1).T, crossings.reshape(2, -1).T, strict=True):
        row, column = np.rint(at).astype(int)
        if 2 <= row < out.shape[1] - 2 and 2 <= column < out.shape[2] - 2:
            # Half a pixel of rounding, and what mirroring does right at the border.
            assert np.abs(out[:, row, column] - wanted).max() < 2
            seen += 1
    assert seen > 20


def test_quarter_turns_carry_the_lines_along():
    turned = grid_lines(Deformation(quarter_turns=1), (11, 21), lines=3)
    assert turned[:, 0, 0].tolist() == [20, 0]
    assert turned[:, 2, 2].tolist() == [0, 10]
