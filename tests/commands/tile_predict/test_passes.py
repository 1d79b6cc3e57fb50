"""Plain, turned, blended and several at once: always what whole passes over the image give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unetkit.arrays import instances, normalization
from unetkit.cli.app import main
from unetkit.commands.tile_predict import averaging, blocks, skipping
from unetkit.commands.tile_predict.averaging import LEAST_WEIGHT
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import OutputError, UsageError
from unetkit.geometry.tiles import mirror
from unetkit.models import hardware, model_file
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

EXACT = {"precision": "exact", "probabilities": "float32"}

LOOKS = [{"tta": "rotations"}, {"merge": "gaussian"}]

# Each way of laying a square upon itself as NumPy does it, and back, in the order of `TURNS`.
FLIPS = [(), (2,), (1,), (1, 2)]


def turned(array, axes, *, swapped):
    flipped = np.flip(array, axes)
    return np.ascontiguousarray(flipped.transpose(0, 2, 1) if swapped else flipped)


def turned_back(array, axes, *, swapped):
    return np.flip(array.transpose(0, 2, 1) if swapped else array, axes)


def soft_max(logits):
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def whole_passes(model, image, tta):
    """Average whole passes over an image (C, Y, X) that is mirrored out to whole steps and turned.

    Whatever surplus the legal size has lies at the far side of the turned image.
    """
    loaded = model_file.load(model)
    contract = loaded.header.contract
    fitted = normalization.fit(lambda: [image], method=loaded.header.normalization).apply(image)
    height, width = image.shape[1:]
    sides = [-(-length // contract.step) * contract.step for length in (height, width)]
    wide = 4 * contract.need + 4 * contract.minimum
    rows = mirror(-wide, sides[0] + wide, height)
    columns = mirror(-wide, sides[1] + wide, width)
    around = fitted[:, rows][:, :, columns]
    total = np.zeros((2, height, width), np.float32)
    ways = [(axes, swapped) for swapped in (False, True) for axes in FLIPS]
    ways = ways[: {"none": 1, "flips": 4, "rotations": 8}[tta]]
    for axes, swapped in ways:
        seen = turned(around, axes, swapped=swapped)
        start = wide - contract.need
        ends = [start + contract.legal(n - 2 * wide + 2 * contract.need) for n in seen.shape[1:]]
        batch = torch.from_numpy(seen[:, start : ends[0], start : ends[1]].copy())[None]
        with torch.inference_mode():
            logits = hardware.forward(loaded.module, batch, precision="exact")[0].numpy()
        found = soft_max(logits)[:, contract.halo :, contract.halo :]
        found = found[:, : seen.shape[1] - 2 * wide, : seen.shape[2] - 2 * wide]
        total += turned_back(found, axes, swapped=swapped)[:, :height, :width]
    return np.asarray(total / np.float32(len(ways)))


# More tiles would show nothing new, and take long.
MOST_TILES_A_SIDE = 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a folder that the examples of one test share."""
    return tmp_path_factory.mktemp("shared")


