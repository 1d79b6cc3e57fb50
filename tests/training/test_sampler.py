from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from unetkit.arrays.weight_map import border_weight
from unetkit.errors import UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.training.block_cache import BlockCache
from unetkit.training.distributed import SINGLE, ProcessGroup
from unetkit.training.recipes import RECIPES
from unetkit.training.sampler import Sampler
from unetkit.training.split import Region

# The classic network of depth 1, and a padded one of the same depth.
VALID = SizeContract(step=2, minimum=18, margin=8)
PADDED = SizeContract(step=2, minimum=20, margin=0, halo=6)
CONTRACTS = pytest.mark.parametrize("contract", [VALID, PADDED], ids=["valid", "padded"])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def sampler(kit, samples, *, contract=VALID, regions=None, seed=0, group=SINGLE, **recipe):
    whole = [Region(n, 0, 0, m.image.height, m.image.width) for n, m in samples.items()]
    return Sampler(
        samples,
        whole if regions is None else regions,
        contract=contract,
        recipe=kit.plain(**recipe),
        cache=BlockCache(),
        seed=seed,
        group=group,
    )


def equal(first, second):
    return first.samples == second.samples and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("images", "targets", "weights")
    )


def test_any_number_of_threads_hands_out_the_same_batches(kit):
    samples = {name: kit.sample(noise(1, 70, 60, seed=k)) for k, name in enumerate("abc")}
    strong = {"elastic": 0.5, "rotated": 0.5, "flips": True, "grey": 0.1, "foreground": 0.5}
    drawn = []
    for workers in (0, 1, 3):
        one = sampler(kit, samples, **strong)
        with one.batches(workers=workers) as batches:
            drawn.append(list(islice(batches, 7)))
    assert all(
        equal(first, second)
        for other in drawn[1:]
        for first, second in zip(drawn[0], other, strict=True)
    )
    with sampler(kit, samples, **strong).batches(workers=2, start=4) as batches:
        assert all(equal(a, b) for a, b in zip(batches, drawn[0][4:], strict=False))
    # Nor does it matter what was drawn before.
    assert equal(sampler(kit, samples, **strong).batch(5), drawn[0][5])
    assert len({batch.images.tobytes() for batch in drawn[0]}) == 7
    assert not equal(sampler(kit, samples, seed=1, **strong).batch(5), drawn[0][5])


@CONTRACTS
def test_a_tile_is_a_window_of_the_mirrored_image(kit, contract):
    image = noise(2, 40, 33)
    target = (np.arange(40 * 33).reshape(40, 33) % 251).astype(np.uint8)
    weights = 1 + noise(40, 33, seed=1)
    one = sampler(kit, {"a": kit.sample(image, target=target, weights=weights)}, contract=contract)
    need, margin = contract.need, contract.margin
    assert (one.size, one.trusted, one.output) == (12 + 2 * need, 12, 12 + 2 * contract.halo)
    padded = np.pad(image, [(0, 0), (need, need), (need, need)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, one.size, one.size))[0]
    corners = set()
    for step in range(40):
        pixels, classes, weight, name = one.draw(step, 0)
        ((y, x),) = np.argwhere((windows == pixels).all(axis=(2, 3, 4)))
        corners.add((y, x))
        inner = np.s_[contract.halo : contract.halo + 12, contract.halo : contract.halo + 12]
        there = np.s_[y : y + 12, x : x + 12]
        np.testing.assert_array_equal(classes[inner], target[there])
        np.testing.assert_array_equal(weight[inner], weights[there])
        # What a prediction would not use is not learned from either.
        assert weight.sum() == pytest.approx(weight[inner].sum())
        assert (classes.shape, pixels.shape) == ((one.output,) * 2, (2, one.size, one.size))
        assert one.size - 2 * margin == one.output
        assert name == "a"
    assert len(corners) > 30
    assert {y for y, _ in corners} <= set(range(40 - 12 + 1))


@CONTRACTS
def test_every_pixel_of_the_image_is_learned_from(kit, contract):
    # The target of each pixel tells which it is, so that a tile tells what it covers.
    ids = np.arange(15 * 16).reshape(15, 16).astype(np.uint8)
    image = kit.sample(noise(1, 15, 16), target=ids)
    one = sampler(kit, {"a": image}, contract=contract, flips=True)
    seen = set()
    for step in range(60):
        _, classes, weights, _ = one.draw(step, 0)
        seen |= set(classes[weights > 0].tolist())
    assert seen == set(range(15 * 16))


