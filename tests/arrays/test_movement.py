"""Movements in numbers: orientation, folds, parts that equal the whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays.deformation import (
    Deformation,
    deform,
    draw_deformation,
    folds,
    reorder,
    result_shape,
    sampler,
    source_positions,
)
from unetkit.arrays.resampling import point_weights

SEEDS = st.integers(0, 10**6)


def arrays(rng, shape):
    image = rng.integers(0, 255, (2, *shape)).astype(np.uint8)
    labels = rng.integers(0, 2**32, shape).astype(np.uint32)
    return [(image, "cubic"), (labels, "nearest"), (rng.random(shape, np.float32), "linear")]


@settings(max_examples=30, deadline=None)
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    tile=st.tuples(st.integers(3, 20), st.integers(3, 20)),
)
def test_parts_made_of_their_sources_are_the_whole_to_the_bit(seed, shape, tile):
    rng = np.random.default_rng(seed)
    drawn = draw_deformation(rng, rotation=180, scale=1.3)
    given_ = arrays(rng, shape)
    warp = sampler(drawn, shape)
    whole = warp(given_)
    for y in range(0, warp.result_shape[0], tile[0]):
        for x in range(0, warp.result_shape[1], tile[1]):
            y1 = min(y + tile[0], warp.result_shape[0])
            x1 = min(x + tile[1], warp.result_shape[1])
            top, bottom, left, right = warp.source((y, y1, x, x1))
            windows = [(array[..., top:bottom, left:right], kind) for array, kind in given_]
            parts = warp(windows, box=(y, y1, x, x1), corner=(top, left))
            for part, all_ in zip(parts, whole, strict=True):
                assert (part == all_[..., y:y1, x:x1]).all()


def test_a_source_is_hardly_larger_than_the_movement_needs():
    drawn = draw_deformation(np.random.default_rng(1), rotation=0, shift=0, flips=False)
    largest = int(np.ceil(np.abs(drawn.grid).max()))
    y0, y1, x0, x1 = sampler(drawn, (1000, 1000)).source((400, 500, 300, 420))
    for first, last, start, stop in ((y0, y1, 400, 500), (x0, x1, 300, 420)):
        assert start - largest - 2 <= first < last <= stop + largest + 4


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_flips_and_turns_after_a_movement_are_those_of_its_result(seed, shape):
    rng = np.random.default_rng(seed)
    drawn = dataclasses.replace(draw_deformation(rng), flip_y=bool(rng.integers(2)))
    plain = dataclasses.replace(drawn, flip_y=False, flip_x=False, quarter_turns=0)
    for array, kind in arrays(rng, shape):
        found = sampler(drawn, shape)([(array, kind)])[0]
        wanted = reorder(sampler(plain, shape)([(array, kind)])[0], drawn)
        assert found.shape[-2:] == result_shape(drawn, shape)
        # A sum in another order may move a position by the last bit before it is rounded.
        assert (found != wanted).mean() < 0.02


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, size=st.integers(20, 40))
def test_flipping_then_moving_by_the_flipped_field_is_moving_then_flipping(seed, size):
    rng = np.random.default_rng(seed)
    image = rng.random((1, size, size + 3))
    drawn = draw_deformation(rng, rotation=0, shift=0, flips=False, sigma=3)
    mirrored = drawn.grid[:, :, ::-1] * np.array([1, -1])[:, None, None]
    first = deform(image[:, :, ::-1], Deformation(grid=mirrored)).image
    then = deform(image, drawn).image[:, :, ::-1]
    np.testing.assert_allclose(first, then, atol=1e-3)


def test_a_movement_and_its_inverse_bring_a_smooth_image_back():
    y, x = np.mgrid[:120, :120].astype(float)
    image = (np.sin(x / 11) + np.cos(y / 13))[None]
    there = deform(image, Deformation(angle=20.0, scale=1.2)).image
    back = deform(there, Deformation(angle=-20.0, scale=1 / 1.2)).image
    np.testing.assert_allclose(back[0, 40:80, 40:80], image[0, 40:80, 40:80], atol=2e-3)
    assert np.abs(there[0, 40:80, 40:80] - image[0, 40:80, 40:80]).max() > 0.1


def inverse_of(drawn, shape):
    """Find by fixed points where each pixel of the input comes to lie, and give it as a field."""
    pixels = np.indices(shape, dtype=np.float64)
    found = pixels.copy()
    for _ in range(40):
        weights = [
            point_weights(np.clip(at.ravel() * 2 / (size - 1), 0, 2), 3)
            for at, size in zip(found, shape, strict=True)
        ]
        moved = np.einsum("np,apq,nq->an", weights[0], drawn.grid, weights[1])
        found = pixels - moved.reshape(found.shape)
    # A point on every pixel: the field of such a grid is the grid.
    return Deformation(grid=found - pixels)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_an_elastic_movement_and_its_inverse_bring_a_smooth_image_back(seed):
    shape = (90, 110)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = (np.sin(x / 9) + np.cos(y / 11))[None]
    only = {"rotation": 0, "shift": 0, "flips": False}
    drawn = draw_deformation(np.random.default_rng(seed), sigma=4, unfolded_in=shape, **only)
    there = deform(image, drawn).image
    back = deform(there, inverse_of(drawn, shape)).image
    # What was moved out of the image is lost.
    reach = int(np.ceil(np.abs(drawn.grid).max())) + 4
    inner = (0, slice(reach, -reach), slice(reach, -reach))
    np.testing.assert_allclose(back[inner], image[inner], atol=5e-3)
    if np.abs(drawn.grid[:, 1, 1]).max() > 2:
        assert np.abs(there[inner] - image[inner]).max() > 0.1
        # The negative control: the field turned round is not its inverse.
        turned = deform(there, Deformation(grid=-drawn.grid)).image
        assert np.abs(turned[inner] - image[inner]).max() > 1e-2


@pytest.mark.parametrize(("push", "folded"), [(0.0, False), (40.0, False), (90.0, True)])
def test_a_fold_is_where_neighbours_pass_each_other(push, folded):
    grid = np.zeros((2, 3, 3))
    grid[1, :, 0], grid[1, :, 2] = push, -push
    moved = Deformation(grid=grid)
    shape = (101, 101)
    positions = source_positions(moved, shape)
    assert (np.diff(positions[1], axis=1).min() <= 0) == folded
    assert folds(moved, shape) == folded


def test_rotation_alone_never_folds_and_flips_do_not_count():
    assert not folds(Deformation(angle=170.0, scale=2.0, flip_x=True), (30, 40))
    assert not folds(Deformation(), (1, 1))