def check(kit, shared, *, shape, network, depth, tta, tile, chunk, scheduler):
    """Predict noise of a shape in tiles of at least `tile` steps, and compare with whole passes."""
    name, norm = network
    place = shared / f"{name}{norm}{depth}.safetensors"
    model = kit.model(place, name=name, norm=norm, depth=depth)
    step = 2**depth
    side = step * max(tile, -(-max(shape) // (step * MOST_TILES_A_SIDE)))
    place = shared / f"{len(list(shared.iterdir()))}.zarr"
    source, image = kit.image(place, shape, chunk=chunk, seed=shape[0])
    report = tile_predict(source, model=model, tile=side, tta=tta, scheduler=scheduler, **EXACT)
    made = open_image(report.output)
    expected = whole_passes(model, image[0], tta)
    if tta == "none" and name == "unet":
        np.testing.assert_array_equal(expected, kit.one_pass(model, image[0]))
    np.testing.assert_array_equal(kit.read(made.data), expected)
    classes = (expected[1] >= 0.5).astype(np.uint8)
    np.testing.assert_array_equal(kit.read(made.labels["classes"]), classes)
    found = instances.instances(classes, "foreground", distance=1)
    np.testing.assert_array_equal(kit.read(made.labels["instances"]), found)
    assert report.objects == found.max()
    assert report.tiles_total == -(-shape[0] // side) * -(-shape[1] // side)


CASES = {
    "shape": st.tuples(st.integers(1, 300), st.integers(1, 300)),
    "network": st.sampled_from([("unet", "none"), ("unet", "batch"), ("keras-unet", None)]),
    "depth": st.integers(1, 4),
    "tta": st.sampled_from(["none", "flips", "rotations"]),
    "tile": st.integers(1, 5),
    "chunk": st.sampled_from([7, 32, 100, 512]),
    "scheduler": st.sampled_from(["sync", "threads"]),
}
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def case(*values):
    return example(**dict(zip(CASES, values, strict=True)))


@settings(max_examples=5, suppress_health_check=SHARED)
@given(**CASES)
@case((1, 1), ("unet", "none"), 4, "none", 1, 7, "sync")
@case((1, 300), ("unet", "none"), 2, "none", 1, 100, "threads")
@case((5, 1), ("unet", "batch"), 2, "none", 4, 32, "sync")
@case((67, 49), ("unet", "batch"), 2, "none", 4, 32, "threads")
@case((91, 5), ("unet", "batch"), 4, "none", 1, 32, "threads")
@case((293, 211), ("unet", "none"), 3, "none", 3, 32, "sync")
@case((37, 50), ("unet", "none"), 2, "rotations", 4, 32, "sync")
@case((1, 23), ("unet", "batch"), 2, "rotations", 4, 32, "sync")
@case((70, 41), ("unet", "none"), 4, "rotations", 2, 32, "threads")
@case((33, 18), ("keras-unet", None), 2, "flips", 4, 32, "sync")
def test_tiles_equal_whole_passes_to_the_bit(kit, shared, **asked):
    check(kit, shared, **asked)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=SHARED)
@given(**CASES)
def test_tiles_equal_whole_passes_in_many_cases(kit, shared, **asked):
    check(kit, shared, **asked)


def test_turns_matter(kit, slide):
    seen = {
        tta: kit.read(open_image(report.output).data)
        for tta in ("none", "flips", "rotations")
        for report in [tile_predict(slide, tta=tta, output=f"{tta}.zarr", tile=16, **EXACT)]
    }
    assert np.abs(seen["none"] - seen["flips"]).max() > 1e-3
    assert np.abs(seen["flips"] - seen["rotations"]).max() > 1e-3


def test_a_turned_image_gives_the_turned_average(kit, slide):
    _, image = kit.image(Path("square.zarr"), (32, 48), seed=9)
    turned_image = np.rot90(image[0], axes=(1, 2))
    create_image("turned.zarr", shape=(48, 32), axes="yx", dtype="u2", chunk=32).write(
        0, 0, 0, np.ascontiguousarray(turned_image)
    )
    found = [
        kit.read(open_image(tile_predict(name, tta="rotations", tile=16, **EXACT).output).data)
        for name in ("square.zarr", "turned.zarr")
    ]
    # The looks are the same ones, added up in another order.
    np.testing.assert_allclose(np.rot90(found[0], axes=(1, 2)), found[1], atol=1e-6)


def test_several_models_give_the_mean_of_what_each_gives_alone(kit, slide):
    models = [
        kit.model(Path("deep.safetensors"), depth=2, seed=3),
        kit.model(Path("flat.safetensors"), depth=1, seed=4, method="none"),
        kit.model(Path("padded.safetensors"), depth=1, seed=5, name="keras-unet"),
    ]
    alone = []
    for number, model in enumerate(models):
        output = f"{number}.zarr"
        tile_predict(slide, model=model, output=output, tile=16, tta="flips", **EXACT)
        alone.append(kit.read(open_image(output).data))
    report = tile_predict(slide, model=models, tile=16, tta="flips", **EXACT)
    made = open_image(report.output)
    expected = (alone[0] + alone[1] + alone[2]) / np.float32(3)
    np.testing.assert_array_equal(kit.read(made.data), expected)
    np.testing.assert_array_equal(kit.read(made.labels["classes"]), expected[1] >= 0.5)
    assert (report.models, report.cost_factor) == (3, 12)
    assert len(set(made.attributes["prediction"]["model_sha256"])) == 3


def blended(model, image, tile):
    """Blend all windows over a whole image: what needs an accumulator of its size."""
    loaded = model_file.load(model)
    contract = loaded.header.contract
    fitted = normalization.fit(lambda: [image], method=loaded.header.normalization).apply(image)
    height, width = image.shape[1:]
    need, size = contract.need, tile + 2 * contract.need
    total = np.zeros((2, height + 2 * size, width + 2 * size), np.float32)
    weights = np.zeros(total.shape[1:], np.float32)
    line = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (size / 8)) ** 2)
    bell = np.maximum(np.outer(line, line), LEAST_WEIGHT).astype(np.float32)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            rows = mirror(y - need, y - need + contract.legal(size), height)
            columns = mirror(x - need, x - need + contract.legal(size), width)
            batch = torch.from_numpy(fitted[:, rows][:, :, columns])[None]
            with torch.inference_mode():
                logits = hardware.forward(loaded.module, batch, precision="exact")[0].numpy()
            place = (
                slice(y - need + size, y - need + 2 * size),
                slice(x - need + size, x - need + 2 * size),
            )
            total[:, *place] += soft_max(logits)[:, :size, :size] * bell
            weights[place] += bell
    inside = slice(size, size + height), slice(size, size + width)
    return total[:, *inside] / weights[inside]