def test_a_tile_larger_than_the_image_holds_all_of_it(kit):
    ids = np.arange(9 * 7).reshape(9, 7).astype(np.uint8)
    one = sampler(kit, {"a": kit.sample(noise(1, 9, 7), target=ids)}, tile=100)
    # No larger than the longest image needs.
    assert (one.size, one.output) == (26, 10)
    for step in range(10):
        pixels, classes, weights, _ = one.draw(step, 0)
        assert set(classes[weights > 0].tolist()) == set(range(9 * 7))
        assert np.isfinite(pixels).all()


def test_image_target_and_weights_move_together(kit):
    # One smooth picture, given thrice: wherever it is taken from, the three must agree.
    y, x = np.mgrid[:120, :120]
    picture = (100 + 50 * np.sin(y / 17) + 50 * np.cos(x / 23)).astype(np.float32)
    sample = kit.sample(picture[None], target=picture.round().astype(np.uint8), weights=picture)
    changes = {"elastic": 1.0, "rotated": 1.0, "flips": True, "sigma": 6.0}
    one = sampler(kit, {"a": sample}, tile=60, **changes)
    moved = []
    for step in range(12):
        pixels, classes, weights, _ = one.draw(step, 0)
        inner = pixels[0, 8:-8, 8:-8]
        moved.append(inner)
        # The nearest pixel: half a pixel of at most 4.5 grey values, and the rounding of classes.
        assert np.abs(inner - classes).max() < 4.5
        assert np.abs(weights - classes).max() <= 0.5
    apart = np.abs(moved[0] - moved[1]).max()
    assert apart > 20


def test_nothing_outside_the_region_and_nothing_ignored_is_learned_from(kit):
    # Class 1 is right where it counts; 2 lies outside of the region, 3 is ignored.
    target = np.full((64, 64), 2, np.uint8)
    target[10:50, 12:40] = 1
    target[20:26, 20:30] = 3
    weights = np.where(target == 3, 0, 5).astype(np.float32)
    region = Region("a", 10, 12, 50, 40)
    changes = {"elastic": 1.0, "rotated": 1.0, "flips": True, "sigma": 4.0}
    sample = kit.sample(noise(1, 64, 64), target=target, weights=weights)
    one = sampler(kit, {"a": sample}, regions=[region], tile=20, **changes)
    learned = 0
    for step in range(40):
        _, classes, weight, _ = one.draw(step, 0)
        assert set(classes[weight > 0].tolist()) <= {1}
        learned += int((weight > 0).sum())
    assert learned > 40 * 100
    # The control: the whole image would have been seen.
    everywhere = sampler(kit, {"a": sample}, tile=20, **changes)
    classes = np.concatenate([everywhere.draw(step, 0)[1].ravel() for step in range(40)])
    assert set(classes.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.25), (1.0, 1.0, 1.0)])
def test_the_share_of_tiles_with_foreground(kit, share, least, most):
    target = np.zeros((200, 200), np.uint8)
    target[90:100, 100:108] = 1
    one = sampler(
        kit, {"a": kit.sample(noise(1, 200, 200), target=target)}, foreground=share, tile=40
    )
    drawn = [one.draw(step, 0)[1] for step in range(80)]
    met = np.mean([bool(classes.any()) for classes in drawn])
    assert least <= met <= most
    if share:
        # Not always at the centre, where the network would learn to expect it.
        rows = {int(np.argwhere(classes)[0, 0]) for classes in drawn if classes.any()}
        assert len(rows) > 15


def test_background_need_not_be_class_0(kit):
    target = np.ones((200, 200), np.uint8)
    target[90:100, 100:108] = 0
    image = kit.sample(noise(1, 200, 200), target=target, background=1)
    one = sampler(kit, {"a": image}, foreground=1.0, tile=40)
    assert all((one.draw(step, 0)[1] == 0).any() for step in range(40))


def test_processes_share_a_batch_and_its_seed(kit):
    samples = {"a": kit.sample(noise(1, 70, 60))}
    whole = sampler(kit, samples, batch=5).batch(2)
    parts = [sampler(kit, samples, group=ProcessGroup(k, 2), batch=5).batch(2) for k in (0, 1)]
    for name in ("images", "targets", "weights"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))
    assert {part.seed for part in parts} == {whole.seed}
    assert whole.seed != sampler(kit, samples, batch=5).batch(3).seed
    with pytest.raises(UsageError, match="batch must be at least 3 for as many processes, got 2"):
        sampler(kit, samples, group=ProcessGroup(0, 3), batch=2)


