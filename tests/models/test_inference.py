"""One network over arrays in memory and tiles of slides alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import NonFiniteError, ResourceError, UsageError
from unetkit.models import hardware, inference, unet
from unetkit.models.inference import (
    logits_of,
    predict_array,
    share,
    stored,
    stored_and_classes,
    tile_gap,
    to_classes,
    to_probabilities,
    whole_pass,
)


def narrow(depth, *, seed=0):
    torch.manual_seed(seed)
    return unet.build(in_channels=1, classes=2, depth=depth, width=2).eval()


def noise(channels, height, width):
    return np.random.default_rng(0).random((channels, height, width), np.float32)


@pytest.fixture
def network():
    """Return a network whose two classes are mixed over noise, so that seams would show."""
    network = narrow(2, seed=2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, 0.1)
        logits = network(torch.rand(1, 1, 108, 108))[0]
        network.head.bias[1] -= (logits[1] - logits[0]).median()
    return network


def one_pass(network, image):
    """Predict an image (C, Y, X) in one pass over it, mirrored on every side by NumPy."""
    contract = network.contract
    height, width = image.shape[1:]
    far = [contract.legal(n + 2 * contract.need) - n - contract.need for n in (height, width)]
    padding = [(0, 0), *((contract.need, after) for after in far)]
    padded = torch.from_numpy(np.pad(image, padding, mode="reflect"))
    with torch.inference_mode():
        logits = hardware.forward(network, padded[None], precision="exact")[0].numpy()
    powers = np.exp(logits - logits.max(axis=0))[:, :height, :width]
    return np.asarray(powers / powers.sum(axis=0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 57), (90, 44)])
@pytest.mark.parametrize("options", [{"tile": 16}, {"tile": 64}, {"tile": 64, "overlap": 30}, {}])
def test_an_array_is_predicted_as_in_one_pass(network, shape, options):
    image = noise(1, *shape)
    image.flags.writeable = False
    got = predict_array(network, image, contract=network.contract, precision="exact", **options)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, one_pass(network, image))


def test_tiles_off_the_grid_of_pooling_differ(network):
    image = noise(1, 60, 60)
    with pytest.raises(UsageError, match="multiple of 4"):
        predict_array(network, image, contract=network.contract, tile=18)
    # A contract that knows no grid, but sizes that the network takes.
    blind = replace(network.contract, step=1, minimum=68)
    off = predict_array(network, image, contract=blind, tile=26, precision="exact")
    assert not np.allclose(off, one_pass(network, image), atol=1e-3)


def test_the_mode_of_the_network_is_left_as_it_was(network):
    first = predict_array(network.train(), noise(1, 20, 20), contract=network.contract)
    assert network.training
    second = predict_array(network.eval(), noise(1, 20, 20), contract=network.contract)
    assert not network.training
    np.testing.assert_array_equal(first, second)


def test_an_output_that_is_not_finite_is_named(network):
    image = noise(1, 20, 20)
    image[0, 5, 5] = np.inf
    with pytest.raises(NonFiniteError, match=r"NaN or Inf at .* pixels of the tile at row 0"):
        predict_array(network, image, contract=network.contract, tile=16)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ResourceError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError),
        (MemoryError("Unable to allocate 3.00 GiB"), ResourceError),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_too_little_memory_is_named(network, monkeypatch, error, expected):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hardware, "forward", fail)
    with pytest.raises(expected) as caught:
        predict_array(network, noise(1, 20, 20), contract=network.contract, tile=16)
    assert ("smaller --tile" in str(caught.value)) == (expected is ResourceError)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_probabilities_do_not_depend_on_the_neighbours(classes, height, width, seed):
    torch.manual_seed(seed)
    logits = 30 * torch.randn(classes, height, width)
    got = to_probabilities(logits)
    np.testing.assert_allclose(got, torch.softmax(logits.double(), 0), atol=1e-6)
    for y, x in ((0, 0), (height - 1, width - 1)):
        alone = to_probabilities(logits[:, y : y + 1, x : x + 1].contiguous())
        np.testing.assert_array_equal(alone[:, 0, 0], got[:, y, x])


def test_classes_are_the_most_probable():
    three = np.array([[[0.2, 0.4]], [[0.5, 0.4]], [[0.3, 0.2]]], np.float32)
    np.testing.assert_array_equal(to_classes(three), [[1, 0]])
    two = np.array([[[0.7, 0.5, 0.2]], [[0.3, 0.5, 0.8]]], np.float32)
    np.testing.assert_array_equal(to_classes(two), [[0, 1, 1]])
    np.testing.assert_array_equal(to_classes(two, threshold=0.6), [[0, 0, 1]])
    np.testing.assert_array_equal(to_classes(two, threshold=0.6, target="boundary"), [[0, 1, 1]])
    assert to_classes(np.zeros((300, 1, 1), np.float32)).dtype == np.uint16


@pytest.mark.parametrize("classes", [3, 4, 300])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("rows", [1, 1000])
def test_of_equal_classes_the_first_is_chosen(monkeypatch, classes, dtype, rows):
    monkeypatch.setattr(inference, "STRIP", classes * 21 * rows)
    values = np.random.default_rng(0).integers(0, 4, (classes, 30, 21)).astype(dtype)
    np.testing.assert_array_equal(to_classes(values), values.argmax(axis=0))


def test_probabilities_do_not_depend_on_the_strips(monkeypatch):
    logits = torch.randn(3, 50, 37)
    whole = to_probabilities(logits)
    monkeypatch.setattr(inference, "STRIP", 3 * 37 * 7)
    np.testing.assert_array_equal(to_probabilities(logits), whole)
    np.testing.assert_array_equal(stored(whole, np.dtype("u1")), np.rint(whole * 255))


def test_by_default_what_is_stored_decides_as_the_probability_does():
    near = np.float32(0.5) + np.arange(-2000, 2000, dtype=np.float32) * np.spacing(np.float32(0.25))
    probable = np.stack([1 - near, near])
    kept = stored(probable[:, None], np.dtype("uint8"))
    np.testing.assert_array_equal(to_classes(kept)[0], near >= 0.5)
    assert kept.dtype == np.uint8


@pytest.mark.parametrize("threshold", [0.001, 0.2, 1 / 3, 0.6, 0.601, 0.999])
@pytest.mark.parametrize(("target", "positive"), [("boundary", 0), ("foreground", 1)])
def test_what_is_stored_decides_about_two_classes(threshold, target, positive):
    one = np.linspace(0, 1, 5001, dtype=np.float32)[None]
    probable = np.stack([1 - one, one])
    exact, classes = stored_and_classes(
        probable, np.dtype("float32"), threshold=threshold, target=target
    )
    chosen = exact[positive] >= np.float32(threshold)
    np.testing.assert_array_equal(classes, np.where(chosen, positive, 1 - positive))
    kept, rounded = stored_and_classes(
        probable, np.dtype("uint8"), threshold=threshold, target=target
    )
    chosen = kept[positive] / 255 >= threshold
    np.testing.assert_array_equal(rounded, np.where(chosen, positive, 1 - positive))
    # Half of a stored step decides otherwise than the probability itself, and no more.
    others = classes != rounded
    assert (np.abs(probable[positive] - threshold)[others] <= 0.5001 / 255).all()


def test_the_most_probable_of_several_leads_by_less_than_is_stored():
    probable = np.array([0.333, 0.334, 0.333], np.float32)[:, None, None]
    kept, classes = stored_and_classes(probable, np.dtype("uint8"), threshold=0.5, target="classes")
    assert len(np.unique(kept)) == 1
    assert classes == 1


def test_whole_pass_is_one_pass_over_the_mirrored_image(tiles_differ):
    network, image = narrow(1), torch.randn(1, 5, 6)
    # 8 pixels of mirror on 5: torch itself mirrors less than the image's size at once.
    mirrored = np.pad(image.numpy(), [(0, 0), (8, 9), (8, 8)], mode="reflect")
    with torch.no_grad():
        expected = network(torch.from_numpy(mirrored)[None])[0, :, :5, :6]
    torch.testing.assert_close(whole_pass(network, image, overlap=8), expected)
    assert tiles_differ(network, image, tile=8, overlap=8) == 0


def test_logits_keep_no_gradients():
    logits = logits_of(narrow(1), torch.zeros(1, 1, 18, 18), precision="float32")
    assert logits.shape == (1, 2, 2, 2)
    assert not logits.requires_grad


def test_a_tile_equals_its_strip_on_the_step_grid_alone():
    for axis in (2, 3):
        assert tile_gap(narrow(2), in_channels=1, axis=axis, start=8) == 0
        assert tile_gap(narrow(2), in_channels=1, axis=axis, start=9) > 0.01


def test_a_small_difference_of_small_logits_is_no_large_share():
    assert share(torch.tensor([-0.5, 0.1]), of=torch.tensor([0.2])) == 0.5
    assert share(torch.tensor([-0.5, 0.1]), of=torch.tensor([-5.0])) == 0.1
