import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unetkit.errors import UsageError
from unetkit.models.inference import tiled_pass, whole_pass
from unetkit.models.unet import build, crop, size_contract
from unetkit.testing import check_model


def classic(**options):
    torch.manual_seed(0)
    chosen = {"in_channels": 1, "classes": 2, "width": 2, **options}
    return build(**chosen).eval()


def with_biases(network):
    """Make every layer count: with biases of 0 a narrow network can be silent."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-0.5, 0.5)
    return network


def test_figure_1_of_the_paper():
    with torch.device("meta"):
        network = build(in_channels=1, classes=2)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(layers) == 23
        assert sum(p.numel() for p in network.parameters()) == 31_030_658
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        assert network.bottom[-2].out_channels == 1024
        assert isinstance(layers[-1], nn.Conv2d)
        assert layers[-1].kernel_size == (1, 1)
    for up in network.up:
        assert (up.kernel_size, up.stride) == ((2, 2), (2, 2))
        assert up.in_channels == 2 * up.out_channels


def test_weights_have_the_papers_spread_and_biases_are_zero():
    network = classic(width=16, in_channels=64)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            upwards = isinstance(layer, nn.ConvTranspose2d)
            inputs = layer.in_channels * (1 if upwards else math.prod(layer.kernel_size))
            assert (layer.bias == 0).all()
            if layer.weight.numel() > 4000:
                expected = math.sqrt(2 / inputs)
                assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
                assert abs(layer.weight.mean().item()) < 0.05 * expected
    first = network.down[0][0]
    assert math.sqrt(2 / (first.in_channels * 9)) == pytest.approx(0.0589, abs=1e-4)


def test_dropout_acts_after_the_bottom_block_and_only_in_training():
    network, seen = with_biases(classic(depth=1, width=4, dropout=0.5)), []
    network.dropout.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    image = torch.randn(1, 1, 18, 18)
    assert torch.equal(network(image), network(image))
    assert torch.equal(*seen[0])
    network.train()
    assert not torch.equal(network(image), network(image))
    before, after = seen[-1]
    assert before.shape[1] == 8
    kept = after != 0
    assert not kept.all()
    assert torch.equal(after[kept], 2 * before[kept])


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_contract_is_the_real_networks(depth):
    contract = size_contract(depth)
    assert (contract.step, contract.margin) == (2**depth, 6 * 2**depth - 4)
    assert contract.minimum == (18 if depth == 1 else 2 * contract.margin + 4)
    assert contract.exact
    with torch.device("meta"):
        network = build(in_channels=1, classes=2, width=1, depth=depth)
        assert network.contract == contract
        for size in (contract.minimum, contract.minimum + contract.step):
            shape = network(torch.empty(1, 1, size, contract.minimum)).shape
            assert shape[2:] == (contract.output(size), contract.output(contract.minimum))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_size_below_or_between_the_contracts_would_work(depth):
    network = classic(depth=depth, width=1)
    contract = network.contract
    for size in range(1, contract.minimum + contract.step):
        image = torch.zeros(1, 1, size, contract.minimum)
        if contract.is_legal(size):
            network(image)
        else:
            with pytest.raises(UsageError, match=f"got {size};"):
                network(image)
    with pytest.raises(UsageError, match="must have 1 channels, got 3"):
        network(torch.zeros(1, 3, contract.minimum, contract.minimum))
    # Without the check a size off the step would pass, rounded down without a word.
    network.contract = type(contract)(step=1, minimum=1)
    with pytest.raises(UsageError, match="even number of pixels"):
        network(torch.zeros(1, 1, contract.minimum + 1, contract.minimum))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_crop_is_that_of_a_slice_and_lies_as_its_features_do(layout):
    picture = torch.rand(2, 3, 7, 9).contiguous(memory_format=layout).requires_grad_()
    pull = torch.rand(2, 3, 3, 7).contiguous(memory_format=layout)
    (found,) = torch.autograd.grad(crop(picture, height=3, width=7), picture, pull)
    (right,) = torch.autograd.grad(picture[:, :, 2:5, 1:8], picture, pull)
    assert torch.equal(found, right)
    assert found.is_contiguous(memory_format=layout)


def test_crop_takes_the_same_off_both_sides():
    picture = torch.arange(48.0).view(1, 1, 6, 8)
    assert torch.equal(crop(picture, height=2, width=6), picture[:, :, 2:4, 1:7])
    for height, width in ((3, 6), (2, 5), (8, 8)):
        with pytest.raises(UsageError, match="even number of pixels"):
            crop(picture, height=height, width=width)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("in_channels", [0]),
        ("classes", [1]),
        ("depth", [0, 7]),
        ("width", [0]),
        ("dropout", [-0.1, 1.0, math.nan]),
    ],
)
def test_options_out_of_range_are_refused(name, values):
    for value in values:
        with pytest.raises(UsageError, match=f"{name} of model 'unet' must be .*, got {value}"):
            classic(**{name: value})
    with pytest.raises(UsageError, match="norm of model 'unet' must be none or batch, got 'group'"):
        classic(norm="group")


def test_batch_normalization_is_exact_when_predicting_and_alive_when_training(tiles_differ):
    network = with_biases(classic(depth=2, width=4, norm="batch"))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    # Two in each of the five blocks.
    assert len(norms) == 10
    image = torch.randn(1, 90, 61, generator=torch.Generator().manual_seed(0))
    network.train()(torch.randn(2, 1, 60, 60) * 3)
    assert all((layer.running_mean != 0).any() for layer in norms)
    network.eval()
    assert whole_pass(network, image, overlap=20).std() > 0
    for tile in (8, 32):
        assert tiles_differ(network, image, tile=tile, overlap=20) == 0
    # With the statistics of each tile, as in training, a shift by the step would change the result.
    network.train()
    with torch.no_grad():
        one, other = (network(image[None, :, :60, x : x + 56]) for x in (0, 4))
    assert (one[..., 4:] - other[..., :-4]).abs().max() > 1e-3


@pytest.mark.parametrize(("depth", "norm"), [(1, "none"), (2, "none"), (1, "batch")])
def test_it_keeps_the_contract_that_plugins_are_held_to(depth, norm):
    check_model(build, in_channels=2, classes=3, depth=depth, width=2, norm=norm)


SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=12)
@given(depth=st.integers(1, 3), shape=SIDES, steps=st.integers(1, 4), more=st.integers(0, 2))
def test_tiles_equal_the_whole_image_to_the_bit(tiles_differ, depth, shape, steps, more):
    network = with_biases(classic(depth=depth, width=2))
    step = network.contract.step
    overlap = network.contract.need + more * step
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(depth))
    assert tiles_differ(network, image, tile=steps * step, overlap=overlap) == 0
    assert whole_pass(network, image, overlap=overlap).shape == (2, *shape)


@pytest.mark.parametrize("width", [2, 4])
def test_tiles_of_16_and_64_equal_the_whole_image_to_the_bit(tiles_differ, width):
    network, image = with_biases(classic(width=width)), torch.randn(1, 70, 33)
    for tile in (16, 64):
        assert tiles_differ(network, image, tile=tile, overlap=92) == 0


def test_tiles_of_384_and_512_equal_the_whole_image_to_the_bit_and_388_do_not():
    network = with_biases(classic(width=2))
    image = torch.randn(1, 400, 416)
    whole = whole_pass(network, image, overlap=92)
    for tile in (384, 512):
        assert torch.equal(tiled_pass(network, image, tile=tile, overlap=92), whole)
    papers = tiled_pass(network, image, tile=388, overlap=92)
    assert torch.equal(papers[:, :388, :388], whole[:, :388, :388])
    assert not torch.allclose(papers, whole, atol=1e-2)


@pytest.fixture
def small():
    return with_biases(classic(depth=2, width=4))


@pytest.mark.parametrize("tile", [3, 5, 6, 9])
def test_tiles_off_the_step_differ(tiles_differ, small, tile):
    image, need = torch.randn(1, 24, 24), small.contract.need
    assert tiles_differ(small, image, tile=tile, overlap=need) > 1e-2


def test_context_off_the_phase_differs(small):
    image, need = torch.randn(1, 24, 24), small.contract.need
    near, far = (whole_pass(small, image, overlap=need + more) for more in (0, 1))
    assert not torch.allclose(far, near, atol=1e-3)


def test_an_image_moved_by_the_step_moves_the_result(small):
    image = torch.randn(1, 1, 60, 64)
    torch.testing.assert_close(small(image[:, :, 4:, 8:]), small(image)[:, :, 4:, 8:])
