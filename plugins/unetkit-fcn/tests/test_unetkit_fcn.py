"""Hold the three networks to unetkit's contract and to their paper."""

import pytest
import torch
import unetkit_fcn
from torch import nn
from torch.nn import functional
from unetkit_fcn import bilinear

from unetkit.errors import UsageError
from unetkit.testing import check_model, receptive_field

STRIDES = (32, 16, 8)


def build(stride, **options):
    given = {"in_channels": 1, "classes": 2, "width": 1, "head": 4, **options}
    torch.manual_seed(0)
    return getattr(unetkit_fcn, f"build_fcn{stride}s")(**given)


@pytest.mark.parametrize("stride", STRIDES)
def test_it_keeps_the_contract(stride):
    check_model(getattr(unetkit_fcn, f"build_fcn{stride}s"), width=2, head=8)


def test_the_trunk_is_vgg16():
    with torch.device("meta"):
        network = unetkit_fcn.build_fcn32s(in_channels=3, classes=21)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [
        *(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        *(4096, 4096, 21),
    ]
    # VGG16 has 138,357,544 numbers with its last layer of 1000 classes.
    trunk = sum(p.numel() for layer in layers[:-1] for p in layer.parameters())
    assert trunk == 138_357_544 - (4096 * 1000 + 1000)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_deconvolutions_begin_as_bilinear_interpolation(factor):
    scores = torch.randn(1, 3, 6, 5)
    enlarged = bilinear(3, factor)(scores)
    expected = functional.interpolate(
        scores, scale_factor=float(factor), mode="bilinear", align_corners=False
    )
    inside = slice(factor, -factor)
    torch.testing.assert_close(enlarged[..., inside, inside], expected[..., inside, inside])


@pytest.mark.parametrize(("stride", "skips"), [(32, 0), (16, 1), (8, 2)])
def test_scores_of_earlier_pools_are_added(stride, skips):
    network = build(stride).eval()
    assert len(network.skips) == skips
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        before = network(image)
        for skip in network.skips:
            skip.weight.zero_()
            skip.bias.zero_()
        assert torch.equal(network(image), before) == (skips == 0)


@pytest.mark.parametrize("stride", STRIDES)
def test_the_halo_is_the_measured_one(stride):
    network = build(stride).eval()
    field = receptive_field(network, in_channels=1)
    assert field.least_need(network.contract) == network.contract.need


def test_numbers_out_of_range_are_refused():
    with pytest.raises(UsageError, match="width of model 'fcn8s' must be at least 1, got 0"):
        build(8, width=0)
