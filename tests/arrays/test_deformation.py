"""Movements of images, against numpy's mirror, scipy's interpolation and the paper's numbers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import map_coordinates

from unetkit.arrays.deformation import (
    Deformation,
    deform,
    draw_deformation,
    field,
    folds,
    grid_lines,
    identity,
    reorder,
    result_shape,
    sampler,
)
from unetkit.arrays.resampling import point_weights
from unetkit.errors import InputError, UsageError

DTYPES = (np.uint8, np.uint16, np.int16, np.float32)


def picture(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def constant(dy, dx):
    return Deformation(grid=np.stack([np.full((3, 3), float(dy)), np.full((3, 3), float(dx))]))


def assert_same(out, image=None, labels=None, weights=None):
    """Hold what was deformed to these arrays, to the bit."""
    for found, wanted in ((out.image, image), (out.labels, labels), (out.weights, weights)):
        assert (found is None) == (wanted is None)
        assert wanted is None or (found.dtype == wanted.dtype and (found == wanted).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_grid_is_the_identity_to_the_bit(dtype):
    image, labels = picture((2, 13, 9), dtype), picture((13, 9), np.uint32)
    weights = np.random.default_rng(1).random((13, 9), np.float32)
    out = deform(image, identity(), labels=labels, weights=weights, ignore=labels)
    assert_same(out, image, labels, weights)
    assert (out.ignore == labels).all()
    assert not np.shares_memory(out.image, image)
    # The kernels themselves, not only the way round them, keep every bit.
    turned = deform(image, Deformation(angle=360.0), labels=labels, weights=weights)
    assert_same(turned, image, labels, weights)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    shift=st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
    dtype=st.sampled_from(DTYPES),
)
def test_a_constant_grid_is_a_shift_of_the_mirrored_image(shape, shift, dtype):
    image, (height, width), (dy, dx) = picture((2, *shape), dtype), shape, shift
    labels, weights = picture(shape, np.int64), image[0].astype(np.float32)
    out = deform(image, constant(dy, dx), labels=labels, weights=weights)
    for found, given_ in ((out.image, image), (out.labels, labels), (out.weights, weights)):
        padding = [(0, 0)] * (given_.ndim - 2) + [(50, 50)] * 2
        mirrored = np.pad(given_, padding, mode="reflect")
        wanted = mirrored[..., 50 + dy : 50 + dy + height, 50 + dx : 50 + dx + width]
        assert (found == wanted).all()


def test_content_moves_down_and_right_by_the_shift():
    image = picture((1, 12, 15))
    out = deform(image, Deformation(shift=(3, 2))).image
    assert (out[:, 3:, 2:] == image[:, :-3, :-2]).all()


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_90_degrees_is_a_quarter_turn(size, turns):
    image, labels = picture((1, size, size)), picture((size, size), np.uint16)
    turned = deform(image, Deformation(quarter_turns=turns), labels=labels)
    rotated = deform(image, Deformation(angle=90.0 * turns), labels=labels)
    assert (turned.image == np.rot90(image, turns, axes=(1, 2))).all()
    assert_same(rotated, turned.image, turned.labels)


def test_flips_and_quarter_turns_are_exact_and_swap_the_shape():
    image, labels = picture((2, 7, 11)), picture((7, 11), np.uint8)
    out = deform(image, Deformation(flip_y=True, flip_x=True, quarter_turns=1), labels=labels)
    assert out.image.shape == (2, 11, 7)
    wanted = np.rot90(image[:, ::-1, ::-1], axes=(1, 2)), np.rot90(labels[::-1, ::-1])
    assert_same(out, *wanted)


def test_a_growing_scale_shows_the_middle_larger():
    labels = np.zeros((41, 41), np.uint8)
    labels[18:23, 18:23] = 1
    grown = deform(None, Deformation(scale=3.0), labels=labels).labels
    assert grown.sum() == pytest.approx(9 * labels.sum(), rel=0.1)
    assert (grown == grown[::-1, ::-1]).all()


@settings(max_examples=40, deadline=None)
@given(
    points=st.integers(2, 5),
    steps=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 999),
)
def test_the_field_takes_the_drawn_values_at_the_grid_points(points, steps, seed):
    grid = np.random.default_rng(seed).normal(0, 10, (2, points, points))
    height, width = ((points - 1) * step + 1 for step in steps)
    assert (field(grid, (height, width))[:, :: steps[0], :: steps[1]] == grid).all()


def test_the_field_of_a_constant_grid_is_constant_and_that_of_a_ramp_runs_evenly_inside():
    assert field(np.full((2, 3, 3), 7.0), (20, 31)) == pytest.approx(np.full((2, 20, 31), 7.0))
    ramp = np.broadcast_to(np.arange(6.0), (2, 6, 6))
    across = field(ramp, (51, 51))[0, 5]
    # Keys' cubic reproduces lines; only the outermost cells see the repeated edge.
    assert np.diff(across)[10:40] == pytest.approx(np.full(30, 0.1))


def test_the_drawn_displacements_spread_by_sigma():
    drawn = np.stack([draw_deformation(np.random.default_rng([3, i])).grid for i in range(300)])
    assert drawn.shape == (300, 2, 3, 3)
    # 5400 values: the standard error of their deviation is 1 %.
    assert drawn.std() == pytest.approx(10, rel=0.04)
    assert drawn.mean() == pytest.approx(0, abs=0.5)
    # It may differ along y and x.
    grids = [draw_deformation(np.random.default_rng(i), sigma=(2, 20)).grid for i in range(200)]
    assert np.stack(grids).std(axis=(0, 2, 3)) == pytest.approx([2, 20], rel=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_labels_are_sampled_as_scipy_does_at_the_stated_positions_and_keep_their_weights(
    source_positions, seed, shape
):
    rng = np.random.default_rng(seed)
    drawn = draw_deformation(rng, rotation=180, scale=1.5)
    moved = dataclasses.replace(drawn, flip_x=False, quarter_turns=0)
    labels, weights = picture(shape, np.uint32), rng.random(shape, np.float32)
    out = deform(None, moved, labels=labels, weights=weights)
    positions = source_positions(moved, shape)
    near_tie = (np.abs(positions % 1 - 0.5) < 1e-4).any(axis=0)
    for found, given_ in ((out.labels, labels), (out.weights, weights)):
        nearest = map_coordinates(given_, positions, order=0, mode="mirror")
        assert ((found == nearest) | near_tie).all()
    # A tie, too, has one answer: each weight goes where its label goes.
    places = np.arange(labels.size, dtype=np.uint32).reshape(shape)
    whole = deform(None, moved, labels=places, weights=weights)
    assert (whole.weights == weights.ravel()[whole.labels]).all()


def test_the_image_is_sampled_by_keys_cubic():
    image = picture((1, 9, 40), np.float32)
    found = deform(image, constant(0, 0.5)).image[0, :, 1:-3]
    left, mid, right, far = (image[0, :, k : 36 + k] for k in range(4))
    np.testing.assert_allclose(found, 0.5625 * (mid + right) - 0.0625 * (left + far), rtol=1e-5)


def test_a_smooth_image_is_moved_to_a_fraction_of_a_grey_level(source_positions):
    y, x = np.mgrid[:80, :90].astype(float)
    image = np.sin(x / 9)[None] + np.cos(y / 8)
    moved = Deformation(angle=20.0, grid=np.random.default_rng(0).normal(0, 4, (2, 3, 3)))
    positions = source_positions(moved, (80, 90))
    found = deform(image, moved).image[0, 25:55, 25:65]
    wanted = (np.sin(positions[1] / 9) + np.cos(positions[0] / 8))[25:55, 25:65]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    labels=hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.uint32, np.uint64]),
        st.tuples(st.integers(1, 25), st.integers(1, 25)),
        elements=st.sampled_from([0, 3, 77, 255]),
    ),
    seed=st.integers(0, 10**6),
)
def test_no_id_is_invented(labels, seed):
    drawn = draw_deformation(np.random.default_rng(seed), rotation=180, scale=2)
    out = deform(None, drawn, labels=labels).labels
    assert out.dtype == labels.dtype
    assert set(np.unique(out)) <= set(np.unique(labels))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_integers_are_clipped_to_their_range_not_wrapped(dtype):
    limits = np.iinfo(dtype)
    image = np.full((1, 20, 20), limits.min, dtype)
    image[:, :, 10:] = limits.max
    out = deform(image, constant(0, 0.5)).image
    # Keys' cubic overshoots beside an edge; wrapped, the bright side would hold dark pixels.
    assert (out[:, :, :9] == limits.min).all()
    assert (out[:, :, 10:18] == limits.max).all()


def test_constant_arrays_stay_constant():
    drawn = draw_deformation(np.random.default_rng(4), rotation=180)
    weights = np.full((33, 20), 2.5, np.float32)
    out = deform(np.full((1, 33, 20), 77, np.uint8), drawn, weights=weights)
    assert (out.image == 77).all()
    assert out.weights == pytest.approx(np.full(out.weights.shape, 2.5))


@pytest.mark.parametrize("dtype", [bool, np.float16, np.float64, np.uint32, np.uint64])
def test_uncommon_dtypes_are_kept(dtype):
    image = (picture((1, 9, 9)) % 2).astype(dtype)
    out = deform(image, constant(1, 0)).image
    assert out.dtype == dtype
    assert (out[:, :-1] == image[:, 1:]).all()


def test_same_generator_same_movement_and_another_seed_another_one():
    one, again, other = (draw_deformation(np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.to_dict() == again.to_dict()
    assert one.to_dict() != other.to_dict()
    assert Deformation.from_dict(one.to_dict()).to_dict() == one.to_dict()


def test_strengths_bound_what_is_drawn():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        drawn = draw_deformation(rng, rotation=5, shift=3, scale=1.2, sigma=0, flips=False)
        assert abs(drawn.angle) <= 5
        assert max(map(abs, drawn.shift)) <= 3
        assert 1 / 1.2 <= drawn.scale <= 1.2
        assert not drawn.grid.any()
        assert (drawn.flip_y, drawn.flip_x, drawn.quarter_turns) == (False, False, 0)


def test_all_eight_orientations_are_drawn_and_with_everything_off_nothing_is_resampled():
    drawn = [draw_deformation(np.random.default_rng(seed)) for seed in range(200)]
    assert len({(d.flip_x, d.quarter_turns) for d in drawn}) == 8
    off = draw_deformation(np.random.default_rng(0), sigma=0, rotation=0, shift=0, flips=False)
    assert not off.resamples
    assert Deformation(angle=1).resamples


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        ({"points": 1}, "grid must be 2 to 64 points a side, got 1"),
        ({"sigma": -1}, "sigma must be 0 or more, got -1"),
        ({"rotation": math.nan}, "rotation must be 0 or more, got nan"),
        ({"shift": math.inf}, "shift must be 0 or more, got inf"),
        ({"scale": 0.9}, r"scale must be 1 or more, got 0\.9"),
    ],
)
def test_strengths_that_can_not_be_used_are_refused(strength, words):
    with pytest.raises(UsageError, match=words):
        draw_deformation(np.random.default_rng(0), **strength)


def test_arrays_of_different_size_are_refused():
    image = picture((1, 8, 8))
    assert deform(image, identity(), labels=image[0]).labels.shape == (8, 8)
    with pytest.raises(InputError, match="must have one height and width, got"):
        deform(image, identity(), labels=picture((8, 9)))
    with pytest.raises(InputError, match="got no array"):
        deform(None, identity())


def test_movements_that_fold_are_drawn_again_where_that_is_asked_for():
    shape, strong = (64, 64), {"sigma": 12.0, "rotation": 0, "shift": 0}
    plain = [draw_deformation(np.random.default_rng(i), **strong) for i in range(60)]
    assert any(folds(drawn, shape) for drawn in plain)
    for seed, before in enumerate(plain):
        rng = np.random.default_rng(seed)
        drawn = draw_deformation(rng, **strong, unfolded_in=shape)
        assert not folds(drawn, shape)
        if not folds(before, shape):
            assert drawn.to_dict() == before.to_dict()
    with pytest.raises(UsageError, match="must be small enough for images of 10 x 10 pixels"):
        draw_deformation(np.random.default_rng(0), sigma=50.0, unfolded_in=(10, 10))


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        np.asfortranarray,
        lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),  # read-only
    ],
)
def test_how_an_array_lies_in_memory_changes_nothing(laid_out):
    rng = np.random.default_rng(0)
    image, labels = picture((2, 20, 23), np.uint16), picture((20, 23), np.uint32)
    weights, drawn = rng.random((20, 23), np.float32), draw_deformation(rng)
    plain = deform(image, drawn, labels=labels, weights=weights)
    other = deform(laid_out(image), drawn, labels=laid_out(labels), weights=laid_out(weights))
    assert_same(other, plain.image, plain.labels, plain.weights)
    assert (other.image.dtype, other.labels.dtype) == (np.uint16, np.uint32)


SEEDS = st.integers(0, 10**6)


def arrays(rng, shape):
    image = rng.integers(0, 255, (2, *shape)).astype(np.uint8)
    labels = rng.integers(0, 2**32, shape).astype(np.uint32)
    return [(image, "cubic"), (labels, "nearest"), (rng.random(shape, np.float32), "nearest")]


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
def test_a_fold_is_where_neighbours_pass_each_other(source_positions, push, folded):
    grid = np.zeros((2, 3, 3))
    grid[1, :, 0], grid[1, :, 2] = push, -push
    moved, shape = Deformation(grid=grid), (101, 101)
    positions = source_positions(moved, shape)
    assert (np.diff(positions[1], axis=1).min() <= 0) == folded
    assert folds(moved, shape) == folded


def test_rotation_alone_never_folds_and_flips_do_not_count():
    assert not folds(Deformation(angle=170.0, scale=2.0, flip_x=True), (30, 40))
    assert not folds(Deformation(), (1, 1))


def test_without_movement_the_lines_stay_and_quarter_turns_carry_them_along():
    lines = grid_lines(identity(), (21, 41), lines=5)
    assert lines[0, :, 2] == pytest.approx([0, 5, 10, 15, 20])
    assert lines[1, 2] == pytest.approx([0, 10, 20, 30, 40])
    turned = grid_lines(Deformation(quarter_turns=1), (11, 21), lines=3)
    assert turned[:, 0, 0].tolist() == [20, 0]
    assert turned[:, 2, 2].tolist() == [0, 10]


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