@pytest.mark.parametrize(("height", "width"), [(50, 37), (16, 70), (9, 5)])
@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_blocks_equal_windows_added_up_over_the_whole_image(
    kit,
    tmp_path,
    monkeypatch,
    height,
    width,
    tiles,
):
    monkeypatch.setattr(averaging, "BLEND_TILES", tiles)
    model = kit.model(tmp_path / "padded.safetensors", depth=1, name="keras-unet")
    source, image = kit.image(tmp_path / "slide.zarr", (height, width))
    report = tile_predict(source, model=model, tile=8, merge="gaussian", **EXACT)
    made = kit.read(open_image(report.output).data)
    np.testing.assert_array_equal(made, blended(model, image[0], 8))
    np.testing.assert_allclose(made.sum(axis=0), 1, atol=1e-5)


def test_blending_is_no_crop_and_wants_windows_that_overlap(kit, slide):
    model = kit.model(Path("padded.safetensors"), depth=1, name="keras-unet")
    cropped, mixed = (
        kit.read(open_image(report.output).data)
        for merge in ("crop", "gaussian")
        for report in [
            tile_predict(slide, model=model, tile=16, merge=merge, output=f"{merge}.zarr", **EXACT)
        ]
    )
    assert 1e-6 < np.abs(cropped - mixed).max() < 0.5
    for models in (["model.safetensors"], [model, "model.safetensors"]):
        with pytest.raises(UsageError, match="merge must be crop for models without a halo"):
            tile_predict(slide, model=models, merge="gaussian")
    assert main(["tile-predict", slide, "--merge", "gaussian"]) == 2