def test_samples_and_planes_are_drawn_equally_often(kit):
    small, large = kit.sample(noise(1, 20, 20)), kit.sample(noise(1, 90, 90))
    stack = kit.Memory(np.repeat(np.arange(4, dtype=np.uint8), 900).reshape(4, 30, 30))
    film = kit.sample(noise(1, 30, 30))
    film = type(film)(
        kit.Memory(np.repeat(film.image.array, 4, axis=0)),
        stack,
        kit.Memory(np.ones((4, 30, 30), np.float32)),
        normalization=film.normalization,
        class_counts=kit.class_counts(stack.array, np.ones(stack.array.shape)),
    )
    one = sampler(kit, {"small": small, "large": large, "film": film})
    drawn = [one.draw(step, index) for step in range(150) for index in range(2)]
    names = [name for *_, name in drawn]
    assert min(names.count(name) for name in ("small", "large", "film")) > 70
    planes = [int(classes[0, 0]) for _, classes, _, name in drawn if name == "film"]
    assert min(planes.count(plane) for plane in range(4)) > 10


def test_nan_is_filled_only_where_asked_for(kit):
    image = noise(1, 20, 20)
    image[0, 10, 10] = np.nan
    target = np.zeros((20, 20), np.uint8)
    for fill in (True, False):
        one = sampler(kit, {"a": kit.sample(image, target=target, replace_nonfinite=fill)}, tile=20)
        assert np.isfinite(one.draw(0, 0)[0]).all() == fill


def test_an_error_in_a_thread_reaches_the_training(kit):
    class Broken:
        height = width = 30
        planes = 1

        def read(self, *box):
            raise OSError("the disk is gone")

    image = kit.sample(noise(1, 30, 30))
    broken = replace(image, weights=Broken())
    with (
        sampler(kit, {"a": broken}).batches(workers=2) as batches,
        pytest.raises(OSError, match="the disk is gone"),
    ):
        next(batches)


def test_the_recipes_draw_batches_for_the_classic_network(kit):
    classic = SizeContract(step=16, minimum=188, margin=92)
    image = kit.sample(noise(1, 512, 512))
    whole = Region("a", 0, 0, 512, 512)
    for name, shape in (("default", (1, 1, 508, 508)), ("paper", (1, 1, 572, 572))):
        one = Sampler(
            {"a": image},
            [whole],
            contract=classic,
            recipe=RECIPES[name],
            cache=BlockCache(),
            seed=0,
        )
        batch = one.batch(0)
        assert batch.images.shape == shape
        assert batch.targets.shape == (shape[0], shape[2] - 184, shape[3] - 184)
        assert one.pixels_read == shape[0] * shape[2] * shape[3]
        assert (batch.images.dtype, batch.targets.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (9, [1, 1, 1, 1, 1])])
def test_a_batch_is_cut_into_parts_of_tiles(kit, count, sizes):
    whole = kit.batch(names=tuple("abcde"))
    parts = list(whole.parts(count))
    assert [len(part.images) for part in parts] == sizes
    for name in ("images", "targets", "weights"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))
    assert "".join(name for part in parts for name in part.samples) == "abcde"


def test_a_tile_weighs_a_gap_as_the_labels_that_it_shows_would_be_weighed(kit):
    # Cells of 8 pixels with gaps of 1 to 3 between them, and a part that nobody annotated.
    edges = [0, *np.cumsum([9, 10, 11, 9, 10, 11, 9, 10, 11])]
    ids = np.zeros((90, 90), np.int32)
    for i, y in enumerate(edges):
        for j, x in enumerate(edges):
            ids[y : y + 8, x : x + 8] = 1 + i * len(edges) + j
    of_class = np.array([0.5, 20], np.float32)
    weights = of_class[(ids > 0).astype(int)] + border_weight(ids)
    weights[40:60, 40:60] = 0
    sample = kit.sample(noise(1, 90, 90), target=ids.astype(np.uint8), weights=weights)
    changes = {"elastic": 1.0, "rotated": 1.0, "scale": 1.0, "flips": True, "sigma": 6.0}
    one = sampler(kit, {"a": sample}, tile=60, **changes)
    errors = []
    for step in range(12):
        _, shown, found, _ = one.draw(step, 0)
        anew = border_weight(shown.astype(np.int32))
        term = (found - of_class[(shown > 0).astype(int)])[found > 0]
        assert term.min() > -1e-4
        # On cells there is none.
        assert (term[shown[found > 0] > 0] < 1e-4).all()
        errors.append((term - anew[found > 0])[anew[found > 0] > 1])
    errors = np.concatenate(errors)
    assert len(errors) > 1000
    # Each rim of a gap moves by up to half a pixel, and the field stretches it by a few per cent.
    assert np.abs(errors).mean() < 0.65
    assert np.percentile(errors, 5) > -1.5