@pytest.mark.parametrize("options", LOOKS)
def test_tiles_of_one_value_are_what_they_would_be_if_computed(kit, tmp_path, monkeypatch, options):
    monkeypatch.setattr(averaging, "BLEND_TILES", 2)
    model = kit.model(tmp_path / "padded.safetensors", depth=1, name="keras-unet", method="none")
    data = create_image(str(tmp_path / "s.zarr"), shape=(150, 130), axes="yx", dtype="u1", chunk=50)
    data.write(0, 0, 0, np.random.default_rng(0).integers(0, 9, (1, 50, 50), np.uint8))
    found = []
    for name in ("copied", "computed"):
        with monkeypatch.context() as patch:
            if name == "computed":
                patch.setattr(blocks, "constant_values", lambda block: None)
            report = tile_predict(
                str(tmp_path / "s.zarr"),
                model=model,
                output=str(tmp_path / f"{name}.zarr"),
                tile=16,
                scheduler="sync",
                **EXACT,
                **options,
            )
        found.append(report)
    assert found[0].tiles_constant > found[1].tiles_constant == 0
    assert kit.differing(found[0].output, found[1].output) == []


@pytest.mark.parametrize("options", LOOKS)
def test_resuming_gives_the_bytes_of_one_run(kit, slide, monkeypatch, cut_off, options):
    monkeypatch.setattr(averaging, "BLEND_TILES", 2)
    models = [kit.model(Path(f"{n}.st"), depth=1, seed=n, name="keras-unet") for n in (1, 2)]
    asked = {"model": models, "tile": 8, "scheduler": "sync", **EXACT, **options}
    whole = tile_predict(slide, output="whole.zarr", **asked)

    cut_off(slide, at=5, **asked)
    for change in ({"tta": "flips"}, {"model": models[:1]}):
        with pytest.raises(OutputError, match="same settings"):
            tile_predict(slide, resume=True, **(asked | change))
    report = tile_predict(slide, resume=True, **asked)
    assert 0 < report.tiles_reused < report.tiles_total == whole.tiles_total
    assert kit.differing(report.output, "whole.zarr") == []


@pytest.mark.parametrize("options", LOOKS)
def test_what_is_left_out_changes_nothing_elsewhere(kit, slide, monkeypatch, options):
    monkeypatch.setattr(averaging, "BLEND_TILES", 2)
    monkeypatch.setattr(skipping, "REACH", 3)
    model = kit.model(Path("padded.safetensors"), depth=1, name="keras-unet")
    asked = {"model": model, "tile": 8, **EXACT, **options}
    data = create_image("mask.zarr", shape=(4, 4), axes="yx", dtype="u1", chunk=4)
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
    data.write(0, 0, 0, mask[None])
    everything = tile_predict(slide, output="all.zarr", **asked)
    report = tile_predict(slide, mask="mask.zarr", **asked)
    assert 0 < report.tiles_left_out < report.tiles_total
    full, some = (kit.read(open_image(found.output).data) for found in (everything, report))
    looked = np.kron(mask, np.ones((16, 15)))[:64, :60] > 0
    np.testing.assert_array_equal(full[:, looked], some[:, looked])
    nothing = (some[0] == 1) & (some[1] == 0)
    assert nothing.mean() > 0.5
    assert (nothing | (full == some).all(axis=0)).all()


def test_a_plan_says_what_averages_cost(kit, slide):
    model = kit.model(Path("padded.safetensors"), depth=1, name="keras-unet")
    notes = kit.watching()
    asked = {"model": model, "tile": 8, "dry_run": True}
    plain = tile_predict(slide, **asked)
    assert (plain.cost_factor, plain.models, plain.tta, plain.merge) == (1, 1, "none", "crop")
    turned_plan = tile_predict(slide, tta="rotations", progress=notes, **asked)
    assert turned_plan.cost_factor == 8
    assert turned_plan.context_share == plain.context_share
    assert "averaged over 8 turns at 8.0 times the work" in notes.notes[-1]
    mixed = tile_predict(slide, merge="gaussian", progress=notes, **asked)
    # Blocks of four tiles of 8 run one or two more windows on each side.
    assert mixed.cost_factor == pytest.approx((2 * (4 + 2)) ** 2 / 8**2, rel=0.01)
    assert mixed.context_share > plain.context_share
    assert "averaged over windows" in notes.notes[-1]
